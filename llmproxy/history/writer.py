"""Writes rows of history behind the requests: in groups, at a steady pace, and never in anybody's way."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice

from sqlalchemy import insert

from llmproxy.database.breaker import OnFault, ignore
from llmproxy.database.engine import Database
from llmproxy.database.faults import DatabaseFault, fault_of
from llmproxy.history.record import BODY_BYTES, COLUMNS, Row
from llmproxy.history.tables import history

logger = logging.getLogger(__name__)

#: the name of the writers' turn
TURN = "history"
#: rows in one transaction
GROUP = 1_000
#: what a row takes beside its bodies, about
_ROW_BYTES = 700
#: so that a flood of hits leaves the machine to the requests
ROWS_PER_SECOND = 10_000.0
#: bytes of bodies that may wait
QUEUE_BYTES = 64 * 1024 * 1024
#: seconds for one transaction
WRITE_SECONDS = 30.0
#: seconds for a transaction to end that was cancelled
CANCEL_SECONDS = 1.0
#: seconds until the next attempt after a fault: doubled each time, up to the second
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0


class HistoryWriter:
    """A bounded queue of rows and the task that writes them.

    A row that finds no room is counted in ``lost``. While the database is at fault, rows wait; the fault is logged
    once until it is over. Rows that the database refuses for what they hold are lost alone.

    ``finish`` gives the rows as they are written; it may block and is called in a thread. ``told`` is called after each
    transaction with about the bytes that it wrote. Rows become visible in the order of their ids, whichever process
    writes them.
    """

    def __init__(
        self,
        database: Database,
        *,
        queue_rows: int,
        queue_bytes: int = QUEUE_BYTES,
        first_pause: float = FIRST_PAUSE,
        finish: Callable[[Sequence[Row]], Sequence[Row]] | None = None,
        told: Callable[[int], None] | None = None,
        on_fault: OnFault = ignore,
    ) -> None:
        self._database = database
        self._finish = finish
        self._told = told
        self._on_fault = on_fault
        self._queue_rows = queue_rows
        self._queue_bytes = queue_bytes
        self._first_pause = first_pause
        self._queue: deque[Row] = deque()
        self._bytes = 0
        self._group = GROUP
        self._pause = first_pause
        self._fault: DatabaseFault | None = None
        self._wanted = asyncio.Event()
        #: rows taken, and rows that left the queue again, since start
        self._taken = self._gone = 0
        #: who waits until so many rows have left
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._insert = _insert_statement(database)
        #: rows written, rows lost, since start
        self.written = 0
        self.lost = 0

    def open(self) -> None:
        """Starts to write. Rows may be added before."""
        self._task = asyncio.create_task(self._run(), name="history writer")

    def add(self, count: int, rows: Iterable[Row]) -> None:
        """Takes ``count`` rows, or as many as there is room for; the others are not even made."""
        before = len(self._queue)
        if not self._closing.is_set() and self._bytes < self._queue_bytes:
            for row in islice(rows, max(0, self._queue_rows - before)):
                self._queue.append(row)
                self._bytes += row[BODY_BYTES]
                if self._bytes >= self._queue_bytes:
                    break
        taken = len(self._queue) - before
        self.lost += count - taken
        self._taken += taken
        if taken:
            self._wanted.set()

    def is_busy(self) -> bool:
        """Whether more rows wait than one transaction takes."""
        return len(self._queue) > GROUP

    async def settle(self, limit: float) -> bool:
        """Whether what waits now was written, or lost; waits for it ``limit`` seconds. What comes later counts not."""
        if self._gone == self._taken:
            return True
        wanted = self._taken, asyncio.get_running_loop().create_future()
        self._waiting.append(wanted)
        try:
            return bool((await asyncio.wait([wanted[1]], timeout=limit))[0])
        finally:
            if not wanted[1].done():
                self._waiting.remove(wanted)

    async def close(self, limit: float) -> None:
        """Writes what waits, at most ``limit`` seconds long; what is left then is lost. Safe to call twice."""
        self._closing.set()
        self._wanted.set()
        task, self._task = self._task, None
        if task is not None and (await asyncio.wait([task], timeout=limit))[1]:
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_SECONDS)
        if self._queue:
            logger.warning("%d rows of history could not be written before the end", len(self._queue))
            self._lose(len(self._queue))

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            last = self._closing.is_set()
            if self._queue:
                await self._write_group()
            if last and (not self._queue or self._fault is not None):
                return

    async def _write_group(self) -> None:
        group = list(islice(self._queue, self._group))
        started = time.monotonic()
        try:
            rows = group if self._finish is None else await asyncio.to_thread(self._finish, group)
            async with asyncio.timeout(WRITE_SECONDS), self._database.write() as connection:
                await self._database.dialect.take_turn(connection, TURN)
                await connection.exec_driver_sql(self._insert, rows)
        except Exception as error:  # noqa: BLE001 - any driver's any fault: rows wait, requests never notice
            await self._fail(fault_of(error), len(group))
        else:
            self._forget(len(group))
            self.written += len(group)
            self._recover()
            if self._told is not None:
                self._told(sum(_ROW_BYTES + row[BODY_BYTES] for row in rows))
            await self._rest(len(group) / ROWS_PER_SECOND - (time.monotonic() - started))

    async def _fail(self, fault: DatabaseFault, rows: int) -> None:
        if not fault.passes:
            # smaller and smaller groups find the row that is refused
            self._group = max(1, rows // 2)
            if rows == 1:
                self._lose(1)
                logger.error("a row of history was refused by the database")
            return
        self._on_fault("history", fault)
        if self._fault is None:
            logger.warning("history cannot be written (%s); rows wait, silent until it can", fault)
        self._fault = fault
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        await self._rest(pause)

    def _recover(self) -> None:
        self._group = min(self._group * 2, GROUP)
        self._pause = self._first_pause
        if self._fault is not None:
            self._fault = None
            logger.warning("history is written again; %d rows were lost since start", self.lost)

    async def _rest(self, seconds: float) -> None:
        """Sleeps, unless and until the end has come."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._closing.wait()

    def _lose(self, rows: int) -> None:
        self._forget(rows)
        self.lost += rows

    def _forget(self, rows: int) -> None:
        for _ in range(rows):
            self._bytes -= self._queue.popleft()[BODY_BYTES]
        self._gone += rows
        while self._waiting and self._waiting[0][0] <= self._gone:
            self._waiting.popleft()[1].set_result(None)
        if not self._queue and not self._closing.is_set():
            self._wanted.clear()


def _insert_statement(database: Database) -> str:
    """The statement as the driver takes it: binding values through SQLAlchemy costs the loop eight times as much."""
    compiled = insert(history).compile(dialect=database.engine.dialect, column_keys=COLUMNS)
    if compiled.positiontup != list(COLUMNS):
        raise ValueError(f"the statement's parameters are {compiled.positiontup}, not {list(COLUMNS)}")
    return str(compiled)
