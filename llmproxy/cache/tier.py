"""What a cache tier is, how it may fail, and which of its entries a flush means."""

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.cache.entry import Entry
from llmproxy.database.breaker import BACKOFF, CircuitBreaker
from llmproxy.runtime.background import Backoff
from llmproxy.wire.vocabulary import Reason

#: takes a tier's name and the kind of a fault: ``database.faults.DatabaseFault``, or a word for an entry that is lost
OnFault = Callable[[str, str], object]


@dataclass(frozen=True, slots=True)
class Selector:
    """Which entries a flush means. Every given field must match; ``all`` alone means every entry."""

    all: bool = False
    key: bytes | None = None
    #: the first hex digits of a key
    prefix: str | None = None
    model: str | None = None
    namespace: str | None = None
    #: an entry with any of these tags
    tags: tuple[str, ...] = ()
    #: an operation's name, as in ``wire.endpoints``
    endpoint: str | None = None
    #: created before this Unix time
    created_before: float | None = None
    #: the same as an age in seconds, for answers on their way: clocks may be set in between
    older_than: float | None = None


@dataclass(frozen=True, slots=True)
class Flushed:
    """What a flush removed, or would remove."""

    entries: int = 0
    bytes: int = 0
    #: tiers whose database failed: entries may be left there, uncounted
    failed: tuple[str, ...] = ()
    #: processes that did not confirm in time that they have forgotten: entries may be left in their memory
    unconfirmed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TierStats:
    """A tier's size now, and what left it since start, by reason."""

    entries: int
    bytes: int
    #: Unix seconds; None when empty
    oldest: float | None
    #: reason -> count; reasons: "size", "bytes", "expired", "flushed", "broken"
    evictions: dict[str, int]


#: writes what is to be committed together with the last rows of a flush
Seal = Callable[[AsyncConnection], Awaitable[None]]


class Tier(Protocol):
    """Keeps entries by key: one of the list that the cache looks through from the top down.

    The failure contract: a look-up that fails is a miss; a store that fails never fails its caller; an entry is
    visible only when whole; one that is too large is not kept; deleting what is not there is silent; expiry and
    bounds are the tier's own affair. Faults are counted by the tier and logged once until it works again. Entries past
    their lifetime are given while they are still kept: the caller decides about staleness.
    """

    #: the metric label ``tier``
    name: str
    #: why an answer from here is a hit
    reason: Reason
    #: whether it is this process's alone and answers without waiting: then ``touch`` and ``matching`` know all of it
    local: bool

    def peek(self, key: bytes) -> Entry | None:
        """The entry, if it can be had without waiting; not counted as a use."""
        ...

    def touch(self, key: bytes) -> Entry | None:
        """The entry, if it can be had without waiting."""
        ...

    async def get(self, key: bytes) -> Entry | None:
        """The entry. The cache calls it where ``touch`` gave none and the tier is not ``local``."""
        ...

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Entry]: ...

    async def holds(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which of these keys have an entry here."""
        ...

    async def lookup(self, prefix: str) -> Entry | None:
        """An entry whose key begins with these hex digits. Raises ``ValueError`` for what are none."""
        ...

    def keep(self, entry: Entry) -> None:
        """Stores ``entry``: visible at once, without anybody waiting for it. See ``Entry.begun``."""
        ...

    def matching(self, selector: Selector) -> list[Entry]:
        """What ``selector`` means of what this process can name without waiting."""
        ...

    def forget(self, selector: Selector) -> list[Entry]:
        """Removes what ``matching`` gives, and returns it: each process does that for itself."""
        ...

    async def flush(self, selector: Selector, *, dry_run: bool = False, seal: Seal | None = None) -> Flushed:
        """Removes what ``selector`` means for all processes.

        A tier in the database of the flush log awaits ``seal`` in the transaction that deletes the last of the rows.
        Others need not know it. Raises ``ValueError`` for a prefix that is none.
        """
        ...

    async def stats(self) -> TierStats: ...

    def evictions(self) -> dict[str, int]:
        """What left the tier since start, by reason, without waiting."""
        ...

    @property
    def reclaimed(self) -> int:
        """Bytes given back to the file system since start."""
        ...

    def local_keys(self) -> list[bytes]:
        """The keys that ``touch`` answers: tiers below do not see them used."""
        ...


class NullTier:
    """The ``Tier`` that keeps nothing."""

    name = "null"
    reason = Reason.TIER
    local = True
    reclaimed = 0

    def peek(self, key: bytes) -> Entry | None:
        return None

    def touch(self, key: bytes) -> Entry | None:
        return None

    async def get(self, key: bytes) -> Entry | None:
        return None

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        return {}

    async def holds(self, keys: Sequence[bytes]) -> set[bytes]:
        return set()

    async def lookup(self, prefix: str) -> Entry | None:
        return None

    def keep(self, entry: Entry) -> None:
        pass

    def matching(self, selector: Selector) -> list[Entry]:
        return []

    def forget(self, selector: Selector) -> list[Entry]:
        return []

    async def flush(self, selector: Selector, *, dry_run: bool = False, seal: Seal | None = None) -> Flushed:
        return Flushed()

    async def stats(self) -> TierStats:
        return TierStats(0, 0, None, {})

    def evictions(self) -> dict[str, int]:
        return {}

    def local_keys(self) -> list[bytes]:
        return []


def breaker(tier: str, work: str, on_fault: OnFault, backoff: Backoff = BACKOFF) -> CircuitBreaker:
    """The circuit breaker of one kind of a tier's work."""
    fails = f"{tier} tier: {work} fails (%(fault)s): %(error)s"
    return CircuitBreaker(tier, on_fault, fails=fails, works=f"{tier} tier: {work} works again", backoff=backoff)


_DIGITS = 64


def matches(selector: Selector, entry: Entry) -> bool:
    """Whether every given field matches; a selector without any matches nothing.

    Raises ``ValueError`` for a prefix that is none.
    """
    if is_empty(selector):
        return False
    if selector.prefix is not None:
        low, high = key_range(selector.prefix)
        if not low <= entry.key <= high:
            return False
    return (
        selector.key in (None, entry.key)
        and selector.model in (None, entry.model)
        and selector.namespace in (None, entry.namespace)
        and selector.endpoint in (None, entry.operation)
        and (not selector.tags or not set(selector.tags).isdisjoint(entry.tags))
        and (selector.created_before is None or entry.created < selector.created_before)
    )


def is_empty(selector: Selector) -> bool:
    """Whether nothing was asked for at all."""
    return selector == Selector()


def key_range(prefix: str) -> tuple[bytes, bytes]:
    """The first and the last key that begin with these hex digits. Raises ``ValueError`` for other characters."""
    if len(prefix) > _DIGITS or not all(digit in "0123456789abcdefABCDEF" for digit in prefix):
        raise ValueError(f"{prefix!r} is not the beginning of a key: up to {_DIGITS} hex digits")
    return bytes.fromhex(prefix.ljust(_DIGITS, "0")), bytes.fromhex(prefix.ljust(_DIGITS, "f"))


def matches_begun(selector: Selector, entry: Entry, seconds: float) -> bool:
    """Whether a flush means an answer whose call had begun ``seconds`` before the flush."""
    if selector.created_before is None:
        return matches(selector, entry)
    if seconds < (selector.older_than or 0.0):
        return False
    ageless = dataclasses.replace(selector, created_before=None, older_than=None)
    return is_empty(ageless) or matches(ageless, entry)


def dump(selector: Selector) -> str:
    """JSON, for the flush log."""
    fields = dataclasses.asdict(selector)
    fields["key"] = selector.key.hex() if selector.key is not None else None
    return orjson.dumps(fields).decode()


def load(text: str) -> Selector:
    """The inverse of ``dump``. A line that another version wrote and this one can not read means every entry."""
    try:
        fields = orjson.loads(text)
        if fields["key"] is not None:
            fields["key"] = bytes.fromhex(fields["key"])
        fields["tags"] = tuple(fields["tags"])
        return Selector(**fields)
    except (ValueError, TypeError, KeyError):
        return Selector(all=True)
