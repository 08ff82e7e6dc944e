"""Totals of users, sessions and keys of the cache, kept up to date so that no list has to read their exchanges."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.database.engine import Database
from llmproxy.database.paging import Keyset, cursor, cut
from llmproxy.history.projector import advance_checkpoint, checkpoint
from llmproxy.history.tables import history, keys, sessions, users
from llmproxy.wire.vocabulary import HITS, LOOKED_UP, SAVED, CacheStatus

#: rows summed up in one transaction
CHUNK = 2_000

#: rows removed in one transaction
FORGOTTEN = 300
#: the columns that add up
SUMMED = tuple(column.name for column in users.c if column.name not in ("user_name", "first_seen", "last_seen"))


class Summaries:
    """The ``Projection`` that adds new rows to the sums."""

    name = "summaries"

    def __init__(self, database: Database) -> None:
        self._database = database
        accumulate = database.dialect.accumulate
        self._statements = [
            accumulate(users, ["user_name"], _sums(history.c.user_name), _merged),
            accumulate(
                sessions,
                ["session", "user_name"],
                _sums(history.c.session, history.c.user_name).where(history.c.session != ""),
                _merged,
            ),
            accumulate(keys, ["cache_key"], _sums_of_keys(), _merged),
        ]

    async def advance(self) -> bool:
        seen = await checkpoint(self._database, self.name)
        chunk = select(history.c.id).where(history.c.id > seen).order_by(history.c.id).limit(CHUNK).subquery()
        async with self._database.read() as connection:
            count, last = (await connection.execute(select(func.count(), func.max(chunk.c.id)))).one()
        if count == 0:
            return False
        async with self._database.write() as connection:
            if await advance_checkpoint(connection, self.name, seen, last):
                for statement in self._statements:
                    await connection.execute(statement, {"seen": seen, "last": last})
        return bool(count == CHUNK)


def _sums(*keys: Column[Any]) -> Select[Any]:
    """A row for each of ``keys`` among the exchanges past ``seen`` up to ``last``: the keys, then the totals."""
    row = history.c
    totals = (
        func.min(row.created_at),
        func.max(row.created_at),
        func.count(),
        _count(row.cache.in_(LOOKED_UP)),
        _count(row.cache.in_(HITS)),
        _count(and_(or_(row.status >= 400, row.status == 0), row.cache != CacheStatus.ONLY_IF_CACHED)),
        func.coalesce(func.sum(row.prompt_tokens), 0),
        func.coalesce(func.sum(row.completion_tokens), 0),
        func.coalesce(func.sum(case((row.cache.in_(SAVED), row.upstream_seconds), else_=0.0)), 0.0),
    )
    return select(*keys, *totals).where(row.id > bindparam("seen"), row.id <= bindparam("last")).group_by(*keys)


def _sums_of_keys() -> Select[Any]:
    """The same by key of the cache."""
    row = history.c
    totals = (_count(row.cache.in_(HITS)), func.max(row.created_at), func.max(row.id))
    query = select(row.cache_key, *totals).where(row.id > bindparam("seen"), row.id <= bindparam("last"))
    return query.where(row.cache_key != "").group_by(row.cache_key)


def _count(condition: ColumnElement[bool]) -> ColumnElement[Any]:
    return func.sum(case((condition, 1), else_=0))


def _merged(there: Column[Any], new: ColumnElement[Any]) -> ColumnElement[Any]:
    if there.name == "first_seen":
        return case((new < there, new), else_=there)
    if there.name in ("last_seen", "exchange"):
        return case((new > there, new), else_=there)
    return there + new


async def forget_totals(database: Database, before: float) -> None:
    """Deletes the totals of users, sessions and keys last seen before that Unix second, in small transactions."""
    for table in (users, sessions, keys):
        key = tuple_(*table.primary_key.columns)
        some = select(*table.primary_key.columns).where(table.c.last_seen < before).limit(FORGOTTEN)
        while True:
            async with database.write() as connection:
                forgotten = (await connection.execute(delete(table).where(key.in_(some)))).rowcount
            if forgotten < FORGOTTEN:
                break


async def erase_totals(connection: AsyncConnection, user: str | None, session: str | None) -> None:
    """Deletes the totals of a user, of a session, or of a user within it, and subtracts them from the users'."""
    both = ((sessions.c.user_name, user), (sessions.c.session, session))
    query = [column == value for column, value in both if value is not None]
    if session is None:
        await connection.execute(delete(users).where(users.c.user_name == user))
    else:
        for row in (await connection.execute(select(sessions).where(*query))).mappings().all():
            less = {name: users.c[name] - row[name] for name in SUMMED}
            await connection.execute(update(users).where(users.c.user_name == row["user_name"]).values(less))
        await connection.execute(delete(users).where(users.c.requests <= 0))
    await connection.execute(delete(sessions).where(*query))


#: sessions shown with a user, users with a session
MOST_SHOWN = 100

#: the last to be seen first
_USERS = Keyset(users.c.last_seen, users.c.user_name)
_SESSIONS_OF_ONE = Keyset(sessions.c.last_seen, sessions.c.session)
_SESSIONS = Keyset(sessions.c.last_seen, sessions.c.session, sessions.c.user_name)

Document = dict[str, Any]


async def user_page(database: Database, limit: int, after: str | None) -> Document:
    """Users, as a list with ``next``. Raises ``BadRequest`` for a cursor that is none, else what the database does."""
    return await _page(database, select(users), _USERS, limit, after)


async def session_page(database: Database, limit: int, after: str | None, user: str | None) -> Document:
    """Sessions, as a list with ``next``; of one user, or of all. Raises like ``user_page``."""
    if user is None:
        return await _page(database, select(sessions), _SESSIONS, limit, after)
    theirs = select(sessions).where(sessions.c.user_name == user)
    return await _page(database, theirs, _SESSIONS_OF_ONE, limit, after)


async def one_user(database: Database, user: str) -> Document | None:
    """A user with the sessions that were last seen; None for an unknown one."""
    found = await _rows(database, select(users).where(users.c.user_name == user))
    if not found:
        return None
    theirs = select(sessions).where(sessions.c.user_name == user)
    newest = theirs.order_by(sessions.c.last_seen.desc(), sessions.c.session.desc()).limit(MOST_SHOWN)
    return {**_to_json(found[0]), "sessions": [_to_json(row) for row in await _rows(database, newest)]}


async def one_session(database: Database, session: str) -> Document | None:
    """A session over all users who named it, with those last seen; None for an unknown one."""
    mine = sessions.c.session == session
    columns: list[Any] = [literal(session).label("session")]
    columns += [func.min(sessions.c.first_seen).label("first_seen"), func.max(sessions.c.last_seen).label("last_seen")]
    columns += [func.sum(sessions.c[name]).label(name) for name in SUMMED]
    (total,) = await _rows(database, select(*columns).where(mine))
    if total["requests"] is None:
        return None
    newest = select(sessions).where(mine).order_by(sessions.c.last_seen.desc(), sessions.c.user_name.desc())
    return {**_to_json(total), "users": [_to_json(row) for row in await _rows(database, newest.limit(MOST_SHOWN))]}


async def uses(database: Database, cache_keys: Sequence[str]) -> dict[str, Document]:
    """What is known of the use of these keys.

    By key: ``hits``, ``last_used``, and ``exchange`` and ``request_id`` of its newest exchange, if that is still kept.
    """
    row = keys.c
    joined = keys.outerjoin(history, history.c.id == row.exchange)
    columns = (row.cache_key, row.hits, row.last_seen.label("last_used"), history.c.id.label("exchange"))
    query = select(*columns, history.c.request_id).select_from(joined).where(row.cache_key.in_(cache_keys))
    return {each["cache_key"]: dict(each) for each in await _rows(database, query)}


async def _page(database: Database, query: Select[Any], order: Keyset, limit: int, after: str | None) -> Document:
    page = order.page(query, limit, None if after is None else order.read(after))
    rows, last = cut(await _rows(database, page), limit)
    more = None if last is None else cursor([last[column.name] for column in order.columns])
    return {"object": "list", "data": [_to_json(row) for row in rows], "next": more}


def _to_json(row: Mapping[str, Any]) -> Document:
    """A row for an answer. The hit rate counts the requests that were looked up; None without any."""
    looked_up = int(row["looked_up"])
    return {
        **{
            name_in_json: row[name]
            for name, name_in_json in (("session", "session"), ("user_name", "user"))
            if name in row
        },
        "first_seen": row["first_seen"],
        "last_seen": row["last_seen"],
        **{name: int(row[name]) for name in ("requests", "hits", "errors", "prompt_tokens", "completion_tokens")},
        "hit_rate": int(row["hits"]) / looked_up if looked_up else None,
        "saved_seconds": row["saved_seconds"],
    }


async def _rows(database: Database, statement: Select[Any]) -> list[Mapping[str, Any]]:
    async with database.read() as connection:
        return [dict(row) for row in (await connection.execute(statement)).mappings()]
