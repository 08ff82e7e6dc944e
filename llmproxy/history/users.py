"""Who used the proxy: users and sessions with what they add up to, the last to be seen first."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, func, literal, select, tuple_

from llmproxy.database.engine import Database
from llmproxy.history.cursor import cursor, values
from llmproxy.history.summaries import SUMMED
from llmproxy.history.tables import sessions, users

#: sessions shown with a user, users with a session
MOST_SHOWN = 100

Document = dict[str, Any]


async def user_page(database: Database, limit: int, after: str | None) -> Document:
    """Users, as a list with ``next``. Raises ``BadRequest`` for a cursor that is none, else what the database does."""
    return await _page(database, select(users), ("last_seen", "user_name"), limit, after)


async def session_page(database: Database, limit: int, after: str | None, user: str | None) -> Document:
    """Sessions, as a list with ``next``; of one user, or of all. Raises like ``user_page``."""
    wanted = select(sessions)
    order = ["last_seen", "session", "user_name"]
    if user is not None:
        wanted, order = wanted.where(sessions.c.user_name == user), order[:2]
    return await _page(database, wanted, order, limit, after)


async def one_user(database: Database, user: str) -> Document | None:
    """With the sessions that were last seen; None for one of whom nothing is known."""
    found = await _rows(database, select(users).where(users.c.user_name == user))
    if not found:
        return None
    theirs = select(sessions).where(sessions.c.user_name == user)
    newest = theirs.order_by(sessions.c.last_seen.desc(), sessions.c.session.desc()).limit(MOST_SHOWN)
    return {**_shown(found[0]), "sessions": [_shown(row) for row in await _rows(database, newest)]}


async def one_session(database: Database, session: str) -> Document | None:
    """Summed up over the users who named it, with those that were last seen; None where nothing is known."""
    mine = sessions.c.session == session
    columns: list[Any] = [literal(session).label("session")]
    columns += [func.min(sessions.c.first_seen).label("first_seen"), func.max(sessions.c.last_seen).label("last_seen")]
    columns += [func.sum(sessions.c[name]).label(name) for name in SUMMED]
    (total,) = await _rows(database, select(*columns).where(mine))
    if total["requests"] is None:
        return None
    newest = select(sessions).where(mine).order_by(sessions.c.last_seen.desc(), sessions.c.user_name.desc())
    return {**_shown(total), "users": [_shown(row) for row in await _rows(database, newest.limit(MOST_SHOWN))]}


async def _page(
    database: Database, wanted: Select[Any], order: Sequence[str], limit: int, after: str | None
) -> Document:
    table: Table = wanted.columns_clause_froms[0]  # type: ignore[assignment]  # always of one table here
    columns: list[ColumnElement[Any]] = [table.c[name] for name in order]
    if after is not None:
        place = values(after, [float, *(str for _ in order[1:])])
        wanted = wanted.where(tuple_(*columns) < tuple_(*map(literal, place)))
    found = await _rows(database, wanted.order_by(*(column.desc() for column in columns)).limit(limit + 1))
    rows = found[:limit]
    more = cursor([rows[-1][name] for name in order]) if len(found) > limit else None
    return {"object": "list", "data": [_shown(row) for row in rows], "next": more}


def _shown(row: Mapping[str, Any]) -> Document:
    """The hit rate is that of the requests that were looked up, None where there were none."""
    looked_up = int(row["looked_up"])
    return {
        **{shown: row[name] for name, shown in (("session", "session"), ("user_name", "user")) if name in row},
        "first_seen": row["first_seen"],
        "last_seen": row["last_seen"],
        **{name: int(row[name]) for name in ("requests", "hits", "errors", "prompt_tokens", "completion_tokens")},
        "hit_rate": int(row["hits"]) / looked_up if looked_up else None,
        "saved_seconds": row["saved_seconds"],
    }


async def _rows(database: Database, statement: Select[Any]) -> list[Mapping[str, Any]]:
    async with database.read() as connection:
        return [dict(row) for row in (await connection.execute(statement)).mappings()]
