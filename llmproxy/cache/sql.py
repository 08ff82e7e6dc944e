"""The SQL tier: written behind in groups, read past SQLAlchemy, and a miss whenever its database fails."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.cache.codec import FORMAT, Broken, Packed, Unpacker
from llmproxy.cache.entry import Entry
from llmproxy.cache.flush_log import TURN
from llmproxy.cache.selection import key_range
from llmproxy.cache.statements import (
    CENSUS,
    FIND,
    FIND_MANY,
    FIRST,
    HOLDS_MANY,
    KEY,
    KEYS,
    chosen,
    chunks,
    count,
    delete_some,
)
from llmproxy.cache.tier import Flushed, OnFault, Selector, TierStats, breaker
from llmproxy.cache.writer import DRAIN_SECONDS, CacheWriter, WriteLimits
from llmproxy.database.engine import Database
from llmproxy.database.reads import PointQuery, Rows

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
    ):
        self._database = database
        self._clock = clock
        self._writer = CacheWriter(database, compress_from, limits or WriteLimits(), clock, on_fault, self._wrote)
        self._breaker = breaker(self.name, "reading", on_fault)
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
