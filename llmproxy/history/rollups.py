"""How requests fared: minutes are written behind, become hours after a while, and in the end one sum of all time."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import count
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Integer,
    LargeBinary,
    Table,
    Text,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
)

from llmproxy.database.breaker import CircuitBreaker, OnFault, ignore
from llmproxy.database.engine import Database
from llmproxy.database.faults import fault_of
from llmproxy.database.metadata import metadata
from llmproxy.observe.performance import MINUTE, Cell, Cells, Performance, PerformanceSeries, all_time, merge
from llmproxy.observe.quantiles import Distribution
from llmproxy.runtime.background import Periodic

rollups = Table(
    "performance_rollups",
    metadata,
    # SQLite numbers rows by itself only where the type is INTEGER
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    # the span's first second, Unix; and its length: 60 or 3,600, or 0 for all that was before
    Column("started_at", BigInteger, nullable=False, index=True),
    Column("seconds", Integer, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("cache", Text, nullable=False),
    # several rows may tell of the same span and series, of other processes or after a restart: they add up
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("upstream_seconds", Double, nullable=False),
    # packed distributions
    Column("durations", LargeBinary, nullable=False),
    Column("first_tokens", LargeBinary, nullable=False),
    Column("speeds", LargeBinary, nullable=False),
)


HOUR = 3600
#: the length of a row for all that was before the hours that are kept
_ALL_BEFORE = 0

#: columns that hold a packed ``Distribution``, named as in ``Cell``
_PACKED = ("durations", "first_tokens", "speeds")
_PLAIN = ("requests", "errors", "prompt_tokens", "completion_tokens", "upstream_seconds")

Row = dict[str, Any]


async def insert_minutes(database: Database, minutes: Mapping[int, Cells]) -> None:
    """Inserts minutes in one transaction."""
    rows = [_row(start, MINUTE, series, cell) for start, cells in minutes.items() for series, cell in cells.items()]
    if rows:
        async with database.write() as connection:
            await connection.execute(insert(rollups), rows)


async def read_cells(database: Database, since: int, until: int | None = None) -> Cells:
    """Reads the spans that began at the Unix second ``since`` or later, and before ``until``."""
    async with database.read() as connection:
        rows = (await connection.execute(select(rollups).where(_spans(since, until)))).mappings().all()
    # a day of many models is some hundred thousand steps: not on the loop
    return await asyncio.to_thread(_merged, rows)


async def read_steps(database: Database, step: int, since: int, until: int | None = None) -> dict[int, Cells]:
    """The same by steps of so many seconds, each by its first second; of the distributions only the durations."""
    columns = [column for column in rollups.c if column.name not in ("first_tokens", "speeds")]
    async with database.read() as connection:
        rows = (await connection.execute(select(*columns).where(_spans(since, until)))).mappings().all()
    return await asyncio.to_thread(_by_step, rows, step)


async def read_sums(database: Database) -> tuple[Cells, int | None]:
    """Sums of all there is, by what the cache did, without distributions; and the first second of it."""
    row = rollups.c
    sums = [func.sum(row[name]).label(name) for name in _PLAIN]
    query = select(row.cache, func.min(row.started_at).label("started_at"), *sums).group_by(row.cache)
    async with database.read() as connection:
        rows = (await connection.execute(query)).mappings().all()
    # PostgreSQL's sums of integers are of another type
    numbers = [{name: (float if name == "upstream_seconds" else int)(row[name]) for name in _PLAIN} for row in rows]
    cells = {PerformanceSeries("", "", row["cache"]): _cell(each) for row, each in zip(rows, numbers, strict=True)}
    return cells, min((int(row["started_at"]) for row in rows), default=None)


def _spans(since: int, until: int | None) -> Any:
    row = rollups.c
    end = () if until is None else (row.started_at < until,)
    return and_(row.started_at >= since, row.seconds != _ALL_BEFORE, *end)


async def condense(database: Database, before: int) -> None:
    """Merges minutes into one row for each hour and series, for the hours that ended before this second.

    Another process may do the same at the same time: the minutes go to the one that deletes them.
    """
    minutes = and_(rollups.c.seconds == MINUTE, rollups.c.started_at < before // HOUR * HOUR)
    key = (rollups.c.endpoint, rollups.c.model, rollups.c.cache)
    async with database.read() as connection:
        found = (await connection.execute(select(rollups.c.started_at, *key).where(minutes).distinct())).all()
    for hour, *words in sorted({(start // HOUR * HOUR, *words) for start, *words in found}):
        whole = and_(rollups.c.started_at >= hour, rollups.c.started_at < hour + HOUR)
        same = (column == word for column, word in zip(key, words, strict=True))
        async with database.write() as connection:
            gone = await connection.execute(delete(rollups).where(minutes, whole, *same).returning(*rollups.columns))
            rows = [_row(hour, HOUR, *each) for each in _merged(gone.mappings().all()).items()]
            if rows:
                await connection.execute(insert(rollups), rows)


async def sum_up_before(database: Database, before: int) -> None:
    """Merges the spans that began before this Unix second into one row for each thing the cache did.

    Another process may do the same at the same time: as in ``condense``.
    """
    row = rollups.c
    old = and_(row.started_at < before, row.seconds != _ALL_BEFORE)
    async with database.read() as connection:
        if (await connection.execute(select(row.id).where(old).limit(1))).first() is None:
            return
    columns = (row.cache, row.started_at, *(row[name] for name in _PLAIN))
    async with database.write() as connection:
        gone = await connection.execute(delete(rollups).where(or_(old, row.seconds == _ALL_BEFORE)).returning(*columns))
        rows = gone.mappings().all()
        if rows:
            first = min(row["started_at"] for row in rows)
            cells: Cells = {}
            for each in rows:
                merge(cells, {PerformanceSeries("", "", each["cache"]): _cell(dict(each))})
            await connection.execute(insert(rollups), [_row(first, _ALL_BEFORE, *each) for each in cells.items()])


def _row(start: int, seconds: int, series: PerformanceSeries, cell: Cell) -> Row:
    return {
        "started_at": start,
        "seconds": seconds,
        **series._asdict(),
        **{name: getattr(cell, name) for name in _PLAIN},
        **{name: getattr(cell, name).pack() for name in _PACKED},
    }


def _cell(row: Mapping[str, Any]) -> Cell:
    values: dict[str, Any] = {name: row[name] for name in _PLAIN}
    values.update((name, Distribution.unpack(row[name])) for name in _PACKED if name in row)
    return Cell(**values)


def _merged(rows: Iterable[Mapping[Any, Any]]) -> Cells:
    cells: Cells = {}
    for row in rows:
        merge(cells, {PerformanceSeries(row["endpoint"], row["model"], row["cache"]): _cell(row)})
    return cells


def _by_step(rows: Iterable[Mapping[Any, Any]], step: int) -> dict[int, Cells]:
    steps: dict[int, Cells] = {}
    for row in rows:
        cells = steps.setdefault(row["started_at"] // step * step, {})
        # what is asked for is told apart in no chart
        merge(cells, {PerformanceSeries("", "", row["cache"]): _cell(row)})
    return steps


#: how often it is looked for minutes that are over
ROUND_SECONDS = 5.0
#: in every so-manieth of these rounds minutes become hours, and old hours are summed up
UPKEEP_ROUNDS = 12
#: seconds that minutes stay minutes, and that hours are kept
MINUTES_KEPT, HOURS_KEPT = 2 * 3600, 31 * 86_400
#: seconds for which the sum of all time is remembered: adding up reads the whole table. What this process adds is seen
#: at once
SUMS_REMEMBERED = 60.0
#: seconds for one piece of work with the database, for a question, and for work to end that was cancelled
WORK_SECONDS, READ_SECONDS, CANCEL_SECONDS = 30.0, 5.0, 1.0
#: parts of the past that are remembered
_MOST_REMEMBERED = 8


class Rollups:
    """Writes what ``performance`` adds up, and reads it back together with what is not yet written.

    The failure contract: nothing here fails, blocks or delays a request. While the database is at fault minutes wait,
    the fault is told to ``on_fault`` and logged once until it is over. ``clock`` gives Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        performance: Performance,
        *,
        on_fault: OnFault = ignore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._performance = performance
        fails = "performance cannot be kept (%(fault)s); what is new waits, silent until it can"
        self._breaker = CircuitBreaker("performance", on_fault, fails=fails)
        self._rounds = Periodic("performance rollups", ROUND_SECONDS, self._round, at_once=False)
        self._numbers = count()
        self._clock = clock
        #: the sums of what is in the database, their first second, and until when they are right
        self._sums: tuple[Cells, int | None] = {}, None
        self._sums_until = 0.0
        #: start and step of a window -> what is over of it, and up to which second
        self._past: dict[tuple[int, int], tuple[int, dict[int, Cells]]] = {}
        #: a minute is here or in the database, never both, for whoever holds it
        self._moving = asyncio.Lock()

    def open(self) -> None:
        self._rounds.open()

    async def close(self, limit: float) -> None:
        """Writes what is not yet written, at most ``limit`` seconds long. Safe to call twice."""
        if self._rounds.running:
            await self._try(self._write_last(), limit)
            await self._rounds.close(CANCEL_SECONDS)

    async def write(self, *, current: bool = False) -> None:
        """Writes the minutes that are over; with ``current`` this one, too. Raises what the database raises."""
        async with self._moving:
            minutes = self._performance.take(current=current)
            if minutes:
                self._sums_until = 0.0
            try:
                await insert_minutes(self._database, minutes)
            except BaseException as error:
                # what was taken is given back when this is cancelled, too
                if isinstance(error, Exception) and not fault_of(error).passes:
                    self._performance.lose(minutes)
                else:
                    self._performance.give_back(minutes)
                raise

    async def upkeep(self) -> None:
        """Merges old minutes into hours, and sums old hours up. Raises what the database raises."""
        now = int(self._clock())
        await condense(self._database, now - MINUTES_KEPT)
        await sum_up_before(self._database, now - HOURS_KEPT)

    async def since(self, start: int) -> tuple[Cells, bool]:
        """What happened in the spans that began at the Unix second ``start`` or later, of every process.

        Of other processes the last minute is missing. False where the database did not answer: then only what this
        process has not yet written is known.
        """
        try:
            recent, past = await self._read_past(start, 0)
            async with asyncio.timeout(READ_SECONDS), self._moving:
                cells = await read_cells(self._database, recent)
                merge(cells, past.get(0, {}))
                merge(cells, self._performance.since(start))
                return cells, True
        except Exception as error:  # noqa: BLE001 - any driver's any fault: what is known is told
            self._breaker.failed(error)
            return self._performance.since(start), False

    async def steps(self, start: int, step: int) -> tuple[dict[int, Cells], bool]:
        """The same as ``since`` by steps of so many seconds, each by its first second, without first tokens and
        speeds."""
        complete = True
        steps: dict[int, Cells] = {}
        try:
            recent, past = await self._read_past(start, step)
            async with asyncio.timeout(READ_SECONDS), self._moving:
                steps = await read_steps(self._database, step, recent)
                for at, cells in past.items():
                    merge(steps.setdefault(at, {}), cells)
                self._add_unwritten(steps, start, step)
        except Exception as error:  # noqa: BLE001 - as above
            self._breaker.failed(error)
            complete, steps = False, {}
            self._add_unwritten(steps, start, step)
        return steps, complete

    async def _read_past(self, start: int, step: int) -> tuple[int, dict[int, Cells]]:
        """What is long over of a window, by ``step``, with 0 all in one; and the second from which on it is not.

        It is read once an hour: weeks of many models are some seconds of work.
        """
        over = int(self._clock() - MINUTES_KEPT) // HOUR * HOUR - HOUR
        if start >= over:
            return start, {}
        until, past = self._past.get((start, step), (0, {}))
        if until != over:
            async with asyncio.timeout(WORK_SECONDS):
                if step:
                    past = await read_steps(self._database, step, start, over)
                else:
                    past = {0: await read_cells(self._database, start, over)}
            current = {key: each for key, each in self._past.items() if each[0] == over}
            self._past = dict([*current.items(), ((start, step), (over, past))][-_MOST_REMEMBERED:])
        return over, past

    def _add_unwritten(self, steps: dict[int, Cells], start: int, step: int) -> None:
        for minute, cells in self._performance.minutes(start).items():
            for series, cell in cells.items():
                merge(steps.setdefault(minute // step * step, {}), {PerformanceSeries("", "", series.cache): cell})

    async def all_time(self) -> dict[str, Any] | None:
        """JSON-ready: sums of all requests since the first one that is known; None if the database does not answer."""
        try:
            async with asyncio.timeout(READ_SECONDS), self._moving:
                if self._clock() >= self._sums_until:
                    self._sums = await read_sums(self._database)
                    self._sums_until = self._clock() + SUMS_REMEMBERED
                cells: Cells = {}
                merge(cells, self._sums[0])
                minutes = self._performance.minutes(0)
                for each in minutes.values():
                    merge(cells, each)
        except Exception as error:  # noqa: BLE001 - as above
            self._breaker.failed(error)
            return None
        firsts = [start for start in (self._sums[1], *minutes) if start is not None]
        return all_time(cells, min(firsts, default=None))

    async def _write_last(self) -> None:
        async with self._moving:
            # not in the middle of a write: minutes that were written and given back all the same would count twice
            await self._rounds.close(CANCEL_SECONDS)
        await self.write(current=True)

    async def _round(self) -> None:
        await self._try(self.write())
        if next(self._numbers) % UPKEEP_ROUNDS == 0:
            await self._try(self.upkeep())

    async def _try(self, work: Awaitable[None], limit: float = WORK_SECONDS) -> None:
        try:
            async with asyncio.timeout(limit):
                await work
        except Exception as error:  # noqa: BLE001 - any driver's any fault: minutes wait, the next round tries again
            self._breaker.failed(error)
        else:
            self._breaker.succeeded()
