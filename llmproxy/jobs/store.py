"""The room's way to the database: durable transactions, tried again if others were in the way, faults translated; and
the clock that all processes of a database share."""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import RowMapping, Select
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.database.engine import Database
from llmproxy.database.faults import DEFECTS, DatabaseFault, fault_of
from llmproxy.wire.errors import BadRequest, ProxyError, Unavailable
from llmproxy.wire.headers import retry_after

log = logging.getLogger(__name__)

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]

_TRIES = 4
_RETRY = (retry_after(2),)


class Store:
    """Runs pieces of work on the database. Every method raises ``Unavailable`` if the database cannot be used, and
    ``BadRequest`` for a text that it cannot store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, work: Work[T], *, durable: bool = True) -> T:
        """Runs ``work`` in a transaction, maybe more than once: the last run counts.

        ``durable`` ones are on the disk when this returns; of the others the last few are undone by a loss of power.
        A ``ProxyError`` of the work undoes it and is passed on.
        """
        for last in (*(False,) * (_TRIES - 1), True):
            try:
                async with self._database.write(durable=durable) as connection:
                    return await work(connection)
            except ProxyError:
                raise
            except Exception as error:
                # deadlocks and serialisation failures are the database's way of asking for another try
                if last or fault_of(error) is not DatabaseFault.LOCKED:
                    raise _to_proxy_error(error) from error
        raise AssertionError("the last try returns or raises")

    async def now(self) -> float | None:
        """The database's own clock in Unix seconds; None if every process that uses it runs on one machine."""
        return await self.read(self._database.dialect.now)

    async def rows(self, query: Select[Any]) -> Sequence[RowMapping]:
        """The rows that ``query`` finds."""

        async def work(connection: AsyncConnection) -> Sequence[RowMapping]:
            rows: Sequence[RowMapping] = (await connection.execute(query)).mappings().all()
            return rows

        return await self.read(work)

    async def scalars(self, query: Select[Any]) -> Sequence[Any]:
        """The first column of the rows that ``query`` finds."""

        async def work(connection: AsyncConnection) -> Sequence[Any]:
            values: Sequence[Any] = (await connection.execute(query)).scalars().all()
            return values

        return await self.read(work)

    async def read(self, work: Work[T]) -> T:
        """Runs ``work`` on a connection that only reads."""
        try:
            async with self._database.read() as connection:
                return await work(connection)
        except ProxyError:
            raise
        except Exception as error:
            # each driver raises errors of its own; they are translated here, once
            raise _to_proxy_error(error) from error


def _to_proxy_error(error: Exception) -> ProxyError:
    fault = fault_of(error)
    if isinstance(error, DEFECTS):
        log.error("a piece of work on the jobs is wrong", exc_info=error)
    if fault is DatabaseFault.REFUSED:
        if _is_of_text(error):
            return BadRequest("The request holds a text with NUL or half a surrogate pair, which cannot be kept.")
        # a defect: the statement tells where. Its values are the callers' own, and stay out of the log
        statement = error.statement if isinstance(error, StatementError) else None
        log.error("the database refused a statement of the jobs: %s: %s", type(_root_cause(error)).__name__, statement)
    return Unavailable(f"The database of the jobs cannot be used now ({fault}).", headers=_RETRY)


def _is_of_text(error: Exception) -> bool:
    """Whether a text was refused for its characters: by the driver, or by PostgreSQL, which takes no NUL."""
    first = _root_cause(error)
    return isinstance(first, UnicodeEncodeError) or getattr(first, "sqlstate", None) == "22021"


def _root_cause(error: BaseException) -> BaseException:
    """What the others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


#: no wait and no lease is longer: what ends later was written by the clock of another start of the machine
LONGEST_SECONDS = 86_400.0
#: seconds between the clocks of two starts, more than a machine runs; and the number of starts that differ
_APART, _STARTS = 2.5e8, 4096
#: seconds for which the monotonic clock continues a reading of the database's clock
_READ_SECONDS = 5.0


class SharedClock:
    """Seconds since no particular moment.

    On one machine (SQLite) it is the monotonic clock, which all processes share; it begins anew with each start of the
    machine, so each start has a range of its own. Else it is the database's own clock.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._offset = _offset_of_start()
        self._read_at: float | None = None

    async def __call__(self) -> float:
        """Raises ``Unavailable``."""
        if self._read_at is None or monotonic() - self._read_at > _READ_SECONDS:
            before = monotonic()
            now = await self._store.now()
            self._read_at = monotonic()
            if now is not None:
                self._offset = now - (before + self._read_at) / 2
        return monotonic() + self._offset


def _offset_of_start() -> float:
    with suppress(OSError):
        start = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return int.from_bytes(sha256(start.encode()).digest()[:4]) % _STARTS * _APART
    # no better than the clock on the wall as it was when this process began
    return time.time() - monotonic()
