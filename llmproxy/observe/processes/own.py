"""What this process counts, as entries for the others."""

import time
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import ProcessCollector
from prometheus_client.mmap_dict import mmap_key

from llmproxy.observe.collectors import Across, Labels, Numbers, Series
from llmproxy.observe.processes.merge import COUNTER, HISTOGRAM, Reading, kind_of

#: a metric and its numbers at one moment
Frozen = Sequence[tuple[Series, Numbers]]

#: of the ``process_*`` metrics those that do not add up
_YOUNGEST = frozenset({"process_start_time_seconds"})


def frozen(metrics: Iterable[Series]) -> Frozen:
    """The numbers of now; on the event loop, and quick."""
    return [(series, series.numbers()) for series in metrics]


class Own:
    """Makes entries of numbers. Reads small files of the system; usable from any thread."""

    def __init__(self) -> None:
        self._process = ProcessCollector(registry=None)
        #: a metric's name and the values of its labels -> the keys of its numbers
        self._keys: dict[tuple[str, Labels], tuple[str, ...]] = {}

    def entries(self, numbers: Frozen) -> tuple[Reading, Reading]:
        """What is this process's own, and what is the same in all processes that share a database."""
        own: Reading = {}
        shared: Reading = {}
        now = time.time()
        for series, values in numbers:
            kind = series.kind if series.kind in (COUNTER, HISTOGRAM) else kind_of(series.across)
            at = now if series.across is Across.NEWEST else 0.0
            for labels, cells in values.items():
                entries = (shared if series.is_shared(labels) else own).setdefault(kind, {})
                entries.update((key, (value, at)) for key, value in zip(self._of(series, labels), cells, strict=True))
        self._add_process(own)
        return own, shared

    def _of(self, series: Series, labels: Labels) -> tuple[str, ...]:
        keys = self._keys.get((series.name, labels))
        if keys is None:
            named = dict(zip(series.labels, labels, strict=True))
            family = series.name.removesuffix("_total") if series.kind == COUNTER else series.name
            keys = tuple(
                _key(family, series.name + ending, {**named, **more}, series.help) for ending, more in series.parts
            )
            self._keys[series.name, labels] = keys
        return keys

    def _add_process(self, own: Reading) -> None:
        for metric in self._process.collect():
            across = Across.MAX if metric.name in _YOUNGEST else Across.SUM
            entries = own.setdefault(COUNTER if metric.type == COUNTER else kind_of(across), {})
            for sample in metric.samples:
                key = _key(metric.name, sample.name, sample.labels, metric.documentation)
                entries[key] = sample.value, 0.0


def _key(family: str, sample: str, labels: Mapping[str, str], help: str) -> str:
    return mmap_key(family, sample, list(labels), list(labels.values()), help)
