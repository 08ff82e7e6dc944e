"""Entries that wait to be written, bounded in number and in bytes, and visible while they wait."""

from collections.abc import Sequence
from itertools import islice

from llmproxy.cache.entry import Entry
from llmproxy.cache.selection import matches
from llmproxy.cache.tier import Selector


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
