"""Writes rows of history behind the requests: in groups, at a steady pace, and never in anybody's way."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter

from sqlalchemy import insert

from llmproxy.database.breaker import CircuitBreaker, OnFault, ignore
from llmproxy.database.engine import Database
from llmproxy.database.write_behind import Loss, WriteBehind, WriteLimits
from llmproxy.history.record import BODY_BYTES, COLUMNS, Row
from llmproxy.history.tables import history
from llmproxy.runtime.background import Backoff

logger = logging.getLogger(__name__)

#: the name of the writers' turn
TURN = "history"
#: rows in one transaction
GROUP = 1_000
#: what a row takes beside its bodies, about
_ROW_BYTES = 700
#: so that a flood of hits leaves the machine to the requests
ROWS_PER_SECOND = 10_000.0
#: bytes of bodies that may wait, and of one transaction
QUEUE_BYTES = 64 * 1024 * 1024
#: seconds that rows wait for others: a transaction costs as much as thirty of them. Who asks does not wait for it
_LINGER_SECONDS = 0.25
#: seconds for one transaction
WRITE_SECONDS = 30.0
#: until the next attempt after a fault
_BACKOFF = Backoff(first=0.5, longest=30.0)


class HistoryWriter:
    """Writes rows; one that finds no room to wait, or that the database refuses, is counted in ``lost``.

    ``prepare`` gives the rows as they are written; it may block and is called in a thread. ``on_written`` is called
    after each transaction with about the bytes that it wrote. Rows become visible in the order of their ids, whichever
    process writes them.
    """

    def __init__(
        self,
        database: Database,
        *,
        queue_rows: int,
        queue_bytes: int = QUEUE_BYTES,
        prepare: Callable[[Sequence[Row]], Sequence[Row]] | None = None,
        on_written: Callable[[int], None] | None = None,
        on_fault: OnFault = ignore,
        backoff: Backoff = _BACKOFF,
    ) -> None:
        self._database = database
        self._prepare = prepare
        self._on_written = on_written
        self._insert = _insert_statement(database)
        #: rows written, rows lost, since start
        self.written = 0
        self.lost = 0
        fails = "history cannot be written (%(fault)s); rows wait, silent until it can"
        self._queue: WriteBehind[Row] = WriteBehind(
            "history writer",
            self._write,
            CircuitBreaker("history", on_fault, fails=fails, works=self._works, backoff=backoff),
            WriteLimits(queue_rows, queue_bytes, group_items=GROUP, group_bytes=QUEUE_BYTES, linger=_LINGER_SECONDS),
            size=itemgetter(BODY_BYTES),
            lost=self._lose,
            written=self._count,
            pace=lambda rows, seconds: rows / ROWS_PER_SECOND - seconds,
        )
        self.open = self._queue.open
        self.close = self._queue.close
        self.settle = self._queue.settle
        #: takes so many rows, or as many as there is room for; the others are not even made
        self.add: Callable[[int, Iterable[Row]], None] = self._queue.put_many

    def is_busy(self) -> bool:
        """Whether more rows wait than one transaction takes."""
        return len(self._queue) > GROUP

    async def _write(self, group: Sequence[Row]) -> None:
        rows = group if self._prepare is None else await asyncio.to_thread(self._prepare, group)
        async with asyncio.timeout(WRITE_SECONDS), self._database.write() as connection:
            await self._database.dialect.take_turn(connection, TURN)
            await connection.exec_driver_sql(self._insert, list(rows))

    def _count(self, group: Sequence[Row]) -> None:
        self.written += len(group)
        if self._on_written is not None:
            self._on_written(sum(_ROW_BYTES + row[BODY_BYTES] for row in group))

    def _works(self) -> str:
        return f"history is written again; {self.lost} rows were lost since start" if self.lost else ""

    def _lose(self, count: int, why: Loss) -> None:
        self.lost += count
        if why is Loss.REFUSED:
            logger.error("a row of history was refused by the database")
        elif why is Loss.UNWRITTEN:
            logger.warning("%d rows of history could not be written before the end", count)


def _insert_statement(database: Database) -> str:
    """The statement as the driver takes it: binding values through SQLAlchemy costs the loop eight times as much."""
    compiled = insert(history).compile(dialect=database.engine.dialect, column_keys=COLUMNS)
    if compiled.positiontup != list(COLUMNS):
        raise ValueError(f"the statement's parameters are {compiled.positiontup}, not {list(COLUMNS)}")
    return str(compiled)
