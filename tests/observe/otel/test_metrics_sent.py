"""What ``/metrics`` shows, as a collector gets it."""

import math

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import Histogram as SentHistogram
from opentelemetry.sdk.metrics.export import HistogramDataPoint, Metric
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry

from llmproxy.observe.catalogue import Catalogue
from llmproxy.observe.collectors import Histogram
from llmproxy.observe.genai import Generations
from llmproxy.observe.otel.families import metrics_of
from tests.conftest import MakeProxy
from tests.observe.exchanges import miss
from tests.observe.otel.collector import Collector, words
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream


def test_totals_reach_the_collector_at_the_end(
    upstream: ScriptedUpstream, proxy: MakeProxy, wanted: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    server = proxy(upstream.url)
    body = {"model": "scripted", "messages": [{"role": "user", "content": marker()}], "stream": True}
    for _ in range(3):
        httpx.post(f"{server.url}/v1/chat/completions", json=body, trust_env=False)
    server.stop()
    assert wanted.spans == []
    assert wanted.resources[-1].items() >= {"service.name": "ours"}.items()

    requests = wanted.metric("llmproxy_requests_total")
    assert requests.sum.is_monotonic
    counted = {str(words(point.attributes)["cache"]): point.as_double for point in requests.sum.data_points}
    assert counted == {"miss": 1.0, "hit": 2.0}

    durations = wanted.metric("gen_ai.client.operation.duration")
    (point,) = durations.histogram.data_points
    assert durations.unit == "s"
    assert point.count == 1
    assert words(point.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "scripted",
    }
    assert wanted.metric("gen_ai.client.token.usage").unit == "{token}"
    assert wanted.metric("gen_ai.server.time_to_first_token").histogram.data_points[0].count == 1
    assert wanted.metric("llmproxy_database_bytes").gauge.data_points[0].as_double > 0
    assert wanted.metric("process_resident_memory_bytes").unit == "By"


def test_they_are_sent_again_and_again(
    upstream: ScriptedUpstream, proxy: MakeProxy, wanted: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    proxy(upstream.url)
    wanted.exports(3)


@given(st.lists(st.floats(0, 100, allow_nan=False), max_size=50))
def test_a_distribution_keeps_its_numbers(values: list[float]) -> None:
    histogram = Histogram("some_seconds", "help", ("word",), (0.5, 1.0, 50.0))
    for value in values:
        histogram.observe(("a",), value)
        histogram.observe(("b",), value + 1)
    found = {str((point.attributes or {})["word"]): point for point in sent(histogram)}
    assert found.keys() == ({"a", "b"} if values else set())
    for word, added in (("a", 0.0), ("b", 1.0)) if values else ():
        point = found[word]
        assert point.count == len(values) == sum(point.bucket_counts)
        assert math.isclose(point.sum, sum(value + added for value in values), abs_tol=1e-6)
        assert point.explicit_bounds == [0.5, 1.0, 50.0]
        assert point.bucket_counts[0] == sum(value + added <= 0.5 for value in values)
        assert point.bucket_counts[-1] == sum(value + added > 50.0 for value in values)


def test_every_metric_of_the_conventions_has_their_name() -> None:
    generations = Generations()
    generations.count(miss(stream=True, upstream="u"), "llama.cpp")
    names = {metric.name for series in generations.all() for metric in data(series)}
    assert names == {
        "gen_ai.client.operation.duration",
        "gen_ai.client.token.usage",
        "gen_ai.server.time_to_first_token",
        "gen_ai.server.time_per_output_token",
    }


def test_every_other_metric_has_the_name_it_has_at_metrics() -> None:
    catalogue = Catalogue()
    catalogue.requests.add(("chat", "m", "hit", "memory", "200"))
    names = {metric.name for series in catalogue.all() for metric in data(series)}
    assert "llmproxy_requests_total" in names
    assert names <= {series.name for series in catalogue.all()}


def data(series: "Histogram | object") -> list[Metric]:
    registry = CollectorRegistry()
    registry.register(series)  # type: ignore[arg-type]
    batch = metrics_of(registry.collect(), Resource({}), InstrumentationScope("tests"), 1, 2)
    return list(batch.resource_metrics[0].scope_metrics[0].metrics)


def sent(histogram: Histogram) -> list[HistogramDataPoint]:
    metrics = data(histogram)
    if not metrics:
        return []
    assert isinstance(metrics[0].data, SentHistogram)
    return list(metrics[0].data.data_points)
