"""Writing behind: one task that takes what waits and writes it in grouped transactions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from llmproxy.cache.codec import Packer, Unstorable
from llmproxy.cache.entry import Entry
from llmproxy.cache.flush_log import TURN, flushed_since
from llmproxy.cache.pending import Pending
from llmproxy.cache.statements import DISCARD, TOUCH, values
from llmproxy.cache.tables import entries
from llmproxy.cache.tier import OnFault, breaker
from llmproxy.database.engine import Database
from llmproxy.database.faults import DatabaseFault


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """Bounds of what waits and of one transaction."""

    waiting_entries: int = 10_000
    waiting_bytes: int = 64 * 1024 * 1024
    batch_entries: int = 500
    batch_bytes: int = 8 * 1024 * 1024
    #: rows whose use, or whose damage, waits to be noted
    notes: int = 10_000
    #: seconds that the first of a group waits for others
    linger: float = 0.25


#: seconds that the last writing may take where nobody says how many are left
DRAIN_SECONDS = 5.0
#: seconds for a transaction to end that was cancelled
_CANCEL_SECONDS = 1.0

#: an entry, and the values of its row
_Row = tuple[Entry, tuple[Any, ...]]


class CacheWriter:
    """Owns the task. Entries wait in ``pending`` until they are committed; a fault keeps them waiting.

    ``clock`` gives Unix seconds. Beside a database's faults, ``on_fault`` is told of every entry that is not kept:
    "queue-full" for want of room to wait, "refused" if no row can hold it, "lost" if it still waited at the end.
    ``written`` is told of the bytes of each group.
    """

    def __init__(
        self,
        database: Database,
        compress_from: int,
        limits: WriteLimits,
        clock: Callable[[], float],
        on_fault: OnFault,
        written: Callable[[int], None],
    ):
        self.pending = Pending(limits.waiting_entries, limits.waiting_bytes)
        self.breaker = breaker("sql", "writing", on_fault)
        self._database = database
        self._packer = Packer(compress_from)
        self._upsert, self._columns = _upsert_statement(database)
        self._size = self._columns.index("size")
        self._limits = limits
        self._clock = clock
        self._on_fault = on_fault
        self._written = written
        self._batch_entries = limits.batch_entries
        self._touched: dict[bytes, float] = {}
        self._broken: dict[bytes, bytes] = {}
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the task on the running loop."""
        self._task = asyncio.create_task(self._run(), name="cache writer")

    def put(self, entry: Entry) -> None:
        """Lets ``entry`` wait to be written; if there is no room it is counted and not kept."""
        if self.pending.offer(entry):
            self._work_waits()
        else:
            self._on_fault("sql", "queue-full")

    def touch(self, key: bytes) -> None:
        """Notes that a row was used now."""
        if len(self._touched) < self._limits.notes:
            self._touched[key] = self._clock()
            self._work_waits()

    def discard(self, key: bytes, digest: bytes) -> None:
        """Has a broken row deleted, unless it was replaced."""
        if len(self._broken) < self._limits.notes:
            self._broken[key] = digest
            self._work_waits()

    @asynccontextmanager
    async def resting(self) -> AsyncIterator[None]:
        """Waits for the batch on its way, if there is one, and keeps the next one back."""
        async with self._writing:
            yield

    async def drained(self) -> None:
        """Waits until nothing waits. While the database fails, that is as long as it fails."""
        await self._idle.wait()

    async def close(self, limit: float) -> None:
        """Writes what waits, at most ``limit`` seconds long, and ends the task."""
        self._closing.set()
        self._wake.set()
        if self._task is None:
            return
        _, late = await asyncio.wait({self._task}, timeout=limit)
        if late:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_CANCEL_SECONDS)
        for _ in range(len(self.pending)):
            self._on_fault("sql", "lost")

    def _work_waits(self) -> None:
        self._idle.clear()
        self._wake.set()

    async def _run(self) -> None:
        closing = False
        while not closing:
            await self._wake.wait()
            await self._pause(self._limits.linger)
            self._wake.clear()
            closing = self._closing.is_set()
            await self._work_off()

    async def _work_off(self) -> None:
        while self.pending or self._touched or self._broken:
            if await self._write_some():
                continue
            if self._closing.is_set():
                return
            await self._pause(self.breaker.remaining)
        self._idle.set()

    async def _pause(self, seconds: float) -> None:
        """Sleeps, but not into the closing."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    async def _write_some(self) -> bool:
        """Whether a group was written or given up; if not, it waits on."""
        async with self._writing:
            batch = self.pending.batch(self._batch_entries, self._limits.batch_bytes)
            touched, broken = dict(self._touched), dict(self._broken)
            try:
                rows = await asyncio.to_thread(self._pack, batch)
                await self._write(rows, touched, broken)
            except Exception as error:  # noqa: BLE001 - a tier's failure contract: no fault reaches the tier's users
                return self._write_failed(error, batch)
            self.pending.done(batch)
            self._written(sum(row[self._size] for _, row in rows))
            _remove(self._touched, touched)
            _remove(self._broken, broken)
            for _ in range(len(batch) - len(rows)):
                self._on_fault("sql", DatabaseFault.REFUSED)
            self._batch_entries = self._limits.batch_entries
            self.breaker.succeeded()
            return True

    def _write_failed(self, error: Exception, batch: Sequence[Entry]) -> bool:
        fault = self.breaker.failed(error)
        if fault.passes:
            return False
        # one of them is refused whenever it is tried: smaller groups leave it alone in the end
        if len(batch) > 1:
            self._batch_entries = len(batch) // 2
        else:
            self.pending.done(batch)
            self._touched.clear()
            self._broken.clear()
        return True

    def _pack(self, batch: Sequence[Entry]) -> list[_Row]:
        """Rows, in the order of their keys, so that processes which write the same ones never lock each other out."""
        now = self._clock()
        rows = []
        for entry in sorted(batch, key=lambda entry: entry.key):
            with contextlib.suppress(Unstorable):
                row = values(entry, self._packer.pack(entry), now)
                rows.append((entry, tuple(row[column] for column in self._columns)))
        return rows

    async def _write(self, rows: Sequence[_Row], touched: dict[bytes, float], broken: dict[bytes, bytes]) -> None:
        async with self._database.write() as connection:
            await self._database.dialect.take_turn(connection, TURN, shared=True)
            flushed = await flushed_since(connection, (entry for entry, _ in rows), self._database.generation)
            kept = [row for entry, row in rows if entry.key not in flushed]
            if kept:
                await connection.exec_driver_sql(self._upsert, kept)
            if touched:
                await connection.execute(TOUCH, [{"at": key, "now": touched[key]} for key in sorted(touched)])
            if broken:
                await connection.execute(DISCARD, [{"at": key, "was": broken[key]} for key in sorted(broken)])


def _upsert_statement(database: Database) -> tuple[str, Sequence[str]]:
    """The statement as the driver takes it, and the order of its values: building it anew costs more than the rows."""
    columns = [column.name for column in entries.columns if not column.primary_key]
    compiled = database.dialect.upsert(entries, "key").compile(dialect=database.engine.dialect, column_keys=columns)
    return str(compiled), compiled.positiontup or columns


def _remove(notes: dict[bytes, Any], written: dict[bytes, Any]) -> None:
    for key, value in written.items():
        if notes.get(key) == value:
            del notes[key]
