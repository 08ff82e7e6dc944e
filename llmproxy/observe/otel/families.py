"""Prometheus' families as OpenTelemetry's metrics: the same numbers under the same names, but for the conventions'."""

import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

#: a family -> the conventions' name and unit of it
_CONVENTIONS = {
    "gen_ai_client_operation_duration_seconds": ("gen_ai.client.operation.duration", "s"),
    "gen_ai_client_token_usage": ("gen_ai.client.token.usage", "{token}"),
    "gen_ai_server_time_to_first_token_seconds": ("gen_ai.server.time_to_first_token", "s"),
    "gen_ai_server_time_per_output_token_seconds": ("gen_ai.server.time_per_output_token", "s"),
}
_UNITS = {"seconds": "s", "bytes": "By", "ratio": "1"}
_UNIT = re.compile(r"_(seconds|bytes|ratio)(_total)?$")
_CUMULATIVE = AggregationTemporality.CUMULATIVE

Labels = tuple[tuple[str, str], ...]


def metrics_of(
    families: Iterable[Family], resource: Resource, scope: InstrumentationScope, since: int, now: int
) -> MetricsData:
    """``since`` is when counting began, ``now`` when the families were read, both in Unix nanoseconds."""
    metrics = [_metric(family, since, now) for family in families if family.samples]
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, metrics, "")], "")])


def _metric(family: Family, since: int, now: int) -> Metric:
    if family.type == "histogram":
        points = [_distribution(labels, samples, since, now) for labels, samples in _by_labels(family.samples).items()]
        return _named(family.name, family.documentation, Histogram(points, _CUMULATIVE))
    if family.type == "counter":
        counts = [_number(sample, since, now) for sample in family.samples if sample.name.endswith("_total")]
        return _named(family.name + "_total", family.documentation, Sum(counts, _CUMULATIVE, is_monotonic=True))
    return _named(family.name, family.documentation, Gauge([_number(sample, 0, now) for sample in family.samples]))


def _named(name: str, help: str, data: "Sum | Gauge | Histogram") -> Metric:
    given = _CONVENTIONS.get(name)
    if given is None:
        found = _UNIT.search(name)
        given = name, _UNITS[found[1]] if found else ""
    return Metric(given[0], help, given[1], data)


def _number(sample: Sample, since: int, now: int) -> NumberDataPoint:
    return NumberDataPoint(_attributes(sample.labels), since, now, float(sample.value))


def _by_labels(samples: Iterable[Sample]) -> dict[Labels, list[Sample]]:
    """The samples of one distribution together: its buckets, its sum and its count differ in ``le`` only."""
    found: defaultdict[Labels, list[Sample]] = defaultdict(list)
    for sample in samples:
        found[tuple((name, value) for name, value in sample.labels.items() if name != "le")].append(sample)
    return found


def _distribution(labels: Labels, samples: list[Sample], since: int, now: int) -> HistogramDataPoint:
    reached = [0.0, *(sample.value for sample in samples if sample.name.endswith("_bucket"))]
    bounds = [float(sample.labels["le"]) for sample in samples if "le" in sample.labels][:-1]
    total = next(sample.value for sample in samples if sample.name.endswith("_sum"))
    counts = [int(high - low) for low, high in pairwise(reached)]
    # min and max are not known, and left out where they are not numbers
    return HistogramDataPoint(_attributes(dict(labels)), since, now, sum(counts), total, counts, bounds, None, None)  # type: ignore[arg-type]


def _attributes(labels: dict[str, str]) -> dict[str, str]:
    return {_attribute(name): value for name, value in labels.items() if value}


def _attribute(label: str) -> str:
    if label.startswith("gen_ai_"):
        head, rest = "gen_ai.", label.removeprefix("gen_ai_")
        return head + rest.replace("_", ".")
    return "error.type" if label == "error_type" else label
