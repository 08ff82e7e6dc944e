"""The numbers of several processes become one. Pure."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import NamedTuple

from prometheus_client.metrics_core import Metric

from llmproxy.observe.collectors import Across
from llmproxy.observe.processes.files import Cell, Entries

COUNTER, HISTOGRAM = "counter", "histogram"
_GAUGE = "gauge_"

#: a kind, which is what the library's file names begin with -> the entries
Reading = dict[str, Entries]
Combine = Callable[[Cell, Cell], Cell]

#: parsed keys that are remembered
_MOST_KEYS = 100_000

Labels = tuple[tuple[str, str], ...]


class Key(NamedTuple):
    """What a key says. ``bound`` is that of a bucket, None where it is none; ``le`` is not among the labels then."""

    family: str
    sample: str
    labels: Labels
    bound: float | None
    #: the bound as it was written
    word: str
    help: str


def kind_of(across: Across) -> str:
    """The kind of gauges that become one in this way."""
    return _GAUGE + across


def _sum(one: Cell, other: Cell) -> Cell:
    return one[0] + other[0], 0.0


def _newest(one: Cell, other: Cell) -> Cell:
    return other if other[1] > one[1] else one


#: how two cells of a kind become one
COMBINE: Mapping[str, Combine] = {
    COUNTER: _sum,
    HISTOGRAM: _sum,
    kind_of(Across.SUM): _sum,
    kind_of(Across.MIN): min,
    kind_of(Across.MAX): max,
    kind_of(Across.NEWEST): _newest,
}


class Keys:
    """Reads keys, each of them once. Usable from any thread."""

    def __init__(self) -> None:
        self._read: dict[str, Key] = {}

    def __getitem__(self, text: str) -> Key:
        """Raises ``ValueError`` for what is no key."""
        key = self._read.get(text)
        if key is None:
            if len(self._read) >= _MOST_KEYS:
                self._read.clear()
            key = self._read[text] = _parsed(text)
        return key


def merged(readings: Iterable[Reading]) -> Reading:
    """Every key once."""
    together: Reading = {}
    for reading in readings:
        for kind, entries in reading.items():
            combine, found = COMBINE[kind], together.setdefault(kind, {})
            for key, cell in entries.items():
                there = found.get(key)
                found[key] = cell if there is None else combine(there, cell)
    return together


def families(readings: Iterable[Reading], keys: Keys) -> list[Metric]:
    """What a page shows, in the order of appearance.

    Another version of the program may give a metric other words or another type: those of the first reading count.
    """
    found: dict[str, _Family] = {}
    for kind, entries in merged(readings).items():
        for text, cell in entries.items():
            key = keys[text]
            family = found.get(key.family)
            if family is None:
                family = found[key.family] = _Family(kind, key)
            if family.kind == kind:
                family.add(key, cell)
    return [family.metric() for family in found.values()]


class _Family:
    """One metric while it is put together. ``first`` is any of its keys."""

    def __init__(self, kind: str, first: Key) -> None:
        self.kind = kind
        self._combine = COMBINE[kind]
        self._name = first.family
        self._help = first.help
        self._cells: dict[tuple[str, Labels], Cell] = {}
        #: of a histogram: labels -> bound -> its word and count
        self._buckets: dict[Labels, dict[float, tuple[str, float]]] = {}

    def add(self, key: Key, cell: Cell) -> None:
        if key.bound is not None:
            buckets = self._buckets.setdefault(key.labels, {})
            word, count = buckets.get(key.bound, (key.word, 0.0))
            buckets[key.bound] = word, count + cell[0]
            return
        name = key.sample, key.labels
        there = self._cells.get(name)
        self._cells[name] = cell if there is None else self._combine(there, cell)

    def metric(self) -> Metric:
        metric = Metric(self._name, self._help, self.kind.partition("_")[0])
        for name, labels, value in chain(self._counted(), self._plain()):
            metric.add_sample(name, labels, value)
        return metric

    def _plain(self) -> Iterator[tuple[str, dict[str, str], float]]:
        for (name, labels), (value, _) in self._cells.items():
            yield name, dict(labels), value

    def _counted(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """Buckets as a page has them: each with what is in those below it."""
        for labels, buckets in self._buckets.items():
            reached = 0.0
            for bound in sorted(buckets):
                word, count = buckets[bound]
                reached += count
                yield f"{self._name}_bucket", {**dict(labels), "le": word}, reached
            yield f"{self._name}_count", dict(labels), reached


def _parsed(text: str) -> Key:
    match json.loads(text):
        case [str(family), str(sample), dict(labels), str(help)] if all(
            isinstance(value, str) for value in labels.values()
        ):
            word = labels.pop("le", "")
            bound = float(word) if word else None
            return Key(family, sample, tuple(labels.items()), bound, word, help)
    raise ValueError("no key of a metric")
