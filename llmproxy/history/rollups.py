"""Keeps how requests fared: minutes are written behind, become hours after a while, and are deleted in the end."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import count

from llmproxy.database.breaker import CircuitBreaker, OnFault, ignore
from llmproxy.database.engine import Database
from llmproxy.database.faults import fault_of
from llmproxy.history import rollup_store as store
from llmproxy.observe.performance import Cells, Performance, merge
from llmproxy.runtime.background import Periodic

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
        fails = "performance cannot be kept (%(fault)s); what is new waits, silent until it can"
        self._breaker = CircuitBreaker("performance", on_fault, fails=fails)
        self._rounds = Periodic("performance rollups", ROUND_SECONDS, self._round, at_once=False)
        self._numbers = count()
        self._clock = clock
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
            self._breaker.failed(error)
            return self._performance.since(start), False

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
