"""Point reads, on connections held open and past SQLAlchemy: they are on the path of every look-up."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from llmproxy.database.sql_dialect import DatabaseDialect, DirectConnection
from llmproxy.runtime.background import Backoff

Rows = Sequence[Sequence[Any]]

#: a read that takes longer holds up every request: 4 to 20 us are usual. One is slow by itself where the processor was
#: taken away in its middle; two among so many are a slow disk, and so is one that takes as long as the second number
_SLOW_SECONDS, _VERY_SLOW_SECONDS = 0.002, 0.05
_AMONG = 8
#: how long reads go to the threads after one that was slow or found a lock
_ASIDE = Backoff(first=1.0, longest=30.0)


@dataclass(frozen=True, slots=True)
class PointQuery:
    """A query compiled once for one database. Its values are given in order, as the driver knows them."""

    sql: str


def compile_query(statement: Select[Any], names: Sequence[str], engine: AsyncEngine) -> PointQuery:
    """``names`` are the statement's bound parameters in the order in which their values will come.

    Values and rows pass unconverted, so only types that the drivers know by themselves will do: bytes, text, numbers.
    """
    compiled = statement.compile(dialect=engine.dialect)
    if compiled.positiontup != list(names):
        raise ValueError(f"the statement's parameters are {compiled.positiontup}, not {list(names)}")
    return PointQuery(str(compiled))


class HeldReads:
    """A few connections, each outside of any transaction, opened when first needed."""

    def __init__(self, engine: AsyncEngine, dialect: DatabaseDialect):
        self._engine = engine
        self._dialect = dialect
        self._slots = asyncio.Semaphore(dialect.held_connections)
        self._idle: list[tuple[AsyncConnection, Any]] = []
        self._epoch = 0

    async def rows(self, query: PointQuery, values: Sequence[Any]) -> Rows:
        """Raises what the driver raises; a connection that failed is not used again."""
        async with self._slots:
            epoch = self._epoch
            connection, driver = self._idle.pop() if self._idle else await self._connect()
            keep = False
            try:
                rows = await self._dialect.fetch(driver, query.sql, values)
                keep = epoch == self._epoch
            except asyncio.CancelledError:
                keep = self._dialect.survives_cancelling(driver) and epoch == self._epoch
                raise
            finally:
                if keep:
                    self._idle.append((connection, driver))
                else:
                    await connection.close()
            return rows

    async def close(self) -> None:
        """Closes what is idle; a connection in use is closed when its read ends."""
        self._epoch += 1
        idle, self._idle = self._idle, []
        for connection, _ in idle:
            await connection.close()

    async def _connect(self) -> tuple[AsyncConnection, Any]:
        connection = await self._engine.connect()
        driver = (await connection.get_raw_connection()).driver_connection
        # held for good: it must not count against the pool that transactions share
        await connection.run_sync(lambda sync: sync.detach())
        return connection, driver


class DirectReads:
    """Point reads on the loop's own thread: without the hop to another one, which costs ten times as much as the read.

    For databases that are files only. After reads that took longer than they may, or one that found a lock, there are
    none for a while: a disk that is slow must not hold up what needs no disk. ``clock`` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._connection: DirectConnection | None = None
        #: reads until a slow one is forgotten
        self._suspect = 0
        self._failures = 0
        self._aside_until = 0.0

    def use(self, connection: DirectConnection | None) -> None:
        """Replaces the connection; without one nothing is read here."""
        self.close()
        self._connection = connection

    def close(self) -> None:
        """Safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()

    def rows(self, query: PointQuery, values: Sequence[Any]) -> Rows | None:
        """The rows; None if they have to be read on a thread, which also reports faults."""
        began = self._clock()
        if self._connection is None or began < self._aside_until:
            return None
        try:
            rows: Rows = self._connection.execute(query.sql, values).fetchall()
        except Exception:  # noqa: BLE001 - whatever it was, the thread finds it again and tells of it
            self._turn_aside()
            return None
        took = self._clock() - began
        if took <= _SLOW_SECONDS:
            self._failures = 0
            self._suspect = max(0, self._suspect - 1)
        elif self._suspect or took > _VERY_SLOW_SECONDS:
            self._turn_aside()
        else:
            self._suspect = _AMONG
        return rows

    def _turn_aside(self) -> None:
        self._suspect = 0
        self._failures += 1
        self._aside_until = self._clock() + _ASIDE.seconds(self._failures)
