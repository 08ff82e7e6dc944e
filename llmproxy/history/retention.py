"""Deletes history: rows past their age, the oldest rows if all together take too many bytes, and what is erased."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, delete, func, literal, select

from llmproxy.database.breaker import CircuitBreaker, OnFault, ignore
from llmproxy.database.engine import Database
from llmproxy.database.footprint import index_bytes, row_bytes, row_bytes_of
from llmproxy.database.sql_dialect import DatabaseDialect
from llmproxy.history.tables import HISTORY_TEXTS, history, sessions, users
from llmproxy.history.totals import forget_totals
from llmproxy.runtime.background import Periodic

#: rows chosen at once
CHUNK = 300
#: bytes of bodies deleted in one transaction: taking a text out of the index costs as much as putting it in
_BYTES = 512 * 1024
#: seconds between two transactions, for other writers
CHUNK_PAUSE = 0.02


async def delete_rows(database: Database, chosen: Select[Any], most: int = CHUNK) -> int:
    """Deletes the rows whose id and ``body_bytes`` the query gives, at most so many. Returns their number."""
    async with database.read() as connection:
        rows = (await connection.execute(chosen.limit(most))).all()
    deleted = 0
    for ids in _portions(rows):
        async with database.write() as connection:
            # the rows first: who indexes them at this moment waits here, and then finds them gone
            deleted += (await connection.execute(delete(history).where(history.c.id.in_(ids)))).rowcount
            await connection.execute(database.dialect.delete_texts(HISTORY_TEXTS, ids))
        await asyncio.sleep(CHUNK_PAUSE)
    return deleted


async def delete_all(database: Database, user: str | None, session: str | None) -> int:
    """Deletes the present rows of a user, of a session, or of a user within a session. Returns their number."""
    row, deleted = history.c, 0
    async with database.read() as connection:
        last = (await connection.execute(select(func.max(row.id)))).scalar() or 0
    # who goes on asking would otherwise keep this going for ever
    chosen = select(row.id, row.body_bytes).where(row.id <= last)
    for column, value in ((row.user_name, user), (row.session, session)):
        chosen = chosen if value is None else chosen.where(column == value)
    while gone := await delete_rows(database, chosen):
        deleted += gone
    return deleted


def _portions(rows: Sequence[Any]) -> Iterator[list[int]]:
    ids: list[int] = []
    size = 0
    for id, body_bytes in rows:
        if ids and size + body_bytes > _BYTES:
            yield ids
            ids, size = [], 0
        ids.append(id)
        size += body_bytes
    if ids:
        yield ids


DAY = 86_400.0
SWEEP_SECONDS = 60.0
#: seconds for a deletion to end that was cancelled
CLOSE_SECONDS = 1.0
#: bytes of a row's numbers and of its head
_NUMBERS = 140
#: what its words take in the full-text index for each byte of a body: 0.4 to 2.3 on SQLite beside the words themselves,
#: 2.0 on PostgreSQL. It is measured; but what was deleted stays there for a while
_LEAST_SHARE, _MOST_SHARE = 0.3, 3.0
#: transactions in one sweep that take deleted words out of the index
_MERGES = 50
#: pages given back to the file system in one transaction, and such transactions in one sweep
_PAGES, _RECLAIMS = 1000, 20
#: of the bound, what may be written before the next sweep comes early
_AHEAD = 0.125


@dataclass(slots=True)
class _Segment:
    """Consecutive rows up to ``last_id``."""

    last_id: int
    rows: int
    bytes: int
    #: those of the bodies
    body_bytes: int


class Retention:
    """Keeps the table within its age and its bytes: those that it takes in the file, with its indexes, the sums of
    users and sessions and, where texts are ``searched``, the full-text index. ``clock`` gives Unix seconds.

    Adding up the table each time would read all of it. So sums are kept for segments of it, in the order of ids: new
    rows are added at one end, deleted at the other. Whoever deletes, this process or another, deletes the lowest ids;
    so the segments below the lowest id that is left are gone.
    """

    def __init__(
        self,
        database: Database,
        *,
        days: float,
        max_bytes: int,
        searched: bool = False,
        on_fault: OnFault = ignore,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._age = days * DAY
        self._max_bytes = max_bytes
        self._searched = searched
        self._row_bytes = _row_bytes(database.dialect, searched=searched)
        self._written = 0
        fails = "old history cannot be deleted (%(fault)s); silent until it can"
        breaker = CircuitBreaker("retention", on_fault, fails=fails)
        self._sweeps = Periodic("history retention", SWEEP_SECONDS, self.sweep, observer=breaker, at_once=False)
        self._clock = clock
        self._segments: deque[_Segment] = deque()
        self._generation = -1
        self._stale = False

    def open(self) -> None:
        """Starts the task that sweeps."""
        self._sweeps.open()

    async def close(self) -> None:
        """Safe to call twice."""
        await self._sweeps.close(CLOSE_SECONDS)

    async def sweep(self) -> None:
        """Deletes what is too old or too much. Raises what the database raises."""
        self._written = 0
        await self._expire()
        await self._measure()
        await self._shrink()
        await self._forget()

    def measure_anew(self) -> None:
        """Drops the sums, because rows in the middle were deleted. A sweep that runs ends with the old ones."""
        self._stale = True

    def note(self, bytes: int) -> None:
        """Notes that ``bytes`` were written. If they may pass the bound before the next sweep, that comes early."""
        self._written += bytes
        if self._written > self._max_bytes * _AHEAD:
            self._sweeps.wake()

    async def _expire(self) -> None:
        old = select(history.c.id, history.c.body_bytes).where(history.c.created_at < self._clock() - self._age)
        while await delete_rows(self._database, old.order_by(history.c.created_at, history.c.id)) == CHUNK:
            pass

    async def _measure(self) -> None:
        if self._stale or self._generation != self._database.generation:
            # another file may be there now, with ids of its own
            self._segments.clear()
            self._stale = False
        async with self._database.read() as connection:
            lowest = (await connection.execute(select(func.min(history.c.id)))).scalar()
        self._generation = self._database.generation
        while self._segments and (lowest is None or self._segments[0].last_id < lowest):
            self._segments.popleft()
        while await self._measure_next() == CHUNK:
            pass

    async def _measure_next(self) -> int:
        """Adds up the next rows, at most ``CHUNK``, and returns their number."""
        seen = self._segments[-1].last_id if self._segments else 0
        new = select(history.c.id, history.c.body_bytes, self._row_bytes.label("taken"))
        rows = new.where(history.c.id > seen).order_by(history.c.id).limit(CHUNK).subquery()
        sums = select(func.max(rows.c.id), func.count(), func.sum(rows.c.taken), func.sum(rows.c.body_bytes))
        async with self._database.read() as connection:
            last_id, count, taken, bodies = (await connection.execute(sums.select_from(rows))).one()
        if count == 0:
            return 0
        segment = _Segment(last_id, count, int(taken), int(bodies))
        if self._segments and self._segments[-1].rows + count <= CHUNK:
            before = self._segments.pop()
            bytes, body_bytes = before.bytes + segment.bytes, before.body_bytes + segment.body_bytes
            segment = _Segment(last_id, before.rows + count, bytes, body_bytes)
        self._segments.append(segment)
        return int(count)

    async def _shrink(self) -> None:
        for_row, for_body = await self._shares()

        def taken(segment: _Segment) -> float:
            return segment.bytes + segment.rows * for_row + segment.body_bytes * for_body

        total = sum(map(taken, self._segments))
        if total <= self._max_bytes:
            return
        rows = select(history.c.id, history.c.body_bytes).order_by(history.c.id)
        while total > self._max_bytes and self._segments:
            oldest = self._segments[0]
            # as many as suffice if they are of average size
            many = min(oldest.rows, math.ceil((total - self._max_bytes) * oldest.rows / taken(oldest)))
            await delete_rows(self._database, rows.where(history.c.id <= oldest.last_id), many)
            left = 1 - many / oldest.rows
            total -= taken(oldest) * (1 - left)
            oldest.rows -= many
            oldest.bytes, oldest.body_bytes = int(oldest.bytes * left), int(oldest.body_bytes * left)
            if not oldest.rows:
                self._segments.popleft()
        await self._merge()
        for _ in range(_RECLAIMS):
            if await self._database.reclaim(_PAGES) <= 0:
                break

    async def _shares(self) -> tuple[float, float]:
        """Bytes beside the table: of sums for each row, of words for each byte of a body."""
        rows = sum(segment.rows for segment in self._segments)
        bodies = sum(segment.body_bytes for segment in self._segments)
        dialect, text_bytes = self._database.dialect, 0
        async with self._database.read() as connection:
            of_sums = 0
            for table, columns, indexes in ((users, ("user_name",), 2), (sessions, ("session", "user_name"), 3)):
                names = func.sum(sum((dialect.byte_length(table.c[name]) for name in columns), literal(0)))
                number, size = (await connection.execute(select(func.count(), names).select_from(table))).one()
                mean = int(size or 0) // number if number else 0
                of_sums += number * (row_bytes(mean + _NUMBERS) + indexes * index_bytes(mean + 16))
            if self._searched:
                text_bytes = await dialect.text_index_size(connection, HISTORY_TEXTS)
        share = min(max(text_bytes / bodies, _LEAST_SHARE), _MOST_SHARE) if bodies and self._searched else 0.0
        return of_sums / max(rows, 1), share

    async def _merge(self) -> None:
        """Removes the words of deleted rows from the index, where they were only marked."""
        statement = self._database.dialect.merge_text_index(HISTORY_TEXTS) if self._searched else None
        for _ in range(_MERGES if statement else 0):
            async with self._database.write() as connection:
                before = await self._database.dialect.text_index_size(connection, HISTORY_TEXTS)
                await connection.exec_driver_sql(statement or "")
                if await self._database.dialect.text_index_size(connection, HISTORY_TEXTS) >= before:
                    return
            await asyncio.sleep(CHUNK_PAUSE)

    async def _forget(self) -> None:
        """Deletes the sums of users without exchanges: there are never more sums than exchanges."""
        async with self._database.read() as connection:
            oldest = (await connection.execute(select(func.min(history.c.created_at)))).scalar()
        await forget_totals(self._database, self._clock() - self._age if oldest is None else oldest)


def _row_bytes(dialect: DatabaseDialect, *, searched: bool) -> ColumnElement[Any]:
    """What a row takes in the table, in its indexes and, where texts are ``searched``, once more as words."""

    def size(*columns: ColumnElement[str]) -> ColumnElement[Any]:
        return sum((dialect.byte_length(each) for each in columns), literal(0))

    row = history.c
    texts = [column for column in history.columns if isinstance(column.type, Text)]
    table = row_bytes_of(row.body_bytes + size(*texts) + _NUMBERS)
    # in each of these indexes, with two numbers; and one of time only, and a part of one
    named = size(row.request_id, row.user_name, row.session, row.model)
    indexes = (named + 4 * 24) * 3 / 2 + index_bytes(20) + index_bytes(28)
    return table + indexes + (row_bytes_of(row.body_bytes) if searched else 0)
