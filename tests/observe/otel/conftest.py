"""A collector, and the program in front of the scripted upstream that sends to it."""

from collections.abc import Iterator

import pytest

from tests.observe.otel.collector import Collector


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def wanted(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Collector:
    """The collector, as the environment of the programs to come names it; what there is to send is sent at once."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    return collector
