"""Counts finished requests and upstream calls, and shows the result to Prometheus."""

import asyncio
import logging
import sys
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import product

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from llmproxy.observe.catalogue import DURATIONS, Catalogue
from llmproxy.observe.collectors import NONE, Counter, Histogram, HistogramChild, Names, tally
from llmproxy.observe.process_stats import Sample
from llmproxy.runtime.background import LogOnce
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.vocabulary import FETCHED, SAVED, CacheStatus, Phase, Reason

logger = logging.getLogger(__name__)

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

#: seconds that one refresh may take at a scrape
REFRESH_LIMIT = 2.0

Refresh = Callable[[], Awaitable[None]]


class Metrics:
    """The metrics of one app, on a registry of their own. Belongs to one event loop."""

    def __init__(self, version: str, *, models: int = 100) -> None:
        """``models`` bounds the distinct values of the label ``model``."""
        self.catalogue = Catalogue()
        self._generations = Generations(self.catalogue)
        self._registry = CollectorRegistry()
        self._models = Names(models)
        #: endpoint, model, cache, reason, status -> what such requests count in
        self._series: dict[tuple[str, str, CacheStatus | None, Reason | None, int], _RequestSeries] = {}
        self._phases = _PhaseSeries(self.catalogue.phases)
        self._refreshes: dict[str, Refresh] = {}
        self._logs: dict[str, LogOnce] = {}
        #: an upstream's name -> its kind
        self._kinds: Callable[[str], str] = lambda upstream: NONE
        for series in self.catalogue.all():
            self._registry.register(series)
        ProcessCollector(registry=self._registry)
        self.catalogue.build.set((version, "{}.{}.{}".format(*sys.version_info)), 1.0)

    def count(self, batch: Sequence[Exchange]) -> None:
        """Counts finished requests: a sink of the batcher."""
        phases = self._phases
        for exchange in batch:
            series, seconds = self._series_of(exchange), exchange.seconds
            series.durations.observe(seconds)
            first_byte = exchange.first_byte_seconds
            if first_byte is not None:
                series.first_bytes().observe(first_byte)
            overhead = _overhead(exchange, seconds)
            if overhead is not None:
                series.overheads().observe(overhead)
            for phase, spent in exchange.phases.items():
                # written out: a request has some fifteen
                child = phases[phase]
                child.counts[bisect_left(DURATIONS, spent)] += 1
                child.total += spent
            if exchange.failed:
                series.failed.value += 1.0
            if exchange.cache in FETCHED:
                self._generations.count(exchange, self._kinds(exchange.upstream))
            self._count_answers(exchange, series, 1)

    def count_many(self, answered: Exchange, durations: Sequence[float]) -> None:
        """Counts hits of one answer that were each sent in one piece, after these seconds."""
        series, tallied = self._series_of(answered), tally(durations, DURATIONS)
        series.durations.observe_all(tallied)
        series.first_bytes().observe_all(tallied)
        series.overheads().observe_all(tallied)
        self._count_answers(answered, series, len(durations))

    def phase_shared(self, phase: Phase, seconds: float, requests: int) -> None:
        """Counts a phase that took ``seconds`` for ``requests`` requests together."""
        self._phases[phase].observe(seconds / requests, requests)

    def name_kinds(self, kinds: Callable[[str], str]) -> None:
        """``kinds`` gives the kind of the upstream with this name, a value of a closed list."""
        self._kinds = kinds

    def loop_lagged(self, seconds: float) -> None:
        """Counts how late the event loop woke somebody."""
        self.catalogue.lag.observe((), seconds)

    def preset(self, tiers: Iterable[str], faults: Iterable[str], failures: Iterable[str]) -> None:
        """Shows a 0 for what has not happened yet, because a rate does not see the first of what had no number before.

        ``faults`` are the kinds of faults of every tier, ``failures`` those of calls to an upstream.
        """
        for labels in product(tiers, faults):
            self.catalogue.store_faults.add(labels, 0.0)
        for kind in failures:
            self.catalogue.upstream_errors.add((kind,), 0.0)

    def upstream_failed(self, kind: str) -> None:
        """Counts a failed call to an upstream. ``kind`` is a value of a closed list."""
        self.catalogue.upstream_errors.add((kind,))

    def store_failed(self, tier: str, kind: str) -> None:
        """Counts a fault of a cache tier. ``kind`` is a value of a closed list."""
        self.catalogue.store_faults.add((tier, kind))

    def observing_failed(self, part: str) -> None:
        """Counts a failure of a sink or a refresh. ``part`` is its name."""
        self.catalogue.faults.add((part,))

    def job_tried(self, kind: str, step: str, outcome: str) -> None:
        """Counts a try at an item of a job. All three are values of closed lists."""
        self.catalogue.job_tries.add((kind, step, outcome))

    def answer_lost(self) -> None:
        """Counts a stored answer that was lost: it cannot be read by its id."""
        self.catalogue.answers_lost.add(())

    def set_queue(self, waiting: int, running: int, oldest_seconds: float) -> None:
        """Takes over what the job queue holds now."""
        self.catalogue.job_items.set(("waiting",), waiting)
        self.catalogue.job_items.set(("running",), running)
        self.catalogue.job_age.set((), oldest_seconds)

    def set_tier(self, tier: str, entries: int, bytes: int, evictions: Mapping[str, int]) -> None:
        """Takes over a tier's present size, and what left it since start, by reason."""
        self.catalogue.entries.set((tier,), entries)
        self.catalogue.bytes.set((tier,), bytes)
        self.set_evictions(tier, evictions)

    def set_evictions(self, tier: str, evictions: Mapping[str, int]) -> None:
        """Takes over what left a tier since start, by reason."""
        for reason, count in evictions.items():
            self.catalogue.evictions.set_total((tier, reason), count)

    def set_limits(self, tiers: Mapping[str, int], database: int) -> None:
        """Sets the limits of the tiers and of the database, in bytes."""
        for tier, limit in tiers.items():
            self.catalogue.limits.set((tier,), limit)
        self.catalogue.database_limit.set((), database)

    def set_resources(self, sample: Sample) -> None:
        """Takes over what the process and the machine used last."""
        self.catalogue.threads.set((), sample.threads)
        self.catalogue.system_cpu.set((), sample.system_cpu)
        self.catalogue.system_memory.set(("total",), sample.system_memory_bytes)
        self.catalogue.system_memory.set(("available",), sample.system_memory_available_bytes)

    def set_performance(self, lost: int) -> None:
        """Takes over how much ``/api/performance`` has lost since start."""
        self.catalogue.performance_lost.set_total((), lost)

    def set_history(self, rows: int, lost: int) -> None:
        """Takes over how many rows of history were written and lost since start."""
        self.catalogue.history_rows.set_total((), rows)
        self.catalogue.history_lost.set_total((), lost)

    def set_database(self, size: int) -> None:
        """Takes over the database's present bytes."""
        self.catalogue.database_bytes.set((), size)

    def set_reclaimed(self, reclaimed: int) -> None:
        """Takes over how many bytes were given back to the file system since start."""
        self.catalogue.reclaimed.set_total((), reclaimed)

    def set_in_flight(self, requests: Mapping[str, int]) -> None:
        """Takes over how many requests are being answered now, by endpoint."""
        for endpoint, count in requests.items():
            self.catalogue.in_flight.set((endpoint,), count)

    def set_upstreams(self, up: Mapping[str, bool]) -> None:
        """Takes over which upstreams answer; those not named are no longer shown."""
        self.catalogue.upstream_up.clear()
        for upstream, answers in up.items():
            self.catalogue.upstream_up.set((upstream,), float(answers))

    def refresh_at_scrape(self, part: str, refresh: Refresh) -> None:
        """Has ``refresh`` called before each exposition, in the order of registration."""
        self._refreshes[part], self._logs[part] = refresh, LogOnce(logger)

    async def exposition(self) -> bytes:
        """The page for Prometheus, of ``CONTENT_TYPE``. A refresh that fails or is slow leaves its old values."""
        # together, so that several that are slow do not add up to a scrape that is given up; each is begun in its turn
        await asyncio.gather(*(self._refreshed(*each) for each in self._refreshes.items()))
        return generate_latest(self._registry)

    async def _refreshed(self, part: str, refresh: Refresh) -> None:
        try:
            async with asyncio.timeout(REFRESH_LIMIT):
                await refresh()
        except Exception as error:  # noqa: BLE001 - one part that cannot be read must not hide all the others
            self.observing_failed(part)
            self._logs[part].failed("%s cannot be read for /metrics; silent until it can", part, error=error)
        else:
            self._logs[part].worked()

    def _series_of(self, answered: Exchange) -> "_RequestSeries":
        model = self._models.label(answered.model, proven=answered.status < 400)
        kind = (answered.endpoint, model, answered.cache, answered.reason, answered.status)
        return self._series.get(kind) or self._series.setdefault(kind, _RequestSeries(self.catalogue, *kind))

    def _count_answers(self, answered: Exchange, series: "_RequestSeries", count: int) -> None:
        catalogue, cache = self.catalogue, answered.cache
        series.requests.value += count
        if cache is CacheStatus.JOINED:
            catalogue.coalesced.add((), count)
        if cache in SAVED:
            catalogue.saved_seconds.add((), count * (answered.upstream_seconds or 0.0))
            _count_tokens(catalogue.saved_tokens, answered, count)
        elif cache in FETCHED:
            _count_tokens(catalogue.upstream_tokens, answered, count)


class _RequestSeries:
    """Holds the series that requests of one kind count in. Those that not every request has are shown once they have a
    value."""

    __slots__ = ("_by_cache", "_catalogue", "_endpoint", "durations", "failed", "requests")

    def __init__(
        self,
        catalogue: Catalogue,
        endpoint: str,
        model: str,
        cache: CacheStatus | None,
        reason: Reason | None,
        status: int,
    ) -> None:
        self._catalogue = catalogue
        self._endpoint = endpoint
        self._by_cache = (endpoint, cache or NONE)
        self.requests = catalogue.requests.child((endpoint, model, cache or NONE, reason or NONE, str(status)))
        self.durations = catalogue.durations.child(self._by_cache)
        # with a success, too: a rate needs the 0 before the first failure
        self.failed = catalogue.failed.child((endpoint,))

    def first_bytes(self) -> HistogramChild:
        return self._catalogue.first_bytes.child(self._by_cache)

    def overheads(self) -> HistogramChild:
        return self._catalogue.overheads.child((self._endpoint,))


class _PhaseSeries(dict[Phase, HistogramChild]):
    """By phase, each shown once it was marked."""

    def __init__(self, phases: Histogram) -> None:
        super().__init__()
        self._histogram = phases

    def __missing__(self, phase: Phase) -> HistogramChild:
        child = self[phase] = self._histogram.child((phase,))
        return child


def _count_tokens(counter: Counter, answered: Exchange, count: int) -> None:
    usage = answered.usage
    for kind, tokens in (("prompt", usage.prompt_tokens), ("completion", usage.completion_tokens)):
        if tokens:
            counter.add((kind,), count * tokens)


def _overhead(observed: Exchange, seconds: float) -> float | None:
    """Unknown for a request that joined a call half-way, or whose upstream time is not known."""
    if observed.cache in FETCHED:
        return None if observed.upstream_seconds is None else max(0.0, seconds - observed.upstream_seconds)
    return None if observed.cache == "joined" else seconds


#: our endpoints -> the conventions' operations; calls of others are no generation
OPERATIONS = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "ollama-chat": "chat",
    "completions": "text_completion",
    "ollama-generate": "text_completion",
    "embeddings": "embeddings",
    "ollama-embed": "embeddings",
    "ollama-embeddings": "embeddings",
    "rerank": "rerank",
    "transcriptions": "transcription",
}

#: the conventions' word for an error without a code
_OTHER_ERROR = "_OTHER"


class Generations:
    """Counts calls that an upstream worked on. Each series is a whole histogram, so ``models`` bounds them tightly."""

    def __init__(self, catalogue: Catalogue, models: int = 20) -> None:
        self._catalogue = catalogue
        self._models = Names(models)

    def count(self, observed: Exchange, provider: str) -> None:
        """Counts a request that had an upstream call to itself. ``provider`` is the upstream's kind."""
        operation = OPERATIONS.get(observed.endpoint)
        if operation is None or not observed.upstream:
            return
        call = (operation, provider, self._models.label(observed.model, proven=observed.status < 400))
        spent = observed.seconds if observed.upstream_seconds is None else observed.upstream_seconds
        error = _error_type(observed)
        self._catalogue.generation_seconds.observe((*call, error), spent)
        if not error:
            self._count_answer(observed, call)

    def _count_answer(self, observed: Exchange, call: tuple[str, ...]) -> None:
        usage = observed.usage
        for kind, tokens in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
            if tokens is not None and tokens >= 0:
                self._catalogue.generation_tokens.observe((*call, kind), tokens)
        first = observed.first_byte_seconds
        if not observed.stream or first is None:
            return
        self._catalogue.generation_first_tokens.observe(call, first)
        if usage.completion_tokens is not None and usage.completion_tokens > 1:
            rest = max(0.0, observed.seconds - first)
            self._catalogue.generation_token_times.observe(call, rest / (usage.completion_tokens - 1))


def _error_type(observed: Exchange) -> str:
    """The status, or ``_OTHER`` for an error without one; "" for a success."""
    if observed.status >= 400:
        return str(observed.status)
    return _OTHER_ERROR if observed.error else ""
