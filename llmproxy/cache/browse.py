"""Lists the SQL tier's entries for people, a page at a time without bodies, and adds them up."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Select, case, func, literal_column, select

from llmproxy.cache.sql import chosen
from llmproxy.cache.tables import entries
from llmproxy.cache.tier import Selector
from llmproxy.database.engine import Database
from llmproxy.database.paging import Keyset, cursor, cut

#: seconds that a question may take, and that what waits to be written is waited for
_PATIENCE, _SETTLE = 10.0, 1.0
#: seconds for which sums are remembered: adding up reads the whole table
_REMEMBERED = 5.0
#: kinds of entries that are told apart in one sum, and names that are told of one property
_MOST_KINDS, _MOST_NAMES = 20_000, 100

#: upper bounds of the classes of size (bytes) and of age (seconds); the last class has none
SIZES = (1024, 4096, 16_384, 65_536, 262_144, 1_048_576)
AGES = (60, 3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400)

Order = Literal["newest", "largest"]
#: by number the rows come in the order of the table; by size all that are meant are looked at
ORDERS = {"newest": Keyset(entries.c.id), "largest": Keyset(entries.c.size, entries.c.id)}


@dataclass(frozen=True, slots=True)
class EntryQuery:
    """``newest`` is the last to be stored for the first time. ``after`` is a cursor: what an earlier page gave.

    ``keys``: only entries with one of them.
    """

    selector: Selector
    limit: int
    order: Order = "newest"
    after: str | None = None
    keys: Sequence[bytes] | None = None


@dataclass(frozen=True, slots=True)
class EntrySummary:
    """One entry without its body. Times are Unix seconds; ``bytes`` are those of the row's body."""

    key: str
    endpoint: str
    model: str
    namespace: str
    tags: list[str]
    created: float
    expires: float
    used: float
    bytes: int


@dataclass(frozen=True, slots=True)
class EntrySum:
    """``below`` is the upper bound of a class, None for the last one; ``name`` what the entries share otherwise."""

    entries: int
    bytes: int
    name: str | None = None
    below: int | None = None


@dataclass(frozen=True, slots=True)
class EntrySums:
    """What the tier holds, added up by each property, the largest first; classes in their order.

    An entry with several tags counts for each. ``complete`` is false where there were too many kinds to tell.
    """

    models: list[EntrySum]
    namespaces: list[EntrySum]
    endpoints: list[EntrySum]
    tags: list[EntrySum]
    sizes: list[EntrySum]
    ages: list[EntrySum]
    complete: bool


class EntryBrowser:
    """``drained`` waits until what was stored is written."""

    def __init__(self, database: Database, drained: Callable[[], Awaitable[None]], clock: Callable[[], float]):
        self._database = database
        self._drained = drained
        self._clock = clock
        self._adding = asyncio.Lock()
        self._sums: EntrySums | None = None
        self._until = 0.0

    async def page(self, query: EntryQuery) -> tuple[list[EntrySummary], str | None]:
        """A page, and the cursor of the next one if there is one.

        Raises ``BadRequest`` for a cursor of another list, what the database raises, ``TimeoutError``.
        """
        order = ORDERS[query.order]
        after = None if query.after is None else order.read(query.after)
        await self._settle()
        found = select(*_LISTED).where(chosen(query.selector, self._database.dialect))
        if query.keys is not None:
            found = found.where(entries.c.key.in_(query.keys))
        rows, last = cut(await self._rows(order.page(found, query.limit, after)), query.limit)
        more = None if last is None else cursor([getattr(last, column.name) for column in order.columns])
        return [_listed(row) for row in rows], more

    async def sums(self) -> EntrySums:
        """Figures of a moment ago. Raises what the database raises, ``TimeoutError``."""
        async with self._adding:
            if self._sums is None or time.monotonic() >= self._until:
                await self._settle()
                self._sums = _added(await self._rows(_kinds(self._clock())))
                self._until = time.monotonic() + _REMEMBERED
            return self._sums

    def forget(self) -> None:
        """Has the next call of ``sums`` add up anew."""
        self._until = 0.0

    async def _settle(self) -> None:
        try:
            async with asyncio.timeout(_SETTLE):
                await self._drained()
        except TimeoutError:
            pass  # what is not written yet is not shown yet

    async def _rows(self, statement: Select[Any]) -> Sequence[Any]:
        async with asyncio.timeout(_PATIENCE), self._database.read() as connection:
            rows: Sequence[Any] = (await connection.execute(statement)).all()
            return rows


_LISTED = [column for column in entries.columns if column.name not in ("body", "digest", "scope", "format")]


def _listed(row: Any) -> EntrySummary:
    return EntrySummary(
        row.key.hex(),
        row.operation,
        row.model,
        row.namespace,
        _tags(row.tags),
        row.created_at,
        row.expires_at,
        row.used_at,
        row.size,
    )


def _kinds(now: float) -> Select[Any]:
    """Rows (model, namespace, operation, tags, number of the size's class, of the age's, entries, bytes)."""
    row = entries.c
    sizes = case(*((row.size < literal_column(str(bound)), n) for n, bound in enumerate(SIZES)), else_=len(SIZES))
    ages = case(*((row.created_at > now - bound, n) for n, bound in enumerate(AGES)), else_=len(AGES))
    each = select(row.model, row.namespace, row.operation, row.tags, row.size, sizes.label("s"), ages.label("a"))
    classified = each.subquery()
    keys = [classified.c[name] for name in ("model", "namespace", "operation", "tags", "s", "a")]
    number = func.count().label("number")
    grouped = select(*keys, number, func.sum(classified.c.size).label("bytes")).group_by(*keys)
    return grouped.order_by(number.desc()).limit(_MOST_KINDS)


def _added(kinds: Sequence[Any]) -> EntrySums:
    def by(names: Callable[[Any], Iterable[str]]) -> list[EntrySum]:
        found: dict[str, EntrySum] = {}
        for kind in kinds:
            for name in names(kind):
                found[name] = _and(found.get(name, EntrySum(0, 0, name)), kind)
        return sorted(found.values(), key=lambda each: (-each.entries, each.name))[:_MOST_NAMES]

    def classes(bounds: Sequence[int], number: Callable[[Any], int]) -> list[EntrySum]:
        found = [EntrySum(0, 0, below=bound) for bound in (*bounds, None)]
        for kind in kinds:
            found[number(kind)] = _and(found[number(kind)], kind)
        return found

    return EntrySums(
        models=by(lambda kind: (kind.model,)),
        namespaces=by(lambda kind: (kind.namespace,)),
        endpoints=by(lambda kind: (kind.operation,)),
        tags=by(lambda kind: _tags(kind.tags)),
        sizes=classes(SIZES, lambda kind: int(kind.s)),
        ages=classes(AGES, lambda kind: int(kind.a)),
        complete=len(kinds) < _MOST_KINDS,
    )


def _and(sum: EntrySum, kind: Any) -> EntrySum:
    return replace(sum, entries=sum.entries + kind.number, bytes=sum.bytes + int(kind.bytes))


def _tags(text: str) -> list[str]:
    """The inverse of ``entry.tag_text``."""
    return [tag for tag in text.split("\n") if tag]
