"""Keeps how requests fared: minutes are written behind, become hours after a while, and are deleted in the end."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count

from llmproxy.database.engine import Database
from llmproxy.database.faults import DatabaseFault, fault_of
from llmproxy.history import rollup_store as store
from llmproxy.history.projector import OnFault, ignore
from llmproxy.observe.performance import Cells, Performance, merge

logger = logging.getLogger(__name__)

#: how often it is looked for minutes that are over
ROUND_SECONDS = 5.0
#: in every so-manieth of these rounds minutes become hours, and old hours are deleted
UPKEEP_ROUNDS = 12
#: seconds that minutes stay minutes, and that hours are kept
MINUTES_KEPT, HOURS_KEPT = 2 * 3600, 8 * 86_400
#: seconds for one piece of work with the database, for a question, and for work to end that was cancelled
WORK_SECONDS, READ_SECONDS, CANCEL_SECONDS = 30.0, 5.0, 1.0


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
        self._on_fault = on_fault
        self._clock = clock
        #: a minute is here or in the database, never both, for whoever holds it
        self._moving = asyncio.Lock()
        self._fault: DatabaseFault | None = None
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._run(), name="performance rollups")

    async def close(self, limit: float) -> None:
        """Writes what is not yet written, at most ``limit`` seconds long. Safe to call twice."""
        self._closing.set()
        task, self._task = self._task, None
        if task is not None and (await asyncio.wait([task], timeout=limit))[1]:
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_SECONDS)

    async def write(self, *, current: bool = False) -> None:
        """Writes the minutes that are over; with ``current`` this one, too. Raises what the database raises."""
        async with self._moving:
            minutes = self._performance.take(current=current)
            try:
                await store.write(self._database, minutes)
            except BaseException as error:
                if isinstance(error, Exception) and not fault_of(error).passes:
                    self._performance.lose(minutes)
                else:
                    self._performance.give_back(minutes)
                raise

    async def upkeep(self) -> None:
        """Makes hours of old minutes, and deletes old hours. Raises what the database raises."""
        now = int(self._clock())
        await store.condense(self._database, now - MINUTES_KEPT)
        await store.expire(self._database, now - HOURS_KEPT)

    async def since(self, start: int) -> tuple[Cells, bool]:
        """What happened in the spans that began at the Unix second ``start`` or later, of every process.

        Of other processes the last minute is missing. False where the database did not answer: then only what this
        process has not yet written is known.
        """
        try:
            async with asyncio.timeout(READ_SECONDS), self._moving:
                cells = await store.read(self._database, start)
                merge(cells, self._performance.since(start))
                return cells, True
        except Exception as error:  # noqa: BLE001 - any driver's any fault: what is known is told
            self._failed(error)
            return self._performance.since(start), False

    async def _run(self) -> None:
        rounds = count()
        while not await self._ending(ROUND_SECONDS):
            await self._try(self.write())
            if next(rounds) % UPKEEP_ROUNDS == 0:
                await self._try(self.upkeep())
        await self._try(self.write(current=True))

    async def _ending(self, seconds: float) -> bool:
        """Whether the end has come, now or within these seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        return self._closing.is_set()

    async def _try(self, work: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(WORK_SECONDS):
                await work
        except Exception as error:  # noqa: BLE001 - any driver's any fault: minutes wait, the next round tries again
            self._failed(error)
        else:
            self._fault = None

    def _failed(self, error: Exception) -> None:
        fault = fault_of(error)
        self._on_fault("performance", fault)
        if self._fault is None:
            logger.warning("performance cannot be kept (%s); what is new waits, silent until it can", fault)
        self._fault = fault
