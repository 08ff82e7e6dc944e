"""The SQL tier: written behind in groups, read past SQLAlchemy, and a miss whenever its database fails."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    delete,
    false,
    func,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningDelete

from llmproxy.cache.entry import FORMAT, Broken, Entry, Packed, Packer, Unpacker, Unstorable, tag_text
from llmproxy.cache.flush_log import TURN, flushed_since
from llmproxy.cache.tables import entries
from llmproxy.cache.tier import Flushed, OnFault, Selector, TierStats, breaker, is_empty, key_range, matches
from llmproxy.database.breaker import BACKOFF
from llmproxy.database.engine import Database
from llmproxy.database.faults import DatabaseFault
from llmproxy.database.footprint import index_bytes, row_bytes
from llmproxy.database.reads import PointQuery, Rows
from llmproxy.database.sql_dialect import DatabaseDialect
from llmproxy.runtime.background import Backoff

#: keys in one query for several; fewer are filled up, so that the query is compiled only once
MANY = 64

KEY = ("key",)
KEYS = tuple(f"key_{n}" for n in range(MANY))

_readable = entries.c.format == literal_column(str(FORMAT))
_one_key = entries.c.key == bindparam("key")
_many_keys = entries.c.key.in_([bindparam(name) for name in KEYS])
_served = select(entries.c.key, entries.c.used_at, entries.c.digest, entries.c.body)

#: rows (key, used_at, digest, body); what another version wrote in another format is not seen
FIND = _served.where(_one_key, _readable)
FIND_MANY = _served.where(_many_keys, _readable)
#: the first key between two
FIRST = select(entries.c.key).where(entries.c.key.between(bindparam("first"), bindparam("last")), _readable)
FIRST = FIRST.order_by(entries.c.key).limit(1)
#: rows (key,)
HOLDS_MANY = select(entries.c.key).where(_many_keys, _readable)

#: the row of a key, unless it was replaced meanwhile
DISCARD = delete(entries).where(entries.c.key == bindparam("at"), entries.c.digest == bindparam("was"))
TOUCH = update(entries).where(entries.c.key == bindparam("at")).values(used_at=bindparam("now"))

#: one row: number, bytes, time of the oldest
CENSUS = select(func.count(), func.sum(entries.c.size), func.min(entries.c.created_at)).select_from(entries)


def values(entry: Entry, packed: Packed, now: float) -> dict[str, Any]:
    """A row of ``cache_entries``."""
    tags = tag_text(entry.tags)
    return {
        "key": entry.key,
        "operation": entry.operation,
        "model": entry.model,
        "scope": entry.scope,
        "namespace": entry.namespace,
        "tags": tags,
        "created_at": entry.created,
        "expires_at": entry.expires,
        "used_at": now,
        "size": _size(entry, tags, packed),
        "digest": packed.digest,
        "format": packed.format,
        "body": packed.body,
    }


def _size(entry: Entry, tags: str, packed: Packed) -> int:
    """What the row and its entries in the indexes take in the file."""
    searched = sum(len(text.encode()) for text in (entry.model, entry.namespace, entry.operation, tags))
    # beside texts and body: the key, the digest, five numbers and a head; an index entry has the row's number
    row = row_bytes(len(packed.body) + searched + len(entry.scope.encode()) + 112)
    return row + index_bytes(searched + 24) + index_bytes(len(entry.key) + 8) + 2 * index_bytes(28)


def chunks(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """``MANY`` keys at a time, the last ones filled up by repeating one."""
    for start in range(0, len(keys), MANY):
        chunk = list(keys[start : start + MANY])
        yield chunk + chunk[-1:] * (MANY - len(chunk))


def chosen(selector: Selector, dialect: DatabaseDialect) -> ColumnElement[bool]:
    """The rows that a selector means: ``selection.matches`` in SQL. Raises ``ValueError`` for a prefix that is none."""
    texts = (selector.model, selector.namespace, selector.endpoint)
    if is_empty(selector) or any("\0" in text for text in texts if text is not None):
        return false()
    given: list[ColumnElement[bool]] = []
    if selector.key is not None:
        given.append(entries.c.key == selector.key)
    if selector.prefix is not None:
        given.append(entries.c.key.between(*key_range(selector.prefix)))
    if selector.model is not None:
        given.append(entries.c.model == selector.model)
    if selector.namespace is not None:
        given.append(entries.c.namespace == selector.namespace)
    if selector.endpoint is not None:
        given.append(entries.c.operation == selector.endpoint)
    if selector.tags:
        possible = [tag for tag in selector.tags if "\0" not in tag and "\n" not in tag]
        given.append(or_(false(), *(dialect.contains(entries.c.tags, tag_text([tag])) for tag in possible)))
    if selector.created_before is not None:
        given.append(entries.c.created_at < selector.created_before)
    return and_(true(), *given)


def count(where: ColumnElement[bool]) -> Select[int, int]:
    """One row: number, bytes."""
    return select(func.count(), func.sum(entries.c.size)).where(where)


def delete_some(
    where: ColumnElement[bool], limit: int, order: ColumnElement[Any] | None = None, *, wait: bool = False
) -> ReturningDelete[int]:
    """Deletes up to ``limit`` rows and returns the size of each. ``wait`` for rows that another process works on;
    else they are left to it."""
    some = select(entries.c.id).where(where).limit(limit).with_for_update(skip_locked=not wait)
    if order is not None:
        some = some.order_by(order)
    return delete(entries).where(entries.c.id.in_(some)).returning(entries.c.size)


class Pending:
    """First in, first out; a newer entry replaces one with the same key."""

    def __init__(self, max_entries: int, max_bytes: int):
        self._entries: dict[bytes, Entry] = {}
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def offer(self, entry: Entry) -> bool:
        """Whether there was room for it. What it would have replaced is gone either way."""
        self._remove(entry.key)
        if len(self._entries) >= self._max_entries or self._bytes + entry.size > self._max_bytes:
            return False
        self._entries[entry.key] = entry
        self._bytes += entry.size
        return True

    def find(self, key: bytes) -> Entry | None:
        return self._entries.get(key)

    def matching(self, selector: Selector) -> list[Entry]:
        return [entry for entry in self._entries.values() if matches(selector, entry)]

    def forget(self, selector: Selector) -> list[Entry]:
        """Removes what ``selector`` means and returns it."""
        gone = self.matching(selector)
        for entry in gone:
            self._remove(entry.key)
        return gone

    def batch(self, max_entries: int, max_bytes: int) -> list[Entry]:
        """The next entries to write, at least one if any waits. They stay visible until they are ``done``."""
        batch: list[Entry] = []
        size = 0
        for entry in islice(self._entries.values(), max_entries):
            size += entry.size
            if batch and size > max_bytes:
                break
            batch.append(entry)
        return batch

    def done(self, batch: Sequence[Entry]) -> None:
        """Removes what was written, but not what has replaced it since."""
        for entry in batch:
            if self._entries.get(entry.key) is entry:
                self._remove(entry.key)

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size


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
        backoff: Backoff = BACKOFF,
    ):
        self.pending = Pending(limits.waiting_entries, limits.waiting_bytes)
        self.breaker = breaker("sql", "writing", on_fault, backoff)
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


#: seconds after which a look-up is a miss
_LOOKUP_SECONDS = 0.5
#: seconds by which the noted time of last use may lag: it decides about evictions days later
_TOUCH_SECONDS = 600.0
#: from this size on a body is unpacked on a thread, because it takes longer than a hop there
_LARGE_BYTES = 256 * 1024
#: rows deleted in one transaction
_CHUNK = 500

#: writes what is to be committed together with the last rows of a flush
Seal = Callable[[AsyncConnection], Awaitable[None]]


class SqlTier:
    """The ``Tier`` in a database. ``clock`` gives Unix seconds.

    ``on_fault(tier, kind)`` is told of every fault (kinds: ``database.faults.Fault`` and those of ``CacheWriter``).
    ``census_seconds`` is how old the figures of ``stats`` may be.
    """

    name = "sql"

    def __init__(
        self,
        database: Database,
        *,
        compress_from: int,
        clock: Callable[[], float],
        on_fault: OnFault,
        limits: WriteLimits | None = None,
        census_seconds: float = 5.0,
        backoff: Backoff = BACKOFF,
    ):
        self._database = database
        self._clock = clock
        self._writer = CacheWriter(
            database, compress_from, limits or WriteLimits(), clock, on_fault, self._wrote, backoff
        )
        self._breaker = breaker(self.name, "reading", on_fault, backoff)
        self._unpacker = Unpacker()
        self._one = database.point_query(FIND, KEY)
        self._many = database.point_query(FIND_MANY, KEYS)
        self._holds = database.point_query(HOLDS_MANY, KEYS)
        #: told of the bytes that each transaction has added
        self.on_written: Callable[[int], None] = lambda size: None
        self._census = TierStats(0, 0, None, {})
        self._census_seconds = census_seconds
        self._census_until = 0.0
        self._evictions = dict.fromkeys(("bytes", "expired", "flushed", "broken"), 0)

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def open(self) -> None:
        """Begins to write."""
        self._writer.start()

    def peek(self, key: bytes) -> Entry | None:
        """The entry if it still waits to be written."""
        return self._writer.pending.find(key)

    def keep(self, entry: Entry) -> None:
        """``put``, for callers that must not wait: the entry is visible at once and written soon."""
        self._writer.put(entry)

    async def put(self, entry: Entry) -> None:
        self.keep(entry)

    async def get(self, key: bytes) -> Entry | None:
        waiting = self.peek(key)
        if waiting is not None:
            return waiting
        for row in await self._rows(self._one, (key,)):
            return await self._entry(row)
        return None

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        found = {key: entry for key in keys if (entry := self.peek(key)) is not None}
        for chunk in chunks([key for key in keys if key not in found]):
            for row in await self._rows(self._many, chunk):
                entry = await self._entry(row)
                if entry is not None:
                    found[entry.key] = entry
        return found

    async def holds(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which of these keys have an entry here."""
        waiting = {key for key in keys if self.peek(key) is not None}
        return waiting | await self._written([key for key in keys if key not in waiting])

    def _wrote(self, size: int) -> None:
        self.on_written(size)

    def forget(self, selector: Selector) -> list[Entry]:
        """Removes what ``selector`` means of what waits to be written, and returns it."""
        return self._writer.pending.forget(selector)

    async def flush(self, selector: Selector, *, dry_run: bool = False, seal: Seal | None = None) -> Flushed:
        """What waits is forgotten at once, whatever becomes of the rest; ``failed`` says that rows may be left.

        ``seal`` writes into the transaction that deletes the last of the rows. Raises ``ValueError`` for a prefix that
        is none.
        """
        where = chosen(selector, self._database.dialect)
        pending = self._writer.pending
        waiting = pending.matching(selector) if dry_run else pending.forget(selector)
        # a batch on its way may hold what was just forgotten: it must have become rows before rows are deleted, and
        # nothing may become a row between the two counts
        async with self._writer.resting():
            return await self._flush_rows(where, waiting, seal, dry_run=dry_run)

    async def _flush_rows(
        self, where: ColumnElement[bool], waiting: Sequence[Entry], seal: Seal | None, *, dry_run: bool
    ) -> Flushed:
        rows = await self._written([entry.key for entry in waiting])
        unwritten = [entry for entry in waiting if entry.key not in rows]
        number, size = len(unwritten), sum(entry.size for entry in unwritten)
        try:
            found = await (self._count(where) if dry_run else self._delete(where, seal))
        except Exception as error:  # noqa: BLE001 - the failure contract: a fault is counted and told of, not raised
            self._writer.breaker.failed(error)
            return Flushed(number, size, failed=(self.name,))
        if not dry_run:
            self.count("flushed", number + found.entries)
        return Flushed(number + found.entries, size + found.bytes)

    async def stats(self) -> TierStats:
        """What is written; figures of a moment ago, or of before the database failed."""
        if time.monotonic() >= self._census_until and not self._breaker.open:
            self._census_until = time.monotonic() + self._census_seconds
            try:
                async with self._database.read() as connection:
                    number, size, oldest = (await connection.execute(CENSUS)).one()
            except Exception as error:  # noqa: BLE001 - the failure contract: old figures are better than none
                self._breaker.failed(error)
            else:
                self._census = TierStats(number, int(size or 0), oldest, {})
        return TierStats(self._census.entries, self._census.bytes, self._census.oldest, self.evictions())

    def evictions(self) -> dict[str, int]:
        """What left the tier since start, by reason."""
        return dict(self._evictions)

    async def lookup(self, prefix: str) -> Entry | None:
        """The first written entry whose key begins with these hex digits. Raises ``ValueError`` for what are none."""
        first, last = key_range(prefix)
        try:
            async with self._database.read() as connection:
                key = (await connection.execute(FIRST, {"first": first, "last": last})).scalar()
        except Exception as error:  # noqa: BLE001 - the failure contract: whatever it was, it is a miss
            self._breaker.failed(error)
            return None
        return await self.get(key) if key is not None else None

    def count(self, reason: str, number: int) -> None:
        """Counts entries that left the tier."""
        self._evictions[reason] += number

    async def drained(self) -> None:
        """Waits until everything is written; while the database fails, that is as long as it fails."""
        await self._writer.drained()

    async def close(self, limit: float = DRAIN_SECONDS) -> None:
        """Writes what waits, at most ``limit`` seconds long."""
        await self._writer.close(limit)

    async def _written(self, keys: Sequence[bytes]) -> set[bytes]:
        return {row[0] for chunk in chunks(keys) for row in await self._rows(self._holds, chunk)}

    async def _count(self, where: ColumnElement[bool]) -> Flushed:
        async with self._database.read() as connection:
            number, size = (await connection.execute(count(where))).one()
            return Flushed(number, int(size or 0))

    async def _delete(self, where: ColumnElement[bool], seal: Seal | None) -> Flushed:
        """A few hundred at a time, so that other writers get their turns."""
        number, size = 0, 0
        while True:
            async with self._database.write() as connection:
                # before the rows are chosen: who stores at this moment ends first, or reads what ``seal`` has written
                await self._database.dialect.take_turn(connection, TURN)
                sizes = (await connection.execute(delete_some(where, _CHUNK, wait=True))).scalars().all()
                if len(sizes) < _CHUNK and seal is not None:
                    await seal(connection)
            number, size = number + len(sizes), size + sum(sizes)
            if len(sizes) < _CHUNK:
                return Flushed(number, size)

    async def _rows(self, query: PointQuery, values: Sequence[Any]) -> Rows:
        """The rows, or none while the database fails."""
        if self._breaker.open:
            return ()
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                rows = await self._database.rows(query, values)
        except Exception as error:  # noqa: BLE001 - the failure contract: whatever it was, it is a miss
            self._breaker.failed(error)
            return ()
        self._breaker.succeeded()
        return rows

    async def _entry(self, row: Sequence[Any]) -> Entry | None:
        key, used_at, digest, body = row
        packed = Packed(key, digest, FORMAT, body)
        try:
            if len(body) < _LARGE_BYTES:
                entry = self._unpacker.unpack(packed)
            else:
                entry = await asyncio.to_thread(Unpacker().unpack, packed)
        except Broken:
            self.count("broken", 1)
            self._writer.discard(key, digest)
            return None
        if self._clock() - used_at > _TOUCH_SECONDS:
            self._writer.touch(key)
        return entry
