"""The cache as the proxy sees it: a list of tiers behind one interface, and the flushes of all processes."""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.cache.browse import EntryBrowser
from llmproxy.cache.entry import Entry, Position
from llmproxy.cache.flush_log import FlushLog, Lease
from llmproxy.cache.memory import MemoryTier
from llmproxy.cache.sql import DRAIN_SECONDS, SqlTier
from llmproxy.cache.sweep import Sweep
from llmproxy.cache.tier import (
    Flushed,
    NullTier,
    OnFault,
    Selector,
    Tier,
    TierStats,
    breaker,
    key_range,
    matches,
    matches_begun,
)
from llmproxy.config.settings import Settings
from llmproxy.database.breaker import CircuitBreaker
from llmproxy.database.engine import Database
from llmproxy.runtime.background import Backoff, Periodic
from llmproxy.wire.vocabulary import Reason

A = TypeVar("A")
T = TypeVar("T")

#: what faults of the log are counted under: the database's
_LOG = SqlTier.name
#: a key that no entry has
_NOBODYS = bytes(32)
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


class Cache:
    """Looks through ``tiers`` from the top down, and stores into each of them.

    No fault of a tier reaches a caller: a look-up is a miss, a store is not kept, ``Flushed.failed`` names it.
    ``clock`` gives Unix seconds.
    """

    def __init__(
        self, tiers: Sequence[Tier], *, log: FlushLog | None, clock: Callable[[], float], on_fault: OnFault
    ) -> None:
        self.tiers = tuple(tiers)
        #: None where nothing is kept in a database
        self.listing: EntryBrowser | None = None
        self._front: Tier = next((tier for tier in tiers if tier.local), NullTier())
        self._log = log
        self._clock = clock
        self._on_fault = on_fault
        #: keeps later callers from joining upstream calls that are under way
        self.part: Callable[[], None] = lambda: None
        self._generation = 0
        #: the last flushes, for answers that are being made
        self._flushed: deque[_Done] = deque(maxlen=_FLUSHES)
        self._breakers = {tier: breaker(tier.name, "answering", on_fault) for tier in tiers}
        self._log_breaker = breaker(_LOG, "answering", on_fault)
        # grows with every flush: what was looked up before one is not promoted after it
        self._epoch = 0
        self._following = asyncio.Lock()
        self._lease = Lease()
        if log is None:
            self._lease.until = math.inf

    @property
    def is_current(self) -> bool:
        """Whether every flush that was answered, by whatever process, is known here."""
        return time.monotonic() < self._lease.until

    def position(self) -> Position:
        """To be taken when an answer is begun, and given with it to ``store``."""
        generation, number = (0, 0) if self._log is None else (self._log.generation, self._log.number)
        return Position(self._epoch, generation, number, time.monotonic())

    def still_holds(self, entry: Entry, since: Position) -> bool:
        """Whether an entry that was found ``since`` then may still be served."""
        return self.is_current and not self._is_flushed(entry, since.epoch)

    def peek(self, key: bytes) -> Entry | None:
        """The entry, if it can be had without waiting; not counted as use."""
        if self.is_current:
            for tier in self.tiers:
                try:
                    entry = tier.peek(key)
                except Exception as error:  # noqa: BLE001 - a tier that breaks its contract must not break a request
                    self._breakers[tier].failed(error)
                    continue
                if entry is not None:
                    return entry
        return None

    def touch(self, key: bytes) -> Entry | None:
        """The entry of the first tier that is this process's alone, used now."""
        return self._front.touch(key) if time.monotonic() < self._lease.until else None

    async def find(self, key: bytes) -> tuple[Entry, Reason] | None:
        """The entry, and why it is a hit; stale ones too, the caller decides."""
        if not self.is_current and not await self._catch_up():
            return None
        for tier in self.tiers:
            try:
                entry = tier.touch(key)
            except Exception as error:  # noqa: BLE001 - as above
                self._breakers[tier].failed(error)
                continue
            if entry is not None:
                return entry, tier.reason
        for tier in self.tiers:
            if tier.local:
                continue
            epoch = self._epoch
            entry = await self._guard(tier, tier.get(key), None)
            if entry is not None and not self._is_flushed(entry, epoch):
                self._promote([entry], tier, epoch)
                return entry, tier.reason
        return None

    async def find_many(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        """The entries of those keys that have one; stale ones too."""
        if not self.is_current and not await self._catch_up():
            return {}
        found: dict[bytes, Entry] = {}
        missing = keys
        for tier in self.tiers:
            if not missing:
                break
            epoch = self._epoch
            entries: dict[bytes, Entry] = await self._guard(tier, tier.get_many(missing), {})
            entries = {key: entry for key, entry in entries.items() if not self._is_flushed(entry, epoch)}
            self._promote(entries.values(), tier, epoch)
            found.update(entries)
            missing = [key for key in missing if key not in found]
        return found

    def store(self, entry: Entry, begun: Position | None = None) -> None:
        """Keeps ``entry``: visible now, in a database soon. Not one that was flushed since it was ``begun``."""
        begun = begun or self.position()
        if self._is_parted(entry, begun):
            return
        entry = entry.begun_at(begun)
        for tier in self.tiers:
            self._call(tier, tier.keep, entry)

    async def flush(self, selector: Selector, *, dry_run: bool = False) -> Flushed:
        """Removes entries from every tier and every process, and what was begun before it is kept by none.

        An entry in several tiers counts once: of those that are not ``local`` the one with the most counts. Raises
        ``ValueError`` for a prefix that is none.
        """
        if selector.prefix is not None:
            key_range(selector.prefix)
        number = 0

        async def seal(connection: AsyncConnection) -> None:
            nonlocal number
            if self._log is not None:
                number = await self._log.write(connection, selector)

        local_entries: dict[bytes, Entry] = {}
        for tier in self.tiers:
            if tier.local:
                local_entries |= {entry.key: entry for entry in self._call(tier, tier.matching, selector) or ()}
        removed: list[Flushed] = []
        for tier in self.tiers:
            if not tier.local:
                for key in await self._guard(tier, tier.holds(list(local_entries)), set()):
                    del local_entries[key]
                failed = Flushed(failed=(tier.name,))
                removed.append(await self._guard(tier, tier.flush(selector, dry_run=dry_run, seal=seal), failed))
        names = [name for each in removed for name in each.failed]
        if self._log is not None and not dry_run and not number and _LOG not in names:
            # no tier has taken the line into its transaction
            number = await self._logged(self._log.append(selector), 0)
            names += [] if number else [_LOG]
        most = max(removed, key=lambda each: each.entries, default=Flushed())
        size = most.bytes + sum(entry.size for entry in local_entries.values())
        flushed = Flushed(most.entries + len(local_entries), size, failed=tuple(names))
        if dry_run:
            return flushed
        # a line that was written in a transaction that failed is none
        return await self._carried_out(selector, 0 if _LOG in names else number, flushed)

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
        late = await self._logged(self._log.unconfirmed(number), ("",))
        return replace(flushed, unconfirmed=late)

    async def follow(self) -> None:
        """Carries out what was flushed since the last time, and says so. Raises what the database raises."""
        if self._log is None:
            return
        async with self._following:
            try:
                news = await self._log.news()
            except Exception:
                # whatever it is, this process has not heard of the newest flushes, and must not answer for long
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
            await self._logged(self._log.close(), None)

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
        for tier in self.tiers:
            self._call(tier, tier.forget, selector)

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
            done.epoch > begun.epoch and matches_begun(done.selector, entry, done.at - begun.at)
            for done in self._flushed
        )

    def _is_forgotten(self, epoch: int) -> bool:
        """Whether it is no longer known what was flushed after ``epoch``."""
        return bool(self._flushed) and self._flushed[0].epoch > epoch + 1

    def _notice(self, generation: int) -> None:
        """Counts a database that is not the one of before: its file was deleted, or replaced."""
        if 0 < self._generation < generation:
            self._on_fault(_LOG, "replaced")
        self._generation = generation

    async def stats(self) -> dict[str, TierStats]:
        """By tier, top down."""
        return {tier.name: await self._guard(tier, tier.stats(), TierStats(0, 0, None, {})) for tier in self.tiers}

    async def latencies(self) -> dict[str, float]:
        """Seconds that a look-up takes, by tier."""
        seconds: dict[str, float] = {}
        for tier in self.tiers:
            began = time.perf_counter()
            await self._guard(tier, tier.get(_NOBODYS), None)
            seconds[tier.name] = time.perf_counter() - began
        return seconds

    def evictions(self) -> dict[str, dict[str, int]]:
        """What left each tier since start, by reason, without asking the database."""
        return {tier.name: tier.evictions() for tier in self.tiers}

    async def lookup(self, prefix: str) -> Entry | None:
        """An entry whose key begins with these hex digits. Raises ``ValueError`` for what are none."""
        key_range(prefix)
        current = await self._catch_up()
        for tier in self.tiers:
            if current or not tier.local:
                entry = await self._guard(tier, tier.lookup(prefix), None)
                if entry is not None:
                    return entry
        return None

    @property
    def reclaimed(self) -> int:
        """Bytes that were given back to the file system since start."""
        return sum(tier.reclaimed for tier in self.tiers)

    def _promote(self, entries: Iterable[Entry], found: Tier, epoch: int) -> None:
        """Keeps entries in the tiers above the one that had them, unless they are past their lifetime."""
        if found is self.tiers[0] or epoch != self._epoch:
            return
        now = self._clock()
        for entry in entries:
            if entry.expires > now:
                for tier in self.tiers[: self.tiers.index(found)]:
                    if self._call(tier, tier.peek, entry.key) is None:
                        self._call(tier, tier.keep, entry)

    def _call(self, tier: Tier, call: Callable[[A], T], argument: A) -> T | None:
        try:
            return call(argument)
        except Exception as error:  # noqa: BLE001 - a tier that breaks its contract must not break a request
            self._breakers[tier].failed(error)
            return None

    async def _guard(self, tier: Tier, answer: Awaitable[T], otherwise: T) -> T:
        return await _guarded(self._breakers[tier], answer, otherwise)

    async def _logged(self, answer: Awaitable[T], otherwise: T) -> T:
        return await _guarded(self._log_breaker, answer, otherwise)


async def _guarded(breaker: CircuitBreaker, answer: Awaitable[T], otherwise: T) -> T:
    try:
        result = await answer
    except Exception as error:  # noqa: BLE001 - a tier that breaks its contract must not break a request
        breaker.failed(error)
        return otherwise
    breaker.succeeded()
    return result


@dataclass(frozen=True, slots=True)
class TierContext:
    """What a tier is made from. ``clock`` gives Unix seconds, ``left`` the seconds that there are at the end.

    ``in_front`` gives the keys that the tiers above answer.
    """

    settings: Settings
    database: Database
    on_fault: OnFault
    clock: Callable[[], float]
    left: Callable[[], float]
    in_front: Callable[[], list[bytes]]


@asynccontextmanager
async def _memory(context: TierContext) -> AsyncIterator[Tier]:
    settings = context.settings
    yield MemoryTier(settings.cache_max_size, settings.cache_max_bytes, context.clock)


@asynccontextmanager
async def _sql(context: TierContext) -> AsyncIterator[Tier]:
    settings, on_fault = context.settings, context.on_fault
    tier = SqlTier(
        context.database, compress_from=settings.cache_compress_bytes, clock=context.clock, on_fault=on_fault
    )
    sweep = Sweep(
        context.database,
        tier,
        max_bytes=settings.cache_disk_bytes,
        in_use=context.in_front,
        clock=context.clock,
        stale_seconds=settings.cache_stale_hours * 3600.0,
    )
    sweeping = _periodic("sweeping", settings.cache_sweep_seconds, sweep, on_fault)
    sweep.wake = sweeping.wake
    tier.open()
    try:
        async with sweeping:
            yield tier
    finally:
        await tier.close(min(context.left(), DRAIN_SECONDS))


class TierKind(NamedTuple):
    """``bytes`` is its bound by the settings: a tier of none is not made."""

    bytes: Callable[[Settings], int]
    open: Callable[[TierContext], AbstractAsyncContextManager[Tier]]


#: the tiers from the top down: another one is a file beside this one and a row here
TIERS: dict[str, TierKind] = {
    MemoryTier.name: TierKind(lambda settings: settings.cache_max_bytes if settings.cache_max_size else 0, _memory),
    SqlTier.name: TierKind(lambda settings: settings.cache_disk_bytes, _sql),
}


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
    tiers: list[Tier] = []

    def in_front() -> list[bytes]:
        return [key for tier in tiers if tier.local for key in tier.local_keys()]

    context = TierContext(settings, database, on_fault, clock, left, in_front)
    async with AsyncExitStack() as stack:
        kinds = [kind for kind in TIERS.values() if kind.bytes(settings) > 0]
        tiers += [await stack.enter_async_context(kind.open(context)) for kind in kinds]
        cache = Cache(tiers, log=FlushLog(database), clock=clock, on_fault=on_fault)
        stack.push_async_callback(cache.leave)
        follow = _periodic("following flushes", _FOLLOW_SECONDS, cache.follow, on_fault, _FOLLOW_AGAIN)
        # opens the database, so that the first request finds it open
        await follow.once()
        await stack.enter_async_context(follow)
        stored = next((tier for tier in tiers if isinstance(tier, SqlTier)), None)
        cache.listing = None if stored is None else EntryBrowser(database, stored.drained, clock)
        yield cache


def _periodic(
    name: str, seconds: float, work: Callable[[], Awaitable[object]], on_fault: OnFault, retry: Backoff | None = None
) -> Periodic:
    return Periodic(f"cache {name}", seconds, work, observer=breaker(_LOG, name, on_fault), retry=retry)
