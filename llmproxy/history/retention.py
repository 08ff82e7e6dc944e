"""Deletes old history: rows past their age, and the oldest ones where all together take too many bytes."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import func, select

from llmproxy.database.engine import Database
from llmproxy.database.faults import Fault, fault_of
from llmproxy.history import summaries
from llmproxy.history.deletion import CHUNK, delete_rows
from llmproxy.history.follower import OnFault, ignore
from llmproxy.history.tables import history

logger = logging.getLogger(__name__)

DAY = 86_400.0
SWEEP_SECONDS = 60.0
#: seconds for a deletion to end that was cancelled
CLOSE_SECONDS = 1.0
#: what a row takes beside its bodies, with indexes and what is left of pages: 400 to 1,200, measured on SQLite
ROW_BYTES = 700
#: what its words take in the full-text index for each byte of a body: 1.2 measured on SQLite, 2.0 on PostgreSQL
TEXT_SHARE = 1.2


@dataclass(slots=True)
class _Segment:
    """Consecutive rows up to ``last_id``."""

    last_id: int
    rows: int
    bytes: int


class Retention:
    """Keeps the table within its age and its bytes, those of the full-text index included where texts are ``searched``.
    ``clock`` gives Unix seconds.

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
        self._share = 1 + TEXT_SHARE if searched else 1
        self._on_fault = on_fault
        self._clock = clock
        self._segments: deque[_Segment] = deque()
        self._generation = -1
        self._stale = False
        self._fault: Fault | None = None
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Starts to sweep, now and then."""
        self._task = asyncio.create_task(self._run(), name="history retention")

    async def close(self) -> None:
        """Safe to call twice."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
            self._task = None

    async def sweep(self) -> None:
        """Deletes what is too old or too much. Raises what the database raises."""
        await self._expire()
        await self._measure()
        await self._shrink()
        await self._forget()

    def measure_anew(self) -> None:
        """Rows in the middle were deleted: what was added up no longer holds. A sweep under way ends as it began."""
        self._stale = True

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self.sweep()
            except Exception as error:  # noqa: BLE001 - any driver's any fault: the next sweep makes up for it
                fault = fault_of(error)
                self._on_fault("retention", fault)
                if self._fault is None:
                    logger.warning("old history cannot be deleted (%s); silent until it can", fault)
                self._fault = fault
            else:
                self._fault = None

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
        new = select(history.c.id, history.c.body_bytes).where(history.c.id > seen).order_by(history.c.id)
        rows = new.limit(CHUNK).subquery()
        sums = select(func.max(rows.c.id), func.count(), func.sum(rows.c.body_bytes)).select_from(rows)
        async with self._database.read() as connection:
            last_id, count, bytes = (await connection.execute(sums)).one()
        if count == 0:
            return 0
        segment = _Segment(last_id, count, int(bytes * self._share) + count * ROW_BYTES)
        if self._segments and self._segments[-1].rows + count <= CHUNK:
            before = self._segments.pop()
            segment = _Segment(last_id, before.rows + count, before.bytes + segment.bytes)
        self._segments.append(segment)
        return int(count)

    async def _shrink(self) -> None:
        total = sum(segment.bytes for segment in self._segments)
        rows = select(history.c.id, history.c.body_bytes).order_by(history.c.id)
        while total > self._max_bytes:
            oldest = self._segments[0]
            await delete_rows(self._database, rows.where(history.c.id <= oldest.last_id))
            self._segments.popleft()
            total -= oldest.bytes

    async def _forget(self) -> None:
        """Who has no exchange left is summed up no longer: there are never more sums than exchanges."""
        async with self._database.read() as connection:
            oldest = (await connection.execute(select(func.min(history.c.created_at)))).scalar()
        await summaries.forget(self._database, self._clock() - self._age if oldest is None else oldest)
