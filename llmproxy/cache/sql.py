"""The SQL tier: written behind in groups, read past SQLAlchemy, and a miss whenever its database fails."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any, NamedTuple, Self

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    bindparam,
    case,
    delete,
    false,
    func,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.sql.dml import ReturningDelete

from llmproxy.cache.entry import FORMAT, Broken, Entry, Packed, Packer, Unpacker, Unstorable, tag_text
from llmproxy.cache.flush_log import TURN, flushed_since
from llmproxy.cache.tables import entries
from llmproxy.cache.tier import Flushed, OnFault, Seal, Selector, TierStats, breaker, is_empty, key_range, matches
from llmproxy.database.breaker import BACKOFF
from llmproxy.database.engine import Database
from llmproxy.database.faults import DatabaseFault
from llmproxy.database.footprint import index_bytes, row_bytes
from llmproxy.database.reads import PointQuery, Rows
from llmproxy.database.sql_dialect import DatabaseDialect
from llmproxy.database.write_behind import Loss, WriteBehind, WriteLimits
from llmproxy.runtime.background import Backoff
from llmproxy.wire.vocabulary import Reason

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
#: the same with a body only if it is read so quickly that nothing else need wait meanwhile; 8 pages of the file
_DIRECT_BYTES = 64 * 1024
_short = case((func.length(entries.c.body) <= literal_column(str(_DIRECT_BYTES)), entries.c.body))
FIND_SHORT = select(entries.c.key, entries.c.used_at, entries.c.digest, _short).where(_one_key, _readable)
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
    """The rows that a selector means: ``tier.matches`` in SQL. Raises ``ValueError`` for a prefix that is none."""
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


#: what waits to be written, and one transaction
LIMITS = WriteLimits(linger=0.25)
#: rows whose use, or whose damage, waits to be noted; more need not be
_NOTES = WriteLimits(linger=0.25)
#: seconds that the last writing may take where nobody says how many are left
DRAIN_SECONDS = 5.0

#: an entry, and the values of its row
_Row = tuple[Entry, tuple[Any, ...]]
#: how an entry that is not kept is counted
_LOST = {Loss.FULL: "queue-full", Loss.REFUSED: DatabaseFault.REFUSED, Loss.UNWRITTEN: "lost"}


class _Used(NamedTuple):
    """A row that was used."""

    key: bytes
    at: float


class _Damaged(NamedTuple):
    """A row that is to be deleted, unless it was replaced."""

    key: bytes
    digest: bytes


class EntryWriter:
    """Entries on their way into the database, and what is noted about rows.

    ``clock`` gives Unix seconds. Beside a database's faults, ``on_fault`` is told of every entry that is not kept:
    "queue-full" for want of room to wait, "refused" if no row can hold it, "lost" if it still waited at the end.
    ``on_written`` is told of the bytes of each group.
    """

    def __init__(
        self,
        database: Database,
        compress_from: int,
        limits: WriteLimits,
        clock: Callable[[], float],
        on_fault: OnFault,
        on_written: Callable[[int], None],
        backoff: Backoff,
    ):
        self._database = database
        self._packer = Packer(compress_from)
        self._upsert, self._columns = _upsert_statement(database)
        self._size = self._columns.index("size")
        self._clock = clock
        self._on_fault = on_fault
        self._on_written = on_written
        self.breaker = breaker("sql", "writing", on_fault, backoff)
        self.waiting: WriteBehind[Entry] = WriteBehind(
            "cache writer",
            self._write,
            self.breaker,
            limits,
            key=attrgetter("key"),
            size=attrgetter("size"),
            lost=self._lose,
        )
        self._notes: WriteBehind[_Used | _Damaged] = WriteBehind(
            "cache notes",
            self._write_notes,
            self.breaker,
            replace(_NOTES, linger=limits.linger),
            key=lambda note: (type(note), note.key),
        )

    def open(self) -> None:
        """Begins to write."""
        self.waiting.open()
        self._notes.open()

    def note_use(self, key: bytes) -> None:
        """Notes that a row was used now."""
        self._notes.put(_Used(key, self._clock()))

    def discard(self, key: bytes, digest: bytes) -> None:
        """Deletes a broken row soon, unless it was replaced."""
        self._notes.put(_Damaged(key, digest))

    def matching(self, selector: Selector) -> list[Entry]:
        """What ``selector`` means of what waits."""
        return [entry for entry in self.waiting if matches(selector, entry)]

    def forget(self, selector: Selector) -> list[Entry]:
        """Removes what ``selector`` means of what waits, and returns it."""
        gone = self.matching(selector)
        for entry in gone:
            self.waiting.discard(entry.key)
        return gone

    async def drained(self) -> None:
        """Waits until nothing waits. While the database fails, that is as long as it fails."""
        await self.waiting.settle()
        await self._notes.settle()

    async def close(self, limit: float) -> None:
        """Writes what waits, at most ``limit`` seconds long."""
        await asyncio.gather(self.waiting.close(limit), self._notes.close(limit))

    def _lose(self, count: int, why: Loss) -> None:
        for _ in range(count):
            self._on_fault("sql", _LOST[why])

    async def _write(self, group: Sequence[Entry]) -> None:
        rows = await self._packed(group)
        async with self._database.write() as connection:
            await self._database.dialect.take_turn(connection, TURN, shared=True)
            flushed = await flushed_since(connection, (entry for entry, _ in rows), self._database.generation)
            kept = [row for entry, row in rows if entry.key not in flushed]
            if kept:
                await connection.exec_driver_sql(self._upsert, kept)
        self._on_written(sum(row[self._size] for _, row in rows))
        self._lose(len(group) - len(rows), Loss.REFUSED)

    async def _packed(self, group: Sequence[Entry]) -> list[_Row]:
        """Rows, in the order of their keys, so that processes which write the same ones never lock each other out.

        A few at a time on the loop, which takes less than it takes a thread to get its turn for each of them; a large
        one on a thread.
        """
        now, rows, size = self._clock(), list[_Row](), 0
        for entry in sorted(group, key=attrgetter("key")):
            size += entry.size
            if entry.size > _DIRECT_BYTES:
                rows += await asyncio.to_thread(self._pack, entry, now)
            else:
                rows += self._pack(entry, now)
            if size > _DIRECT_BYTES:
                size = 0
                await asyncio.sleep(0)
        return rows

    def _pack(self, entry: Entry, now: float) -> list[_Row]:
        """The row of an entry, [] if none can hold it."""
        with contextlib.suppress(Unstorable):
            row = values(entry, self._packer.pack(entry), now)
            return [(entry, tuple(row[column] for column in self._columns))]
        return []

    async def _write_notes(self, notes: Sequence[_Used | _Damaged]) -> None:
        # in the order of their keys, as above
        used = sorted((note.key, note.at) for note in notes if isinstance(note, _Used))
        damaged = sorted((note.key, note.digest) for note in notes if isinstance(note, _Damaged))
        async with self._database.write() as connection:
            await self._database.dialect.take_turn(connection, TURN, shared=True)
            if used:
                await connection.execute(TOUCH, [{"at": key, "now": at} for key, at in used])
            if damaged:
                await connection.execute(DISCARD, [{"at": key, "was": digest} for key, digest in damaged])


def _upsert_statement(database: Database) -> tuple[str, Sequence[str]]:
    """The statement as the driver takes it, and the order of its values: building it anew costs more than the rows."""
    columns = [column.name for column in entries.columns if not column.primary_key]
    compiled = database.dialect.upsert(entries, "key").compile(dialect=database.engine.dialect, column_keys=columns)
    return str(compiled), compiled.positiontup or columns


#: seconds after which a look-up is a miss
_LOOKUP_SECONDS = 0.5
#: seconds by which the noted time of last use may lag: it decides about evictions days later
_TOUCH_SECONDS = 600.0
#: from this size on a body is unpacked on a thread, because it takes longer than a hop there
_LARGE_BYTES = 256 * 1024
#: rows deleted in one transaction
_CHUNK = 500


class SqlTier:
    """The ``Tier`` in a database. ``clock`` gives Unix seconds.

    ``on_fault(tier, kind)`` takes every fault (``database.faults.DatabaseFault``, and the kinds of ``EntryWriter``).
    ``census_seconds`` is how old the figures of ``stats`` may be.
    """

    name = "sql"
    reason = Reason.SQL
    local = False

    def __init__(
        self,
        database: Database,
        *,
        compress_from: int,
        clock: Callable[[], float],
        on_fault: OnFault,
        limits: WriteLimits = LIMITS,
        census_seconds: float = 5.0,
        backoff: Backoff = BACKOFF,
    ):
        self._database = database
        self._clock = clock
        self._writer = EntryWriter(database, compress_from, limits, clock, on_fault, self._wrote, backoff)
        self._breaker = breaker(self.name, "reading", on_fault, backoff)
        self._unpacker = Unpacker()
        self._one = database.point_query(FIND, KEY)
        self._short = database.point_query(FIND_SHORT, KEY)
        self._many = database.point_query(FIND_MANY, KEYS)
        self._holds = database.point_query(HOLDS_MANY, KEYS)
        #: bytes that sweeps have given back to the file system since start
        self.reclaimed = 0
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
        self._writer.open()

    def peek(self, key: bytes) -> Entry | None:
        """The entry if it still waits to be written."""
        return self._writer.waiting.find(key)

    touch = peek

    def keep(self, entry: Entry) -> None:
        """The entry is visible at once and written soon."""
        self._writer.waiting.put(entry)

    def local_keys(self) -> list[bytes]:
        return [entry.key for entry in self._writer.waiting]

    async def get(self, key: bytes) -> Entry | None:
        waiting = self.peek(key)
        if waiting is not None:
            return waiting
        rows = None if self._breaker.open else self._database.rows_at_once(self._short, (key,))
        if rows is None or (rows and rows[0][-1] is None):
            rows = await self._rows(self._one, (key,))
        return await self._entry(rows[0]) if rows else None

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

    def matching(self, selector: Selector) -> list[Entry]:
        """What ``selector`` means of what waits to be written."""
        return self._writer.matching(selector)

    def forget(self, selector: Selector) -> list[Entry]:
        """Removes what ``selector`` means of what waits to be written, and returns it."""
        return self._writer.forget(selector)

    async def flush(self, selector: Selector, *, dry_run: bool = False, seal: Seal | None = None) -> Flushed:
        """What waits is forgotten at once, whatever becomes of the rest; ``failed`` says that rows may be left.

        ``seal`` writes into the transaction that deletes the last of the rows. Raises ``ValueError`` for a prefix that
        is none.
        """
        where = chosen(selector, self._database.dialect)
        waiting = self._writer.matching(selector) if dry_run else self._writer.forget(selector)
        # a batch on its way may hold what was just forgotten: it must have become rows before rows are deleted, and
        # nothing may become a row between the two counts
        async with self._writer.waiting.paused():
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
        """Deletes a few hundred rows at a time, so that other writers get their turns."""
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
        """The rows, or none if the database fails."""
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
            self._writer.note_use(key)
        return entry
