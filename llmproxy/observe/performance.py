"""How requests fared: added up by minute and by what they asked for, the report of it, and the windows of the cache."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmproxy.observe.collectors import NONE, Names
from llmproxy.observe.quantiles import ERROR, Distribution
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.vocabulary import FETCHED, HITS, LOOKED_UP, SAVED

MINUTE = 60

#: cells that may wait to be kept, all minutes together
MOST_CELLS = 10_000
#: more in one answer are not believed
MOST_TOKENS = 100_000_000


class PerformanceSeries(NamedTuple):
    """The requests that one cell counts. ``cache`` is a value of ``CacheStatus``."""

    endpoint: str
    model: str
    cache: str


@dataclass(slots=True)
class Cell:
    """Requests of one series in one span of time. The distributions are of those that were answered."""

    requests: int = 0
    #: of them, those that the proxy or the upstream failed
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    #: what the upstream worked for the answers, or had worked for answers that were there already
    upstream_seconds: float = 0.0
    #: seconds to the last byte
    durations: Distribution = field(default_factory=Distribution)
    #: seconds to a stream's first event
    first_tokens: Distribution = field(default_factory=Distribution)
    #: tokens that the upstream gave in a second of its work
    speeds: Distribution = field(default_factory=Distribution)

    def merge(self, other: "Cell") -> None:
        """Adds the requests of ``other``, which stays as it is."""
        self.requests += other.requests
        self.errors += other.errors
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.upstream_seconds += other.upstream_seconds
        self.durations.merge(other.durations)
        self.first_tokens.merge(other.first_tokens)
        self.speeds.merge(other.speeds)


Cells = dict[PerformanceSeries, Cell]


def merge(into: Cells, cells: Mapping[PerformanceSeries, Cell]) -> None:
    """Adds ``cells``, which stay as they are."""
    for series, cell in cells.items():
        into.setdefault(series, Cell()).merge(cell)


class Performance:
    """Adds up the requests that the cache had to do with, until somebody takes the minutes that are over.

    ``models`` bounds the distinct names of models; ``clock`` gives Unix seconds. Belongs to one event loop.
    """

    def __init__(self, *, models: int = 100, clock: Callable[[], float] = time.time) -> None:
        self._names = Names(models)
        self._clock = clock
        #: a minute's first second -> what happened in it
        self._minutes: dict[int, Cells] = {}
        #: cells that found no room to wait in, or were refused, since start
        self.lost = 0

    def add(self, batch: Sequence[Exchange]) -> None:
        """Counts finished requests: a sink of the batcher."""
        cells = self._cells()
        for exchange in batch:
            if exchange.cache is None:
                continue
            cell = self._cell(cells, exchange)
            cell.requests += 1
            if exchange.failed:
                cell.errors += 1
            elif exchange.status < 400:
                _add_answer(cell, exchange)

    def add_many(self, answered: Exchange, durations: Sequence[float], *, stream: bool) -> None:
        """Counts hits of one answer that were each sent in one piece, after these seconds."""
        cell = self._cell(self._cells(), answered)
        cell.requests += len(durations)
        cell.durations.add_all(durations)
        if stream:
            cell.first_tokens.add_all(durations)
        _add_work(cell, answered, len(durations))

    def take(self, *, current: bool = False) -> dict[int, Cells]:
        """The minutes that are over, which are no longer here then; with ``current`` the one that is not, too."""
        now = self._minute()
        taken = {start: cells for start, cells in self._minutes.items() if current or start != now}
        for start in taken:
            del self._minutes[start]
        return taken

    def give_back(self, minutes: Mapping[int, Cells]) -> None:
        """Takes back minutes that could not be stored. If there are too many, the oldest are lost."""
        for start, cells in minutes.items():
            merge(self._minutes.setdefault(start, {}), cells)
        waiting = sum(map(len, self._minutes.values()))
        for start in sorted(self._minutes):
            if waiting <= MOST_CELLS:
                return
            waiting -= len(self._minutes[start])
            self.lose({start: self._minutes.pop(start)})

    def lose(self, minutes: Mapping[int, Cells]) -> None:
        """Counts minutes that will not be stored."""
        self.lost += sum(map(len, minutes.values()))

    def since(self, start: float) -> Cells:
        """A copy of what is here of the minutes that began at ``start`` or later."""
        found: Cells = {}
        for minute, cells in self._minutes.items():
            if minute >= start:
                merge(found, cells)
        return found

    def minutes(self, start: float) -> dict[int, Cells]:
        """The same by minute. The cells are not copied, and not to be changed."""
        return {minute: cells for minute, cells in self._minutes.items() if minute >= start}

    def _cells(self) -> Cells:
        """Those of this minute."""
        return self._minutes.setdefault(self._minute(), {})

    def _cell(self, cells: Cells, answered: Exchange) -> Cell:
        model, cache = self._names.label(answered.model, proven=answered.status < 400), answered.cache or NONE
        series = PerformanceSeries(answered.endpoint, model, cache)
        cell = cells.get(series)
        if cell is None:
            # the plain word, because an enumeration's member would travel on as one
            cell = cells[series._replace(cache=str(cache))] = Cell()
        return cell

    def _minute(self) -> int:
        return int(self._clock() // MINUTE) * MINUTE


def _add_answer(cell: Cell, observed: Exchange) -> None:
    cell.durations.add(observed.seconds)
    first_byte = observed.first_byte_seconds
    if observed.stream and first_byte is not None:
        cell.first_tokens.add(first_byte)
    _add_work(cell, observed, 1)
    tokens, seconds = plausible(observed.usage.completion_tokens), observed.upstream_seconds
    if observed.cache in FETCHED and tokens and seconds:
        cell.speeds.add(tokens / seconds)


def _add_work(cell: Cell, answered: Exchange, count: int) -> None:
    cell.prompt_tokens += count * plausible(answered.usage.prompt_tokens)
    cell.completion_tokens += count * plausible(answered.usage.completion_tokens)
    cell.upstream_seconds += count * (answered.upstream_seconds or 0.0)


def plausible(tokens: int | None) -> int:
    """Limits a number of tokens: an upstream may report any, and a sum must fit into a database and into JSON."""
    return max(0, min(tokens or 0, MOST_TOKENS))


def report(cells: Cells, start: float, until: float) -> dict[str, Any]:
    """JSON-ready: all requests of the window, and those of each endpoint and model, the busiest first.

    ``start`` and ``until`` in Unix seconds.
    """
    seconds = max(until - start, 1.0)
    groups: dict[tuple[str, str], Cells] = {}
    for series, cell in cells.items():
        groups.setdefault((series.endpoint, series.model), {})[series] = cell
    split = [
        {"endpoint": endpoint, "model": model, **_figures(group, seconds), "by_cache": _by_cache(group, seconds)}
        for (endpoint, model), group in groups.items()
    ]
    return {
        "from": start,
        "until": until,
        "seconds": seconds,
        "quantile_error": ERROR,
        "total": {**_figures(cells, seconds), "by_cache": _by_cache(cells, seconds)},
        "models": sorted(split, key=lambda each: each["requests"], reverse=True),
    }


def points(steps: Mapping[int, Cells], start: int, until: float, step: int) -> list[dict[str, Any]]:
    """JSON-ready: what happened in each step from ``start`` on (Unix seconds), those without requests too."""
    return [_point(at, steps.get(at, {})) for at in range(start, int(until) + 1, step)]


def _point(at: int, cells: Mapping[PerformanceSeries, Cell]) -> dict[str, Any]:
    def together(words: Collection[str]) -> Cell:
        return _all(cell for series, cell in cells.items() if series.cache in words)

    hits, saved, looked_up, fetched = together(HITS), together(SAVED), together(LOOKED_UP), together(FETCHED)
    return {
        "at": at,
        "requests": {word: together((word,)).requests for word in sorted({series.cache for series in cells})},
        "errors": sum(cell.errors for cell in cells.values()),
        "hit_rate": hits.requests / looked_up.requests if looked_up.requests else None,
        "hit_seconds": hits.durations.quantile(0.5),
        "fetched_seconds": fetched.durations.quantile(0.5),
        "fetched_seconds_p95": fetched.durations.quantile(0.95),
        "saved_seconds": saved.upstream_seconds,
        "saved_tokens": saved.prompt_tokens + saved.completion_tokens,
        "fetched_tokens": fetched.prompt_tokens + fetched.completion_tokens,
    }


def all_time(cells: Mapping[PerformanceSeries, Cell], since: int | None) -> dict[str, Any]:
    """JSON-ready: sums of all requests since the Unix second ``since``, None for no requests."""
    total = _all(cells.values())
    figures = _figures(cells, 1.0)
    return {
        "since": since,
        "requests": total.requests,
        "errors": total.errors,
        "hit_rate": figures["hit_rate"],
        "saved": figures["saved"],
    }


def _figures(cells: Mapping[PerformanceSeries, Cell], seconds: float) -> dict[str, Any]:
    looked_up = sum(cell.requests for series, cell in cells.items() if series.cache in LOOKED_UP)
    hits = sum(cell.requests for series, cell in cells.items() if series.cache in HITS)
    saved = [cell for series, cell in cells.items() if series.cache in SAVED]
    return {
        **_of(_all(cells.values()), seconds),
        "hit_rate": hits / looked_up if looked_up else None,
        "saved": {
            "upstream_seconds": sum(cell.upstream_seconds for cell in saved),
            "prompt_tokens": sum(cell.prompt_tokens for cell in saved),
            "completion_tokens": sum(cell.completion_tokens for cell in saved),
        },
    }


def _by_cache(cells: Mapping[PerformanceSeries, Cell], seconds: float) -> dict[str, Any]:
    words = sorted({series.cache for series in cells})
    return {word: _of(_all(cell for series, cell in cells.items() if series.cache == word), seconds) for word in words}


def _of(cell: Cell, seconds: float) -> dict[str, Any]:
    return {
        "requests": cell.requests,
        "requests_per_second": cell.requests / seconds,
        "errors": cell.errors,
        "error_rate": cell.errors / cell.requests if cell.requests else None,
        "duration_seconds": cell.durations.summary(),
        "first_token_seconds": cell.first_tokens.summary(),
        "tokens_per_second": cell.speeds.summary(),
        "prompt_tokens": cell.prompt_tokens,
        "completion_tokens": cell.completion_tokens,
    }


def _all(cells: Iterable[Cell]) -> Cell:
    together = Cell()
    for cell in cells:
        together.merge(cell)
    return together


#: as many as the longest window has
_MINUTES = 60
#: what became of a request -> its name in the document
NAMES = {
    "hit": "hits",
    "stale": "stale",
    "miss": "misses",
    "joined": "joins",
    "bypass": "bypasses",
    "only-if-cached": "only_if_cached",
}


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
        #: a ring: the minute numbered n is at n % _MINUTES until a newer one takes the place
        self._minutes = [_Minute(-1) for _ in range(_MINUTES)]
        self._saved_seconds = 0.0
        self._saved_prompt_tokens = 0
        self._saved_completion_tokens = 0

    def add(self, batch: Sequence[Exchange]) -> None:
        """Counts finished requests: a sink of the batcher."""
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
        minute = self._minutes[number % _MINUTES]
        if minute.number != number:
            minute = self._minutes[number % _MINUTES] = _Minute(number)
        return minute

    def _window(self, minutes: int) -> Counter[str]:
        newest = int(self._clock() // MINUTE)
        total: Counter[str] = Counter()
        for minute in self._minutes:
            if newest - minutes < minute.number <= newest:
                total.update(minute.counts)
        return total


def _document(counts: Counter[str]) -> dict[str, Any]:
    """The hit rate is that of the requests that were looked up, None if there were none."""
    looked_up = sum(counts[word] for word in LOOKED_UP)
    rate = sum(counts[word] for word in HITS) / looked_up if looked_up else None
    return {**{name: counts[word] for word, name in NAMES.items()}, "hit_rate": rate}
