"""Counters, gauges and histograms on prometheus-client's interface for collectors of one's own.

The library's own metrics take one value at a time under a lock; these take a batch at once, which is what makes
counting every cached hit affordable. They belong to one event loop and are not thread-safe.
"""

from abc import abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

Labels = tuple[str, ...]


class Series(Collector):
    """A named metric with one series for each combination of label values, in the order of ``labels``."""

    kind: str
    #: whether every process that works on the same database shows the same value
    shared = False
    #: the values of labels of those series of which the same is true, although it is not of the others
    shared_series: frozenset[Labels] = frozenset()

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        self.name = name
        self.help = help
        self.labels = labels

    def describe(self) -> Iterable[Metric]:
        return [self._family()]

    @abstractmethod
    def _family(self) -> Metric: ...


@dataclass(slots=True)
class CounterChild:
    """One series of a counter, for code that often adds to it and holds it."""

    value: float = 0.0


class Counter(Series):
    """A number that only grows. Its name ends in ``_total``."""

    kind = "counter"

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:
        super().__init__(name, help, labels)
        self._children: dict[Labels, CounterChild] = {} if labels else {(): CounterChild()}

    def child(self, labels: Labels) -> CounterChild:
        """The series with these values of the labels, shown from now on."""
        return self._children.get(labels) or self._children.setdefault(labels, CounterChild())

    def add(self, labels: Labels = (), amount: float = 1.0) -> None:
        """Adds ``amount``, which must not be negative."""
        self.child(labels).value += amount

    def set_total(self, labels: Labels, total: float) -> None:
        """Sets the total of something that is counted elsewhere."""
        self.child(labels).value = total

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for labels, child in self._children.items():
            family.add_metric(labels, child.value)
        return [family]

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(self.name, self.help, labels=self.labels)


class Gauge(Series):
    """A number that goes up and down."""

    kind = "gauge"

    def __init__(
        self,
        name: str,
        help: str,
        labels: Labels = (),
        *,
        shared: bool = False,
        shared_series: Iterable[Labels] = (),
    ) -> None:
        super().__init__(name, help, labels)
        self.shared = shared
        self.shared_series = frozenset(shared_series)
        self._values: dict[Labels, float] = {} if labels else {(): 0.0}

    def set(self, labels: Labels, value: float) -> None:
        self._values[labels] = value

    def clear(self) -> None:
        """Removes every series, so that what is gone is no longer shown."""
        self._values.clear()

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        return [family]

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self.name, self.help, labels=self.labels)


@dataclass(frozen=True, slots=True)
class Tally:
    """Many values, counted into buckets: ``counts[i]`` of them are at most the i-th bound and above the one before."""

    counts: tuple[int, ...]
    total: float


def tally(values: Sequence[float], bounds: Sequence[float]) -> Tally:
    """Counts ``values`` into the buckets with these ascending upper bounds, and one more for what is above all."""
    ordered = sorted(values)
    reached = [0, *(bisect_right(ordered, bound) for bound in bounds), len(ordered)]
    return Tally(tuple(high - low for low, high in pairwise(reached)), sum(ordered))


class HistogramChild:
    """One series of a histogram, for code that often observes a value and holds it."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        #: by bucket, the last one for what is above all bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def observe_all(self, tally: Tally) -> None:
        """Adds values that were counted with these bounds."""
        for index, count in enumerate(tally.counts):
            self.counts[index] += count
        self.total += tally.total


class Histogram(Series):
    """How often values fell into each bucket. ``bounds`` are ascending upper bounds, infinity left out."""

    kind = "histogram"

    def __init__(self, name: str, help: str, labels: Labels, bounds: Sequence[float]) -> None:
        super().__init__(name, help, labels)
        self.bounds = tuple(bounds)
        self._upper = (*(str(bound) for bound in self.bounds), "+Inf")
        self._children: dict[Labels, HistogramChild] = {}

    def child(self, labels: Labels) -> HistogramChild:
        """The series with these values of the labels, shown from now on."""
        return self._children.get(labels) or self._children.setdefault(labels, HistogramChild(self.bounds))

    def observe(self, labels: Labels, value: float) -> None:
        self.child(labels).observe(value)

    def observe_all(self, labels: Labels, tally: Tally) -> None:
        """Adds values that were counted with this histogram's bounds."""
        self.child(labels).observe_all(tally)

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for labels, child in self._children.items():
            buckets, reached = [], 0
            for upper, count in zip(self._upper, child.counts, strict=True):
                reached += count
                buckets.append((upper, float(reached)))
            family.add_metric(labels, buckets, child.total)
        return [family]

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self.name, self.help, labels=self.labels)


OTHER = "other"
NONE = "none"

LONGEST = 100


class Names:
    """Lets at most ``limit`` distinct names through, ever; every further one, and every odd one, is ``other``."""

    def __init__(self, limit: int = 100) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def label(self, name: str, *, proven: bool = True) -> str:
        """The label for ``name``; ``none`` for an empty one. One that is not ``proven`` takes no place."""
        if name in self._known:
            return name
        if not name:
            return NONE
        if not proven or len(self._known) >= self._limit or len(name) > LONGEST or not name.isprintable():
            return OTHER
        self._known.add(name)
        return name
