"""What a cache tier is, how it may fail, and which of its entries a flush means."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from llmproxy.cache.entry import Entry
from llmproxy.database.breaker import BACKOFF, CircuitBreaker
from llmproxy.runtime.background import Backoff

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


class Tier(Protocol):
    """Keeps entries by key.

    The failure contract: a look-up that fails is a miss; a store that fails never fails its caller; an entry is
    visible only when whole; one that is too large is not kept; deleting what is not there is silent; expiry and
    bounds are the tier's own affair. Faults are counted by the tier and logged once until it works again.
    """

    name: str

    async def get(self, key: bytes) -> Entry | None:
        """The entry, even past its lifetime while it is still kept (the caller decides about staleness)."""
        ...

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Entry]: ...

    async def put(self, entry: Entry) -> None: ...

    async def flush(self, selector: Selector, *, dry_run: bool = False) -> Flushed: ...

    async def stats(self) -> TierStats: ...

    async def close(self) -> None:
        """Write what waits, release what is held."""
        ...


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


def means_begun(selector: Selector, entry: Entry, seconds: float) -> bool:
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
