"""Finished requests on their way to metrics, rates, log and history: phases ``record`` and ``count``."""

from collections import defaultdict
from collections.abc import Sequence
from time import perf_counter

from llmproxy.history.history import History
from llmproxy.observe.access_log import AccessLog, finished_at
from llmproxy.observe.batcher import Batcher, Sink
from llmproxy.observe.metrics import Metrics
from llmproxy.observe.performance import Performance, Rates
from llmproxy.observe.tracing import Tracing
from llmproxy.wire.exchange import Exchange, RepeatHit
from llmproxy.wire.vocabulary import Phase

#: asked every few seconds by orchestrators, by Prometheus, and by an open page, or a page's files: no line in the log,
#: no trace
UNLOGGED = frozenset(
    {
        *("health", "ready", "metrics", "api-health", "performance", "cache-stats", "history", "admin-jobs"),
        *("admin-job", "ui", "ui-asset", "front-page", "performance-series"),
    }
)

#: hits of one batch that each get a line of their own in the log; more are summed up
MOST_LINES = 100

Finished = Exchange | RepeatHit
Hits = list[tuple[Exchange, list[RepeatHit]]]


class RequestSinks:
    """Hands batches of finished requests to all sinks.

    Hits that were answered inside the protocol come by the thousand: they are grouped by their answer, and each sink
    gets a group at once if it can.
    """

    def __init__(
        self,
        metrics: Metrics,
        rates: Rates,
        performance: Performance,
        log: AccessLog,
        history: History,
        tracing: Tracing,
    ) -> None:
        self._metrics = metrics
        self._rates = rates
        self._performance = performance
        self._log = log
        self._history = history
        self._tracing = tracing
        #: the endpoints whose requests the metrics leave out: they serve who operates the proxy
        self.operating: frozenset[str] = frozenset()
        self._batch: Sequence[Finished] = ()
        self._split: tuple[list[Exchange], Hits] = ([], [])
        sinks = {
            "metrics": self._timed(Phase.COUNT, self._count),
            "rates": self._rate,
            "performance": self._add_up,
            "log": self._write,
            "history": self._timed(Phase.RECORD, self._record),
        }
        if tracing.tracer is not None:
            sinks["traces"] = self._trace
        self.batcher: Batcher[Finished] = Batcher(sinks, on_fault=metrics.observing_failed)

    def _timed(self, phase: Phase, sink: Sink[Finished]) -> Sink[Finished]:
        """``sink``, which counts how long a batch took as a phase of each of its requests."""

        def timed(batch: Sequence[Finished]) -> None:
            began = perf_counter()
            sink(batch)
            spent, exchanges = perf_counter() - began, self._split_hits(batch)[0]
            requests = len(batch) - sum(exchange.endpoint in self.operating for exchange in exchanges)
            if requests:
                self._metrics.phase_shared(phase, spent, requests)

        return timed

    def _split_hits(self, batch: Sequence[Finished]) -> tuple[list[Exchange], Hits]:
        """The same for each sink of one batch."""
        if batch is not self._batch:
            exchanges: list[Exchange] = []
            hits: defaultdict[int, list[RepeatHit]] = defaultdict(list)
            for item in batch:
                if isinstance(item, RepeatHit):
                    hits[id(item.template)].append(item)
                else:
                    exchanges.append(item)
            self._batch = batch
            self._split = exchanges, [(group[0].template, group) for group in hits.values()]
        return self._split

    def _count(self, batch: Sequence[Finished]) -> None:
        exchanges, hits = self._split_hits(batch)
        self._metrics.count([exchange for exchange in exchanges if exchange.endpoint not in self.operating])
        for template, group in hits:
            self._metrics.count_many(template, [hit.seconds for hit in group])

    def _rate(self, batch: Sequence[Finished]) -> None:
        exchanges, hits = self._split_hits(batch)
        self._rates.add(exchanges)
        for template, group in hits:
            self._rates.add_many(template, len(group))

    def _add_up(self, batch: Sequence[Finished]) -> None:
        exchanges, hits = self._split_hits(batch)
        self._performance.add(exchanges)
        for template, group in hits:
            self._performance.add_many(template, [hit.seconds for hit in group], stream=template.stream)

    def _write(self, batch: Sequence[Finished]) -> None:
        exchanges, hits = self._split_hits(batch)
        lines = [exchange for exchange in exchanges if exchange.endpoint not in UNLOGGED]
        if sum(len(group) for _, group in hits) <= MOST_LINES:
            lines = sorted((*lines, *(hit.exchange() for _, group in hits for hit in group)), key=finished_at)
            hits = []
        self._log.write(lines, [(template, len(group)) for template, group in hits])

    def _record(self, batch: Sequence[Finished]) -> None:
        exchanges, hits = self._split_hits(batch)
        self._history.record(exchanges)
        for template, group in hits:
            self._history.record_hits(template, group)

    def _trace(self, batch: Sequence[Finished]) -> None:
        exchanges, hits = self._split_hits(batch)
        self._tracing.record([exchange for exchange in exchanges if exchange.endpoint not in UNLOGGED])
        for _, group in hits:
            # what finds no room there need not be made
            self._tracing.record([hit.exchange() for hit in group[: self._tracing.room + 1]])
