"""Sends what ``/metrics`` shows to a collector, at the interval that the environment names."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

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


class Meter:
    """Counting began when it was made. What fails to be sent is sent the next time: every number is a total."""

    def __init__(self, exporters: Sequence[MetricExporter], resource: Resource, version: str, metrics: Metrics) -> None:
        self._exporters = exporters
        self._resource = resource
        self._scope = InstrumentationScope(NAME, version)
        self._metrics = metrics
        self._since = time.time_ns()
        self._task: asyncio.Task[None] | None = None

    def open(self, interval: float) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(interval), name="otel metrics")

    async def close(self, limit: float) -> None:
        """Sends the last totals, within ``limit`` seconds."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._send(limit)
        for exporter in self._exporters:
            with suppress(TimeoutError):
                await aside(exporter.shutdown, limit)

    async def _run(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            await self._send(_LIMIT)

    async def _send(self, limit: float) -> None:
        families = await self._metrics.families()
        data = metrics_of(families, self._resource, self._scope, self._since, time.time_ns())
        for exporter in self._exporters:
            results: list[MetricExportResult] = []

            def export(exporter: MetricExporter = exporter, results: list[MetricExportResult] = results) -> None:
                results.append(exporter.export(data, timeout_millis=limit * 1000))

            try:
                await aside(export, limit)
            except TimeoutError:
                pass
            except Exception:  # whatever ails a collector, requests and the other exporters go on
                log.exception("metrics cannot be sent to the collector")
            if results != [MetricExportResult.SUCCESS]:
                self._metrics.observing_failed("otel-metrics")
