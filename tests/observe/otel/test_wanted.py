"""What the environment asks for, and what becomes of what cannot be had."""

import sys

import pytest

from llmproxy.observe.metrics import Metrics
from llmproxy.observe.otel.setup import NoExporter, exporters
from llmproxy.observe.tracing import NoTracing, is_tracing_enabled, open_tracing

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "mine"}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4318/v1/metrics"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, True),
    ],
)
def test_what_the_environment_asks_for(environment: dict[str, str], expected: bool) -> None:
    assert is_tracing_enabled(environment) is expected


def test_without_the_extra_a_line_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "llmproxy.observe.otel.setup", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    tracing = open_tracing(ENDPOINT, Metrics("1"), "1")
    assert isinstance(tracing, NoTracing)
    assert tracing.tracer is None
    (line,) = caplog.messages
    assert "llm-caching-proxy[otel]" in line


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "the exporter 'zipkin' for traces is not installed"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "the exporter 'otlp_proto_grpc' for traces is not installed"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "smoke"}, "the protocol 'smoke' is none of grpc, http/protobuf"),
    ],
    ids=["exporter", "grpc", "protocol"],
)
async def test_what_cannot_be_had_is_said_and_done_without(
    more: dict[str, str], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(open_tracing({**ENDPOINT, **more}, Metrics("1"), "1"), NoTracing)
    (line,) = caplog.messages
    assert why in line


def test_several_exporters() -> None:
    assert len(exporters({"OTEL_TRACES_EXPORTER": "console, otlp"})) == 2
    with pytest.raises(NoExporter):
        exporters({"OTEL_TRACES_EXPORTER": "console,none"})
