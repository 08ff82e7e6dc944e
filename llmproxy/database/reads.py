"""Point reads, on connections held open and past SQLAlchemy: they are on the path of every look-up."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from llmproxy.database.sql_dialect import DatabaseDialect

Rows = Sequence[Sequence[Any]]


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
