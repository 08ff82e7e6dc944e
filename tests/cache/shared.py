"""A third kind of tier."""

from collections.abc import Sequence

from llmproxy.cache.entry import Entry
from llmproxy.cache.tier import Flushed, NullTier, Seal, Selector, TierStats, key_range, matches


class SharedTier(NullTier):
    """A third kind of tier, as one that asks a server would be: it never answers without waiting."""

    name = "shared"
    local = False

    def __init__(self) -> None:
        self._entries: dict[bytes, Entry] = {}
        self._flushed = 0

    async def get(self, key: bytes) -> Entry | None:
        return self._entries.get(key)

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        return {key: self._entries[key] for key in keys if key in self._entries}

    async def holds(self, keys: Sequence[bytes]) -> set[bytes]:
        return self._entries.keys() & set(keys)

    async def lookup(self, prefix: str) -> Entry | None:
        first, last = key_range(prefix)
        return next((entry for key, entry in self._entries.items() if first <= key <= last), None)

    def keep(self, entry: Entry) -> None:
        self._entries[entry.key] = entry

    async def flush(self, selector: Selector, *, dry_run: bool = False, seal: Seal | None = None) -> Flushed:
        gone = [entry for entry in self._entries.values() if matches(selector, entry)]
        if not dry_run:
            self._flushed += len(gone)
            for entry in gone:
                del self._entries[entry.key]
        return Flushed(len(gone), sum(entry.size for entry in gone))

    async def stats(self) -> TierStats:
        oldest = min((entry.created for entry in self._entries.values()), default=None)
        size = sum(entry.size for entry in self._entries.values())
        return TierStats(len(self._entries), size, oldest, self.evictions())

    def evictions(self) -> dict[str, int]:
        return {"flushed": self._flushed}
