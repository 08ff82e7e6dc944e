"""What the environment asks for, and what becomes of what cannot be had."""

import sys

import pytest

from llmproxy.observe.metrics import Metrics
from llmproxy.observe.otel.exporters import NoExporter, exporters
from llmproxy.observe.telemetry import NoTelemetry, open_telemetry, signals

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ()),
        ({"OTEL_SERVICE_NAME": "mine"}, ()),
        (ENDPOINT, ("traces", "metrics")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, ()),
        ({**ENDPOINT, "OTEL_METRICS_EXPORTER": "none"}, ("traces",)),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, ("metrics",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, ("traces",)),
        ({"OTEL_METRICS_EXPORTER": "console"}, ("metrics",)),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"}, ()),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, ("traces", "metrics")),
    ],
)
def test_signals(environment: dict[str, str], expected: tuple[str, ...]) -> None:
    assert signals(environment) == expected


def test_without_the_extra_a_line_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "llmproxy.observe.otel.opening", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    telemetry = open_telemetry(ENDPOINT, Metrics("1"), "1")
    assert isinstance(telemetry, NoTelemetry)
    assert telemetry.tracer is None
    (line,) = caplog.messages
    assert "llmproxy[otel]" in line


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "the exporter 'zipkin' for traces is not installed"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "the exporter 'otlp_proto_grpc' for traces is not installed"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "smoke"}, "the protocol 'smoke' is none of grpc, http/protobuf"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "soon"}, "could not convert string to float"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "0"}, "must be above 0"),
    ],
    ids=["exporter", "grpc", "protocol", "interval", "no-interval"],
)
async def test_what_cannot_be_had_is_said_and_done_without(
    more: dict[str, str], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(open_telemetry({**ENDPOINT, **more}, Metrics("1"), "1"), NoTelemetry)
    (line,) = caplog.messages
    assert why in line


def test_several_exporters() -> None:
    assert len(exporters("metrics", {"OTEL_METRICS_EXPORTER": "console, otlp"})) == 2
    with pytest.raises(NoExporter):
        exporters("metrics", {"OTEL_METRICS_EXPORTER": "console,none"})
