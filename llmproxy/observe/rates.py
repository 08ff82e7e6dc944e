"""What the cache did since start, in the last 5 and in the last 60 minutes."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmproxy.observe.performance import plausible
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.vocabulary import HITS, LOOKED_UP, SAVED

MINUTE = 60.0
MINUTES = 60

#: what became of a request -> its name in the document
NAMES = {"hit": "hits", "stale": "stale", "miss": "misses", "joined": "joins", "bypass": "bypasses"}


@dataclass(slots=True)
class _Minute:
    number: int
    counts: Counter[str] = field(default_factory=Counter)


class Rates:
    """Counts finished requests that the cache had to do with. ``clock`` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since_start: Counter[str] = Counter()
        self._hits_by_reason: Counter[str] = Counter()
        #: a ring: the minute numbered n is at n % MINUTES until a newer one takes the place
        self._minutes = [_Minute(-1) for _ in range(MINUTES)]
        self._saved_seconds = 0.0
        self._saved_prompt_tokens = 0
        self._saved_completion_tokens = 0

    def add(self, batch: Sequence[Exchange]) -> None:
        """Counts finished requests: a sink of the ledger."""
        for answered in batch:
            self.add_many(answered, 1)

    def add_many(self, answered: Exchange, count: int) -> None:
        """Counts ``count`` requests that had this answer."""
        cache = answered.cache
        if cache is None:
            return
        self._since_start[cache] += count
        if cache == "hit":
            self._hits_by_reason[answered.reason or ""] += count
        self._minute().counts[cache] += count
        if cache in SAVED:
            self._saved_seconds += count * (answered.upstream_seconds or 0.0)
            self._saved_prompt_tokens += count * plausible(answered.usage.prompt_tokens)
            self._saved_completion_tokens += count * plausible(answered.usage.completion_tokens)

    def hits_by(self, reason: str) -> int:
        """Hits since start for this reason: the name of the tier that had the answer."""
        return self._hits_by_reason[reason]

    def snapshot(self) -> dict[str, Any]:
        """JSON-ready: counts and hit rates by window, and what was saved since start.

        A window ends now and begins with a whole minute: the last 5 minutes are between 4 and 5 minutes long.
        """
        return {
            "since_start": _document(self._since_start),
            "last_5_minutes": _document(self._window(5)),
            "last_60_minutes": _document(self._window(60)),
            "saved": {
                "upstream_seconds": self._saved_seconds,
                "prompt_tokens": self._saved_prompt_tokens,
                "completion_tokens": self._saved_completion_tokens,
            },
        }

    def _minute(self) -> _Minute:
        number = int(self._clock() // MINUTE)
        minute = self._minutes[number % MINUTES]
        if minute.number != number:
            minute = self._minutes[number % MINUTES] = _Minute(number)
        return minute

    def _window(self, minutes: int) -> Counter[str]:
        newest = int(self._clock() // MINUTE)
        total: Counter[str] = Counter()
        for minute in self._minutes:
            if newest - minutes < minute.number <= newest:
                total.update(minute.counts)
        return total


def _document(counts: Counter[str]) -> dict[str, Any]:
    """The hit rate is that of the requests that were looked up, None where there were none."""
    looked_up = sum(counts[word] for word in LOOKED_UP)
    rate = sum(counts[word] for word in HITS) / looked_up if looked_up else None
    return {**{name: counts[word] for word, name in NAMES.items()}, "hit_rate": rate}
