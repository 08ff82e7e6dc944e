"""Projectors work on the rows of history after the writer: each derives something from every row once."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from sqlalchemy import bindparam, literal, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.database.breaker import CircuitBreaker, OnFault, ignore
from llmproxy.database.engine import Database
from llmproxy.database.faults import NotOpen
from llmproxy.history.tables import marks
from llmproxy.runtime.background import Backoff

#: seconds between the first new row and the work on it: more rows come, and are worked on at once
GATHER_SECONDS = 1.0
#: until the next attempt after a fault
_BACKOFF = Backoff(first=10.0, longest=10.0)
#: seconds for a transaction to end that was cancelled
CLOSE_SECONDS = 1.0
#: rest after each piece of work, in times of what it took
REST = 0.5
#: seconds of rest while more rows come than can be written: the machine is left to the requests
REST_BEHIND_WRITER = 1.0


_SEEN = select(marks.c.seen).where(marks.c.name == bindparam("name"))


class Projection(Protocol):
    """What a projector makes of new rows."""

    #: of its checkpoint
    name: str

    async def advance(self) -> bool:
        """Works on the next few rows. Returns whether more were there already. Raises what the database raises."""
        ...


class Projector:
    """The task of one projection. Only queries for what it makes wait for it. It catches up after faults."""

    def __init__(
        self,
        projection: Projection,
        busy: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        *,
        on_fault: OnFault = ignore,
        backoff: Backoff = _BACKOFF,
    ) -> None:
        """``busy`` says whether rows wait to be written. ``clock`` gives monotonic seconds."""
        self._projection = projection
        self._busy = busy
        self._clock = clock
        fails = f"history: {projection.name} cannot be kept up to date (%(fault)s); silent until they can"
        self._breaker = CircuitBreaker(projection.name, on_fault, fails=fails, backoff=backoff)
        #: how often there were new rows; at the start some may be left of the time before
        self._noted = 1
        #: up to which of these times all rows are worked on
        self._reached = 0
        self._woken = asyncio.Event()
        self._woken.set()
        self._hurry = asyncio.Event()
        self._advanced = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"history {self._projection.name}")

    def wake(self) -> None:
        """Tells the task that there are new rows."""
        self._noted += 1
        self._woken.set()

    async def settle(self, limit: float) -> bool:
        """Waits up to ``limit`` seconds until all present rows are projected. Returns whether they are."""
        noted = self._noted
        if self._reached < noted:
            self._hurry.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(limit), self._advanced:
                    await self._advanced.wait_for(lambda: self._reached >= noted)
        return self._reached >= noted

    async def close(self) -> None:
        """Ends the task. Safe to call twice. The next start continues where it ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
            self._task = None

    async def _run(self) -> None:
        while True:
            await self._woken.wait()
            await self._rest(GATHER_SECONDS)
            self._woken.clear()
            noted = self._noted
            try:
                await self._catch_up()
            except Exception as error:  # noqa: BLE001 - any driver's any fault: the rows stay where they are
                await self._failed(error)
            else:
                self._breaker.succeeded()
                await self._reach(noted)

    async def _catch_up(self) -> None:
        more = True
        while more:
            started = self._clock()
            more = await self._projection.advance()
            took = self._clock() - started
            await self._rest(REST_BEHIND_WRITER if self._busy() else took * REST)

    async def _reach(self, noted: int) -> None:
        async with self._advanced:
            self._reached = noted
            if not self._woken.is_set():
                self._hurry.clear()
            self._advanced.notify_all()

    async def _failed(self, error: Exception) -> None:
        self._breaker.failed(error)
        self._woken.set()
        self._hurry.clear()
        await self._rest(self._breaker.remaining)

    async def _rest(self, seconds: float) -> None:
        """Sleeps, unless somebody waits."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()


async def checkpoint(database: Database, name: str) -> int:
    """The highest id that the projection of this name has seen."""
    query = database.point_query(_SEEN, ("name",))
    try:
        rows = await database.rows(query, (name,))
    except NotOpen:
        await database.verify()
        rows = await database.rows(query, (name,))
    if rows:
        return int(rows[0][0])
    row: list[Any] = [literal(name), literal(0)]
    async with database.write() as connection:
        # the same from another process at this moment does no harm
        made = database.dialect.accumulate(marks, ["name"], select(*row).where(true()), lambda there, _: there)
        await connection.execute(made)
    return 0


async def advance_checkpoint(connection: AsyncConnection, name: str, seen: int, to: int) -> bool:
    """Moves the checkpoint from ``seen`` to ``to`` within this transaction. False if another process has moved it: of
    several that work on the same rows, one goes on."""
    moved = update(marks).where(marks.c.name == name, marks.c.seen == seen).values(seen=to)
    return (await connection.execute(moved)).rowcount == 1
