"""The cache as the proxy sees it: the memory tier in front of the SQL tier."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.cache.browse import EntryBrowser
from llmproxy.cache.entry import Entry, Position
from llmproxy.cache.flush_log import FlushLog, Lease
from llmproxy.cache.memory import MemoryTier
from llmproxy.cache.sql import DRAIN_SECONDS, Seal, SqlTier
from llmproxy.cache.sweep import Sweep
from llmproxy.cache.tier import Flushed, OnFault, Selector, Tier, TierStats, breaker, key_range, matches, means_begun
from llmproxy.config.settings import Settings
from llmproxy.database.engine import Database
from llmproxy.runtime.background import Backoff, Periodic

A = TypeVar("A")
T = TypeVar("T")

#: flushes that are held against answers under way
_FLUSHES = 1000
#: seconds after which a flush in another process is known here
_FOLLOW_SECONDS = 0.25
#: the same while the database fails: less than the lease, after which nothing is answered from memory
_FOLLOW_AGAIN = Backoff(first=1.0, longest=1.0)
#: seconds for which a look-up waits until it is known what was flushed while this process stood still
_CATCH_UP_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class _Done:
    """A flush that was carried out here. ``at`` is in monotonic seconds."""

    epoch: int
    selector: Selector
    at: float


class BackTier(Tier, Protocol):
    """What the tier behind memory can do beside."""

    def keep(self, entry: Entry) -> None:
        """``put`` without waiting for it."""
        ...

    def peek(self, key: bytes) -> Entry | None:
        """The entry, if it can be had without waiting."""
        ...

    def forget(self, selector: Selector) -> list[Entry]:
        """Removes what ``selector`` means of what waits to be written, and returns it."""
        ...

    async def flush(self, selector: Selector, *, dry_run: bool = False, seal: Seal | None = None) -> Flushed:
        """``seal`` writes into the transaction that deletes the last of the rows."""
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
        self.listing: EntryBrowser | None = None
        self._log = log
        self._clock = clock
        self._on_fault = on_fault
        #: keeps later callers from joining upstream calls that are under way
        self.part: Callable[[], None] = lambda: None
        self._generation = 0
        #: the last flushes, for answers that are being made
        self._flushed: deque[_Done] = deque(maxlen=_FLUSHES)
        self._breaker = breaker(SqlTier.name, "answering", on_fault)
        # grows with every flush: what was looked up before one is not promoted after it
        self._epoch = 0
        self._following = asyncio.Lock()
        self._lease = Lease()

    @property
    def is_current(self) -> bool:
        """Whether every flush that was answered, by whatever process, is known here."""
        return self._log is None or self._lease.stands

    def position(self) -> Position:
        """To be taken when an answer is begun, and given with it to ``store``."""
        generation, number = (0, 0) if self._log is None else (self._log.generation, self._log.number)
        return Position(self._epoch, generation, number, time.monotonic())

    def still_holds(self, entry: Entry, since: Position) -> bool:
        """Whether an entry that was found ``since`` then may still be served."""
        return self.is_current and not self._is_flushed(entry, since.epoch)

    def peek(self, key: bytes) -> Entry | None:
        """The entry, if it can be had without waiting; not counted as use."""
        if not self.is_current:
            return None
        entry = self.memory.peek(key) if self.memory is not None else None
        if entry is None and self.back is not None:
            entry = self._now(self.back.peek, key)
        return entry

    def touch(self, key: bytes) -> Entry | None:
        """The memory tier's entry, from now on the most recently used."""
        return self.memory.find(key) if self.memory is not None and self.is_current else None

    async def find(self, key: bytes) -> tuple[Entry, str] | None:
        """The entry and the name of the tier that had it; stale ones too, the caller decides."""
        if not await self._catch_up():
            return None
        entry = self.memory.find(key) if self.memory is not None else None
        if entry is not None:
            return entry, MemoryTier.name
        if self.back is None:
            return None
        epoch = self._epoch
        entry = await self._asked(self.back.get(key), None)
        if entry is None or self._is_flushed(entry, epoch):
            return None
        self._promote([entry], epoch)
        return entry, self.back.name

    async def find_many(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        """The entries of those keys that have one; stale ones too."""
        if not await self._catch_up():
            return {}
        found: dict[bytes, Entry] = await self.memory.get_many(keys) if self.memory is not None else {}
        missing = [key for key in keys if key not in found]
        if missing and self.back is not None:
            epoch = self._epoch
            behind: dict[bytes, Entry] = await self._asked(self.back.get_many(missing), {})
            behind = {key: entry for key, entry in behind.items() if not self._is_flushed(entry, epoch)}
            self._promote(behind.values(), epoch)
            found.update(behind)
        return found

    def store(self, entry: Entry, begun: Position | None = None) -> None:
        """Keeps ``entry``: in memory now, in the SQL tier soon. Not one that was flushed since it was ``begun``."""
        begun = begun or self.position()
        if self._is_parted(entry, begun):
            return
        self.remember(entry)
        if self.back is not None:
            self._now(self.back.keep, replace(entry, begun=begun))

    def remember(self, entry: Entry) -> None:
        """Keeps ``entry`` in memory only."""
        if self.memory is not None:
            self.memory.keep(entry)

    async def flush(self, selector: Selector, *, dry_run: bool = False) -> Flushed:
        """Removes entries from every tier and every process, and what was begun before it is kept by none.

        An entry in both tiers counts once. Raises ``ValueError`` for a prefix that is none.
        """
        if selector.prefix is not None:
            key_range(selector.prefix)
        front = self.memory.matching(selector) if self.memory is not None else []
        number = 0

        async def seal(connection: AsyncConnection) -> None:
            nonlocal number
            if self._log is not None:
                number = await self._log.write(connection, selector)

        if self.back is not None:
            held: set[bytes] = await self._asked(self.back.holds([entry.key for entry in front]), set())
            front = [entry for entry in front if entry.key not in held]
            failed = Flushed(failed=(self.back.name,))
            behind = await self._asked(self.back.flush(selector, dry_run=dry_run, seal=seal), failed)
        else:
            behind = Flushed()
            if self._log is not None and not dry_run:
                number = await self._asked(self._log.append(selector), 0)
                behind = Flushed(failed=() if number else (SqlTier.name,))
        size = behind.bytes + sum(entry.size for entry in front)
        flushed = replace(behind, entries=behind.entries + len(front), bytes=size)
        if dry_run:
            return flushed
        # a line that was written in a transaction that failed is none
        return await self._carried_out(selector, 0 if flushed.failed else number, flushed)

    async def _carried_out(self, selector: Selector, number: int, flushed: Flushed) -> Flushed:
        """After line ``number`` of the log was written, or 0 if it could not be."""
        carried_out = False
        if self._log is not None and number:
            # in the order of the log, with what others have flushed before it
            with suppress(Exception):
                await self.follow()
                carried_out = True
        if not carried_out:
            self._carry_out(selector)
        if self.listing is not None:
            self.listing.forget()
        if self._log is None or not number:
            return flushed
        late = await self._asked(self._log.unconfirmed(number), ("",))
        return replace(flushed, unconfirmed=late)

    async def follow(self) -> None:
        """Carries out what was flushed since the last time, and says so. Raises what the database raises."""
        if self._log is None:
            return
        async with self._following:
            try:
                news = await self._log.news()
            except Exception:
                self._lease.fail(lost=self._log.lost)
                raise
            self._notice(self._log.generation)
            for selector in news:
                self._carry_out(selector)
            self._lease.renew()
            await self._log.confirm()

    async def leave(self) -> None:
        """No flush waits for this process any more. Call it when nothing is answered any more."""
        if self._log is not None:
            await self._asked(self._log.close(), None)

    async def _catch_up(self) -> bool:
        """Whether every flush is known, after a look at the log where this process stood still."""
        if not self.is_current and self._lease.stood_still:
            with suppress(Exception):
                async with asyncio.timeout(_CATCH_UP_SECONDS):
                    await self.follow()
        return self.is_current

    def _carry_out(self, selector: Selector) -> None:
        self._epoch += 1
        self._flushed.append(_Done(self._epoch, selector, time.monotonic()))
        self.part()
        if self.memory is not None:
            self.memory.forget(selector)
        if self.back is not None:
            self._now(self.back.forget, selector)

    def _is_flushed(self, entry: Entry, epoch: int) -> bool:
        """Whether a flush since ``epoch`` means an entry that was there."""
        if epoch == self._epoch:
            return False
        return self._is_forgotten(epoch) or any(
            done.epoch > epoch and matches(done.selector, entry) for done in self._flushed
        )

    def _is_parted(self, entry: Entry, begun: Position) -> bool:
        """Whether a flush means an answer that was begun before it."""
        if begun.epoch == self._epoch:
            return False
        return self._is_forgotten(begun.epoch) or any(
            done.epoch > begun.epoch and means_begun(done.selector, entry, done.at - begun.at) for done in self._flushed
        )

    def _is_forgotten(self, epoch: int) -> bool:
        """Whether it is no longer known what was flushed after ``epoch``."""
        return bool(self._flushed) and self._flushed[0].epoch > epoch + 1

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
        for entry in self.memory or () if await self._catch_up() else ():
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

    def _now(self, call: Callable[[A], T], argument: A) -> T | None:
        try:
            return call(argument)
        except Exception as error:  # noqa: BLE001 - a tier that breaks its contract must not break a request
            self._breaker.failed(error)
            return None

    async def _asked(self, answer: Awaitable[T], otherwise: T) -> T:
        try:
            result = await answer
        except Exception as error:  # noqa: BLE001 - as above
            self._breaker.failed(error)
            return otherwise
        self._breaker.succeeded()
        return result


@asynccontextmanager
async def open_cache(
    settings: Settings,
    database: Database,
    on_fault: OnFault,
    left: Callable[[], float] = lambda: DRAIN_SECONDS,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Cache]:
    """The cache that the settings describe, with everything it does in the background.

    ``on_fault(tier, kind)`` is told of every fault. ``clock`` gives Unix seconds. At the end what waits is written,
    within the seconds that are ``left`` then; close the database after it.
    """
    memory = None
    if settings.cache_max_size > 0 and settings.cache_max_bytes > 0:
        memory = MemoryTier(settings.cache_max_size, settings.cache_max_bytes, clock)
    async with AsyncExitStack() as stack:
        back = None
        if settings.cache_disk_bytes > 0:
            back = SqlTier(database, compress_from=settings.cache_compress_bytes, clock=clock, on_fault=on_fault)
            back.open()
            stack.push_async_callback(_closed, back, left)
        cache = Cache(memory, back, log=FlushLog(database), clock=clock, on_fault=on_fault)
        stack.push_async_callback(cache.leave)
        follow = _periodic("following flushes", _FOLLOW_SECONDS, cache.follow, on_fault, _FOLLOW_AGAIN)
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
            sweeping = _periodic("sweeping", settings.cache_sweep_seconds, sweep, on_fault)
            sweep.wake = sweeping.wake
            await stack.enter_async_context(sweeping)
            cache.sweep = sweep
            cache.listing = EntryBrowser(database, back.drained, clock)
        yield cache


def _periodic(
    name: str, seconds: float, work: Callable[[], Awaitable[object]], on_fault: OnFault, retry: Backoff | None = None
) -> Periodic:
    return Periodic(f"cache {name}", seconds, work, observer=breaker(SqlTier.name, name, on_fault), retry=retry)


async def _closed(tier: SqlTier, left: Callable[[], float]) -> None:
    await tier.close(min(left(), DRAIN_SECONDS))
