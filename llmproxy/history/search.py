"""Pages of exchanges. Each page costs a bounded amount of work, however many rows there are and whatever is asked.

One of the filters has an index in the order of the pages: the rows are read along it, and the other filters look at
each. Only so many are looked at for one page; where they do not fill it, the next page goes on behind them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Double, Select, Subquery, and_, cast, func, literal_column, or_, select

from llmproxy.database.engine import Database
from llmproxy.database.paging import Keyset, cursor, cut
from llmproxy.database.sql_dialect import Phrase
from llmproxy.history.tables import HISTORY_TEXTS, history
from llmproxy.wire.vocabulary import CacheStatus

#: the newest first
BY_TIME = Keyset(history.c.created_at, history.c.id)

_TOKENS = func.coalesce(history.c.prompt_tokens, 0) + func.coalesce(history.c.completion_tokens, 0)

Order = Literal["newest", "slowest", "tokens"]
#: other orders -> what the rows are ranked by, the highest first
RANKS: dict[str, ColumnElement[float]] = {"slowest": history.c.total_seconds, "tokens": cast(_TOKENS, Double)}


class HistoryCursor(NamedTuple):
    """Where a page ended: the next one holds what is older, or lower in rank. ``id`` tells apart what is equal."""

    rank: float
    id: int

    def text(self) -> str:
        return cursor(self)

    @classmethod
    def read(cls, text: str) -> "HistoryCursor":
        """Raises ``BadRequest``."""
        return cls(*BY_TIME.read(text))


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Filters that must all apply; None is no filter. Times are Unix seconds, of when the exchanges began.

    ``text`` are phrases that must all be in the prompt or the answer; with them the newest to end is first, without
    them the newest to begin.
    """

    limit: int
    user: str | None = None
    session: str | None = None
    model: str | None = None
    endpoint: str | None = None
    cache: str | None = None
    status: int | None = None
    #: from this moment on
    since: float | None = None
    #: before this moment
    until: float | None = None
    text: tuple[tuple[str, ...], ...] = ()
    #: whether only those with an error for a status; not those that asked for what is stored, and found nothing
    failed: bool = False
    min_seconds: float | None = None
    #: of the prompt and the answer together
    min_tokens: int | None = None
    #: orders other than ``newest`` are of the newest ``MOST_LOOKED_AT`` or ``LONGEST_TEXTS`` exchanges alone
    order: Order = "newest"
    after: HistoryCursor | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Exchanges, newest first, JSON-ready; and where the next page begins, None after the last one.

    A page may hold fewer than were asked for, or none, although there are more: so much had to be looked through.
    """

    rows: list[dict[str, Any]]
    next: HistoryCursor | None


#: rows looked at in one query, at first and at most: few where most rows are wanted, many where few are
FIRST_STRIDE, LONGEST_STRIDE = 200, 5_000
#: rows looked at for one page
MOST_LOOKED_AT = 50_000
#: the same for the texts that were found
LONGEST_TEXTS, MOST_TEXTS = 1_000, 10_000

#: columns whose name in the documents is another one
NAMES = {"user_name": "user", "cache_key": "key"}
#: too large for lists
BODIES = ("request_body", "response_body")

_SHOWN = [
    column.label(NAMES.get(column.name, column.name))
    for column in history.columns
    if column.name not in {*BODIES, "detail"}
]
#: of a row, by their names in the documents
COLUMNS = tuple(column.name for column in _SHOWN)
_WITH_BODIES = [*_SHOWN, *(history.c[name] for name in BODIES)]

Condition = ColumnElement[bool]
Row = dict[str, Any]


async def page(database: Database, query: HistoryQuery, *, bodies: bool = False) -> Page:
    """``bodies`` adds both, as bytes or None, under the columns' names. Raises what the database does."""
    columns = _WITH_BODIES if bodies else _SHOWN
    if query.order in RANKS:
        return await _ranked(database, query, columns)
    if query.text:
        rows, place = await _searched(database, query, columns)
    else:
        rows, place = await _walked(database, query, columns)
    rows, last = cut(rows, query.limit)
    return Page(rows, place if last is None else HistoryCursor(last["created_at"], last["id"]))


async def _walked(
    database: Database, query: HistoryQuery, columns: Sequence[Any]
) -> tuple[list[Row], HistoryCursor | None]:
    """Rows by time, one more than the limit if there is one, and the place up to which rows were looked at."""
    indexed, others = _split(query)
    if not others:
        return await _rows(database, _along(indexed, query.after, query.limit).with_only_columns(*columns)), None
    rows: list[Row] = []
    place, looked_at, stride = query.after, 0, FIRST_STRIDE
    while looked_at < MOST_LOOKED_AT:
        along = _along(indexed, place, stride)
        ends = await _rows(database, along.offset(stride - 1).limit(1))
        near = along.limit(stride).subquery()
        rows += await _rows(database, _near(near, others, columns).limit(query.limit + 1 - len(rows)))
        place = HistoryCursor(ends[0]["created_at"], ends[0]["id"]) if ends else None
        if place is None or len(rows) > query.limit:
            break
        looked_at, stride = looked_at + stride, min(4 * stride, LONGEST_STRIDE)
    return rows, place


async def _searched(
    database: Database, query: HistoryQuery, columns: Sequence[Any]
) -> tuple[list[Row], HistoryCursor | None]:
    """The same among the texts that hold the phrases: by id, as the index knows them."""
    conditions = [condition for _, condition in _filters(query)]
    rows: list[Row] = []
    place, looked_at, stride = query.after, 0, FIRST_STRIDE
    while looked_at < MOST_TEXTS:
        found = await _found(database, query.text, place, stride)
        if found:
            these = select(*columns).where(history.c.id.in_(found), *conditions).order_by(history.c.id.desc())
            rows += await _rows(database, these.limit(query.limit + 1 - len(rows)))
        place = HistoryCursor(0.0, found[-1]) if len(found) == stride else None
        if place is None or len(rows) > query.limit:
            break
        looked_at, stride = looked_at + stride, min(4 * stride, LONGEST_TEXTS)
    return rows, place


async def _ranked(database: Database, query: HistoryQuery, columns: Sequence[Any]) -> Page:
    """The highest first, of the newest."""
    rank, row = RANKS[query.order], history.c
    ranked = select(rank.label("rank"), row.id)
    if query.text:
        found = await _found(database, query.text, None, LONGEST_TEXTS)
        ranked = ranked.where(row.id.in_(found), *(condition for _, condition in _filters(query)))
    else:
        indexed, others = _split(query)
        near = _along(indexed, None, MOST_LOOKED_AT).subquery()
        ranked = ranked.select_from(near.join(history, row.id == near.c.id)).where(*others)
    ranks, last = cut(await _rows(database, Keyset(rank, row.id).page(ranked, query.limit, query.after)), query.limit)
    place = {each["id"]: number for number, each in enumerate(ranks)}
    rows = await _rows(database, select(*columns).where(row.id.in_(place)))
    rows.sort(key=lambda each: place[each["id"]])
    return Page(rows, None if last is None else HistoryCursor(last["rank"], last["id"]))


async def _found(database: Database, text: Sequence[Phrase], place: HistoryCursor | None, limit: int) -> list[int]:
    """The ids of the texts behind the place, highest first."""
    found: list[int] = []
    for query in database.dialect.search_texts(HISTORY_TEXTS, text, None if place is None else place.id, limit):
        found = [row["id"] for row in await _rows(database, query)]
        if len(found) == limit:
            break
    return found


def _split(query: HistoryQuery) -> tuple[list[Condition], list[Condition]]:
    """The conditions that an index answers in the order of the pages, and the others."""
    filters = _filters(query)
    chosen = next((name for name in ("session", "user", "failed", "missed", "model") if name in dict(filters)), "")
    indexed = [condition for name, condition in filters if name in (chosen, "time")]
    return indexed, [condition for name, condition in filters if name not in (chosen, "time")]


def _filters(query: HistoryQuery) -> list[tuple[str, Condition]]:
    """The conditions, each with the name of the index that can answer it; a partial one's own condition too."""
    row = history.c
    found: list[tuple[str, Condition | None]] = [
        ("session", None if query.session is None else row.session == query.session),
        ("user", None if query.user is None else row.user_name == query.user),
        ("model", None if query.model is None else row.model == query.model),
        ("endpoint", None if query.endpoint is None else row.endpoint == query.endpoint),
        ("time", None if query.since is None else row.created_at >= query.since),
        ("time", None if query.until is None else row.created_at < query.until),
        ("seconds", None if query.min_seconds is None else row.total_seconds >= query.min_seconds),
        ("tokens", None if query.min_tokens is None else query.min_tokens <= _TOKENS),
    ]
    if query.failed:
        errors = and_(or_(row.status >= 400, row.status == 0), row.cache != CacheStatus.ONLY_IF_CACHED.value)
        found += [("failed", errors), ("failed", row.status != literal_column("200"))]
    if query.status is not None:
        found.append(("failed" if query.status != 200 else "other", row.status == query.status))
        found.append(("failed", row.status != literal_column("200") if query.status != 200 else None))
    if query.cache is not None:
        found.append(("missed" if query.cache != "hit" else "other", row.cache == query.cache))
        found.append(("missed", row.cache != literal_column("'hit'") if query.cache != "hit" else None))
    return [(name, condition) for name, condition in found if condition is not None]


def _along(indexed: Sequence[Condition], place: HistoryCursor | None, limit: int) -> Select[Any]:
    """Times and ids of the rows behind ``place``, newest first, one more than ``limit``."""
    return BY_TIME.page(select(*BY_TIME.columns).where(*indexed), limit, place)


def _near(near: Subquery, others: Sequence[Condition], columns: Sequence[Any]) -> Select[Any]:
    joined = near.join(history, history.c.id == near.c.id)
    return select(*columns).select_from(joined).where(*others).order_by(near.c.created_at.desc(), near.c.id.desc())


async def _rows(database: Database, statement: Select[Any]) -> list[Row]:
    async with database.read() as connection:
        return [
            {str(name): value for name, value in row.items()}
            for row in (await connection.execute(statement)).mappings()
        ]
