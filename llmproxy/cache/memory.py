"""The memory tier: the entries asked for most recently, bounded in number and in bytes."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from llmproxy.cache.entry import Entry
from llmproxy.cache.tier import Flushed, Seal, Selector, TierStats, key_range, matches
from llmproxy.wire.vocabulary import Reason

T = TypeVar("T")

#: distinct words and header lists that entries share
_SHARED = 1024


class MemoryTier:
    """The ``Tier`` in this process's memory.

    Entries stay past their lifetime until there is no room or until they are flushed: the caller decides about
    staleness. ``clock`` gives Unix seconds.
    """

    name = "memory"
    reason = Reason.MEMORY
    local = True
    #: it is no file
    reclaimed = 0

    def __init__(self, max_entries: int, max_bytes: int, clock: Callable[[], float]):
        #: the least recently used first. An LRU of a library has its look-ups in Python
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0
        self._clock = clock
        self._shared: dict[Any, Any] = {}
        self._evictions = dict.fromkeys(("size", "bytes", "expired", "flushed"), 0)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Every entry, in no particular order, none of them counted as used."""
        return iter(list(self._entries.values()))

    def peek(self, key: bytes) -> Entry | None:
        """The entry, without counting as a use of it."""
        return self._entries.get(key)

    def touch(self, key: bytes) -> Entry | None:
        """The entry, from now on the most recently used."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def keep(self, entry: Entry) -> None:
        """Keeps ``entry`` in place of one with the same key; one that is larger than the tier only removes that."""
        self._drop(entry.key)
        size = entry.size
        if size > self._max_bytes or self._max_entries < 1:
            return
        while self._bytes + size > self._max_bytes:
            self._evict("bytes")
        while len(self._entries) >= self._max_entries:
            self._evict("size")
        self._entries[entry.key] = self._lean(entry)
        self._bytes += size

    def forget(self, selector: Selector) -> list[Entry]:
        """Removes what ``selector`` means and returns it. Raises ``ValueError`` for a prefix that is none."""
        gone = self.matching(selector)
        for entry in gone:
            self._drop(entry.key)
        self._evictions["flushed"] += len(gone)
        return gone

    def matching(self, selector: Selector) -> list[Entry]:
        """What ``selector`` means, untouched. Raises ``ValueError`` for a prefix that is none."""
        return [entry for entry in self if matches(selector, entry)]

    async def get(self, key: bytes) -> Entry | None:
        return self.touch(key)

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        return {key: entry for key in keys if (entry := self.touch(key)) is not None}

    async def holds(self, keys: Sequence[bytes]) -> set[bytes]:
        return {key for key in keys if key in self._entries}

    async def lookup(self, prefix: str) -> Entry | None:
        first, last = key_range(prefix)
        return next((entry for entry in self if first <= entry.key <= last), None)

    def local_keys(self) -> list[bytes]:
        return list(self._entries)

    async def flush(self, selector: Selector, *, dry_run: bool = False, seal: Seal | None = None) -> Flushed:
        gone = self.matching(selector) if dry_run else self.forget(selector)
        return Flushed(len(gone), sum(entry.size for entry in gone))

    async def stats(self) -> TierStats:
        oldest = min((entry.created for entry in self), default=None)
        return TierStats(len(self._entries), self._bytes, oldest, self.evictions())

    def evictions(self) -> dict[str, int]:
        """What left the tier since start, by reason."""
        return dict(self._evictions)

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size

    def _evict(self, reason: str) -> None:
        _, entry = self._entries.popitem(last=False)
        self._bytes -= entry.size
        self._evictions["expired" if entry.expires <= self._clock() else reason] += 1

    def _lean(self, entry: Entry) -> Entry:
        """The same entry, with texts that many entries have in common held once."""
        share = self._share
        # by hand, as in ``Entry.begun_at``
        return Entry(
            entry.key,
            share(entry.operation),
            share(entry.model),
            share(entry.scope),
            share(entry.namespace),
            share(entry.tags),
            entry.created,
            entry.expires,
            entry.document,
            entry.frames,
            entry.ends,
            entry.millis,
            entry.hidden,
            share(entry.headers),
            entry.upstream_seconds,
            entry.prompt_tokens,
            entry.completion_tokens,
            entry.both,
        )

    def _share(self, value: T) -> T:
        if len(self._shared) >= _SHARED:
            # callers choose some of these words: they must not fill the memory
            self._shared.clear()
        shared: T = self._shared.setdefault(value, value)
        return shared
