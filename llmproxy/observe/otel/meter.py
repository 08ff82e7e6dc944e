"""Sends what ``/metrics`` shows to a collector, at the interval that the environment names."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from llmproxy.observe.background import Background
from llmproxy.observe.metrics import Metrics
from llmproxy.observe.otel.aside import aside
from llmproxy.observe.otel.families import metrics_of

log = logging.getLogger(__name__)

NAME = "llmproxy"

_INTERVAL = 60.0
#: seconds one exporter may take
_LIMIT = 30.0


def interval_of(environment: Mapping[str, str]) -> float:
    """Seconds between two exports. Raises ``ValueError``."""
    milliseconds = environment.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip()
    if not milliseconds:
        return _INTERVAL
    if (seconds := float(milliseconds) / 1000) <= 0:
        raise ValueError("OTEL_METRIC_EXPORT_INTERVAL must be above 0")
    return seconds


class Meter(Background):
    """Sends every ``interval`` seconds. Counting began when it was made. What fails to be sent is sent the next time:
    every number is a total."""

    def __init__(
        self,
        exporters: Sequence[MetricExporter],
        resource: Resource,
        version: str,
        metrics: Metrics,
        interval: float,
    ) -> None:
        super().__init__("otel metrics")
        self._exporters = exporters
        self._resource = resource
        self._scope = InstrumentationScope(NAME, version)
        self._metrics = metrics
        self._since = time.time_ns()
        self._interval = interval

    async def close(self) -> None:
        """Sends the last totals."""
        await super().close()
        await self._send()
        for exporter in self._exporters:
            with suppress(TimeoutError):
                await aside(exporter.shutdown, _LIMIT)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._send()

    async def _send(self) -> None:
        families = await self._metrics.families()
        data = metrics_of(families, self._resource, self._scope, self._since, time.time_ns())
        for exporter in self._exporters:
            results: list[MetricExportResult] = []

            def export(exporter: MetricExporter = exporter, results: list[MetricExportResult] = results) -> None:
                results.append(exporter.export(data, timeout_millis=_LIMIT * 1000))

            try:
                await aside(export, _LIMIT)
            except TimeoutError:
                pass
            except Exception:  # whatever ails a collector, requests and the other exporters go on
                log.exception("metrics cannot be sent to the collector")
            if results != [MetricExportResult.SUCCESS]:
                self._metrics.observing_failed("otel-metrics")
