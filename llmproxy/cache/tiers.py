"""The cache as the proxy sees it: the memory tier in front of the SQL tier."""

import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol, TypeVar

from llmproxy.cache.entry import Entry
from llmproxy.cache.flush import FlushLog
from llmproxy.cache.health import Health, OnFault
from llmproxy.cache.listing import Listing
from llmproxy.cache.memory import MemoryTier
from llmproxy.cache.periodic import Periodic
from llmproxy.cache.selection import before, key_range, matches
from llmproxy.cache.sql import SqlTier
from llmproxy.cache.sweep import Sweep
from llmproxy.cache.tier import Flushed, Selector, Tier, TierStats
from llmproxy.config.settings import Settings
from llmproxy.database.engine import Database

A = TypeVar("A")
T = TypeVar("T")

#: flushes that are held against answers under way
_FLUSHES = 64
#: seconds after which a flush in another process is known here
_FOLLOW_SECONDS = 1.0


class BackTier(Tier, Protocol):
    """What the tier behind memory can do beside."""

    def keep(self, entry: Entry) -> None:
        """``put`` without waiting for it."""
        ...

    def peek(self, key: bytes) -> Entry | None:
        """The entry, if it can be had without waiting."""
        ...

    async def holds(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which of these keys have an entry here."""
        ...

    async def lookup(self, prefix: str) -> Entry | None:
        """An entry whose key begins with these hex digits."""
        ...

    def evictions(self) -> dict[str, int]:
        """What left the tier since start, by reason."""
        ...


class Cache:
    """Look-ups from the top down, stores into every tier. Either tier may be None: one of size 0 is not built.

    No fault of the tier behind reaches a caller: a look-up is a miss, a store is not kept, ``Flushed.failed`` names it.
    ``clock`` gives Unix seconds.
    """

    def __init__(
        self,
        memory: MemoryTier | None,
        back: BackTier | None,
        *,
        log: FlushLog | None,
        clock: Callable[[], float],
        on_fault: OnFault,
    ):
        self.memory = memory
        self.back = back
        self.sweep: Sweep | None = None
        #: None where nothing is kept in a database
        self.listing: Listing | None = None
        self._log = log
        self._clock = clock
        self._on_fault = on_fault
        self._generation = 0
        #: the last flushes and when they were (Unix seconds), for answers that are being made
        self._flushed: deque[tuple[Selector, float]] = deque(maxlen=_FLUSHES)
        self._health = Health(SqlTier.name, "answering", on_fault, time.monotonic)
        # grows with every flush: what was looked up before one is not promoted after it
        self._epoch = 0

    def peek(self, key: bytes) -> Entry | None:
        """The entry, if it can be had without waiting; not counted as use."""
        entry = self.memory.peek(key) if self.memory is not None else None
        if entry is None and self.back is not None:
            entry = self._now(self.back.peek, key)
        return entry

    def touch(self, key: bytes) -> Entry | None:
        """The memory tier's entry, from now on the most recently used."""
        return self.memory.find(key) if self.memory is not None else None

    async def find(self, key: bytes) -> tuple[Entry, str] | None:
        """The entry and the name of the tier that had it; stale ones too, the caller decides."""
        entry = self.memory.find(key) if self.memory is not None else None
        if entry is not None:
            return entry, MemoryTier.name
        if self.back is None:
            return None
        epoch = self._epoch
        entry = await self._asked(self.back.get(key), None)
        if entry is None:
            return None
        self._promote([entry], epoch)
        return entry, self.back.name

    async def find_many(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        """The entries of those keys that have one; stale ones too."""
        found: dict[bytes, Entry] = await self.memory.get_many(keys) if self.memory is not None else {}
        missing = [key for key in keys if key not in found]
        if missing and self.back is not None:
            epoch = self._epoch
            behind: dict[bytes, Entry] = await self._asked(self.back.get_many(missing), {})
            self._promote(behind.values(), epoch)
            found.update(behind)
        return found

    def store(self, entry: Entry) -> None:
        """Keeps ``entry``: in memory now, in the SQL tier soon. Not one that was flushed while it was being made."""
        begun = entry.created - entry.upstream_seconds
        if any(moment > begun and matches(selector, entry) for selector, moment in self._flushed):
            return
        self.remember(entry)
        if self.back is not None:
            self._now(self.back.keep, entry)

    def remember(self, entry: Entry) -> None:
        """Keeps ``entry`` in memory only."""
        if self.memory is not None:
            self.memory.keep(entry)

    async def flush(self, selector: Selector, *, dry_run: bool = False) -> Flushed:
        """Removes entries from every tier and, within a second, from every other process.

        An entry in both tiers counts once. Raises ``ValueError`` for a prefix that is none.
        """
        if selector.prefix is not None:
            key_range(selector.prefix)
        if not dry_run:
            self._epoch += 1
            self._flushed.append((selector, self._clock()))
        front: list[Entry] = []
        if self.memory is not None:
            front = self.memory.matching(selector) if dry_run else self.memory.forget(selector)
        untold = () if dry_run else await self._tell(selector)
        if self.back is None:
            return Flushed(len(front), sum(entry.size for entry in front), untold)
        held: set[bytes] = await self._asked(self.back.holds([entry.key for entry in front]), set())
        front = [entry for entry in front if entry.key not in held]
        behind = await self._asked(self.back.flush(selector, dry_run=dry_run), Flushed(failed=(self.back.name,)))
        self._epoch += not dry_run
        if self.listing is not None:
            self.listing.forget()
        size = behind.bytes + sum(entry.size for entry in front)
        return Flushed(behind.entries + len(front), size, untold or behind.failed)

    async def follow(self) -> None:
        """Forgets what other processes have flushed since the last time. Raises what the database raises."""
        if self._log is None:
            return
        self._notice(self._log.generation)
        for selector, moment in await self._log.news():
            self._epoch += 1
            self._flushed.append((selector, moment))
            if self.memory is not None:
                self.memory.forget(selector)
            if self.back is not None:
                # what this process had not yet written when the other one deleted
                await self.back.flush(before(selector, moment))
            self._epoch += 1

    def _notice(self, generation: int) -> None:
        """Counts a database that is not the one of before: its file was deleted, or replaced."""
        if 0 < self._generation < generation:
            self._on_fault(SqlTier.name, "replaced")
        self._generation = generation

    async def stats(self) -> dict[str, TierStats]:
        """By tier, top down."""
        stats: dict[str, TierStats] = {}
        if self.memory is not None:
            stats[self.memory.name] = await self.memory.stats()
        if self.back is not None:
            stats[self.back.name] = await self._asked(self.back.stats(), TierStats(0, 0, None, {}))
        return stats

    def evictions(self) -> dict[str, dict[str, int]]:
        """What left each tier since start, by reason, without asking the database."""
        tiers = (self.memory, self.back)
        return {tier.name: tier.evictions() for tier in tiers if tier is not None}

    async def lookup(self, prefix: str) -> Entry | None:
        """An entry whose key begins with these hex digits. Raises ``ValueError`` for what are none."""
        first, last = key_range(prefix)
        for entry in self.memory or ():
            if first <= entry.key <= last:
                return entry
        return await self._asked(self.back.lookup(prefix), None) if self.back is not None else None

    @property
    def reclaimed(self) -> int:
        """Bytes that sweeps have given back to the file system since start."""
        return 0 if self.sweep is None else self.sweep.reclaimed

    def in_memory(self) -> list[bytes]:
        """The keys that the memory tier answers."""
        return [entry.key for entry in self.memory] if self.memory is not None else []

    def _promote(self, entries: Iterable[Entry], epoch: int) -> None:
        if self.memory is not None and epoch == self._epoch:
            now = self._clock()
            for entry in entries:
                if entry.expires > now and self.memory.peek(entry.key) is None:
                    self.memory.keep(entry)

    async def _tell(self, selector: Selector) -> tuple[str, ...]:
        """Writes the log. Returns the tiers of others that will not hear of it."""
        if self._log is None:
            return ()
        told = await self._asked(self._log.append(selector), 0)
        return () if told else (SqlTier.name,)

    def _now(self, call: Callable[[A], T], argument: A) -> T | None:
        try:
            return call(argument)
        except Exception as error:  # noqa: BLE001 - a tier that breaks its contract must not break a request
            self._health.failed(error)
            return None

    async def _asked(self, answer: Awaitable[T], otherwise: T) -> T:
        try:
            result = await answer
        except Exception as error:  # noqa: BLE001 - as above
            self._health.failed(error)
            return otherwise
        self._health.worked()
        return result


@asynccontextmanager
async def open_cache(
    settings: Settings, database: Database, on_fault: OnFault, clock: Callable[[], float] = time.time
) -> AsyncIterator[Cache]:
    """The cache that the settings describe, with everything it does in the background.

    ``on_fault(tier, kind)`` is told of every fault. ``clock`` gives Unix seconds. At the end what waits is written,
    within a limit; close the database after it.
    """
    memory = None
    if settings.cache_max_size > 0 and settings.cache_max_bytes > 0:
        memory = MemoryTier(settings.cache_max_size, settings.cache_max_bytes, clock)
    async with AsyncExitStack() as stack:
        back = None
        if settings.cache_disk_bytes > 0:
            tier = SqlTier(database, compress_from=settings.cache_compress_bytes, clock=clock, on_fault=on_fault)
            back = await stack.enter_async_context(tier)
        cache = Cache(memory, back, log=FlushLog(database, clock), clock=clock, on_fault=on_fault)
        follow = Periodic("following flushes", _FOLLOW_SECONDS, cache.follow, on_fault)
        # opens the database, so that the first request finds it open
        await follow.once()
        await stack.enter_async_context(follow)
        if back is not None:
            sweep = Sweep(
                database,
                back,
                max_bytes=settings.cache_disk_bytes,
                in_use=cache.in_memory,
                clock=clock,
                stale_seconds=settings.cache_stale_hours * 3600.0,
            )
            await stack.enter_async_context(Periodic("sweeping", settings.cache_sweep_seconds, sweep, on_fault))
            cache.sweep = sweep
            cache.listing = Listing(database, back.drained, clock)
        yield cache
