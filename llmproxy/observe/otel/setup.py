"""Puts together what sends traces to a collector."""

import asyncio
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import entry_points
from typing import Any

from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from llmproxy.observe.batcher import Batcher
from llmproxy.observe.metrics import Metrics
from llmproxy.observe.otel.spans import Spans
from llmproxy.wire.exchange import Exchange

NAME = "llmproxy"

#: requests whose spans are still to be made
_BOUND = 2_048
#: of them in one turn of the event loop: a span for every phase of each is made there
_PIECE = 8


def open_otel(environment: Mapping[str, str], metrics: Metrics, version: str) -> "OpenTelemetry":
    """Opens the SDK's exporters. Raises whatever they raise for a wrong environment."""
    faults = ExportFaults(asyncio.get_running_loop(), metrics.observing_failed)
    provider = TracerProvider(resource=resource_for(version), shutdown_on_exit=False)
    for exporter in exporters(environment):
        provider.add_span_processor(BatchSpanProcessor(CountingExporter(exporter, faults)))
    return OpenTelemetry(provider, version, metrics.observing_failed)


class OpenTelemetry:
    """``Tracing`` with the SDK."""

    def __init__(self, provider: TracerProvider, version: str, on_fault: Callable[[str], None]) -> None:
        self._provider = provider
        self._on_fault = on_fault
        self.tracer = Spans(provider.get_tracer(NAME, version))
        self._batcher: Batcher[Exchange] = Batcher(
            {"traces": self._write}, on_fault=on_fault, interval=0.0, batch=_PIECE
        )

    @property
    def room(self) -> int:
        return _BOUND - len(self._batcher)

    def name_kinds(self, kinds: Callable[[str], str]) -> None:
        self.tracer.kind_of = kinds

    def record(self, requests: Sequence[Exchange]) -> None:
        room = self.room
        for traced in requests[:room]:
            self._batcher.add(traced)
        if len(requests) > room:
            self._on_fault("traces")

    async def close(self, limit: float) -> None:
        self._batcher.close()
        with suppress(TimeoutError):
            await run_in_thread(self._provider.shutdown, limit)

    def _write(self, batch: Sequence[Exchange]) -> None:
        for traced in batch:
            self.tracer.end(traced)


def resource_for(version: str) -> Resource:
    """This process, under the name of ``OTEL_SERVICE_NAME`` or the program's own."""
    resource = Resource.create()
    ours = {SERVICE_VERSION: version, SERVICE_INSTANCE_ID: str(uuid.uuid4())}
    if str(resource.attributes.get(SERVICE_NAME, "unknown_service")).startswith("unknown_service"):
        ours[SERVICE_NAME] = NAME
        return resource.merge(Resource(ours))
    # what the environment says of these wins
    return Resource(ours).merge(resource)


class ExportFaults:
    """Counts failures that happen in other threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: Callable[[str], None]) -> None:
        self._loop = loop
        self._count = count

    def note(self, part: str) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._count, part)


class CountingExporter(SpanExporter):
    """Another exporter, whose failures are counted."""

    def __init__(self, exporter: SpanExporter, faults: ExportFaults) -> None:
        self._exporter = exporter
        self._faults = faults

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                self._faults.note("traces")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


_PROTOCOLS = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_DEFAULT_PROTOCOL = "http/protobuf"


class NoExporter(Exception):
    """The environment names an exporter that is not there; the message says which."""


def exporters(environment: Mapping[str, str]) -> list[Any]:
    """New exporters of traces; each reads its own part of the environment.

    Raises ``NoExporter``, and whatever an exporter raises for a wrong environment.
    """
    names = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    return [_exporter(name.strip(), environment) for name in names.split(",")]


def _exporter(name: str, environment: Mapping[str, str]) -> Any:
    wanted = name
    if name == "otlp":
        protocol = _protocol(environment)
        wanted = _PROTOCOLS.get(protocol, "")
        if not wanted:
            raise NoExporter(f"the protocol {protocol!r} is none of {', '.join(_PROTOCOLS)}")
    found = tuple(entry_points(group="opentelemetry_traces_exporter", name=wanted))
    if not found:
        raise NoExporter(f"the exporter {wanted!r} for traces is not installed")
    return found[0].load()()


def _protocol(environment: Mapping[str, str]) -> str:
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environment.get(name, "").strip():
            return protocol
    return _DEFAULT_PROTOCOL


async def run_in_thread(work: Callable[[], object], limit: float) -> None:
    """Runs ``work`` in a daemon thread and waits for it.

    Raises ``TimeoutError`` after ``limit`` seconds, and whatever ``work`` raises. The threads of asyncio's own executor
    would hold up the program's end for as long as a collector is silent.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def tell(error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        failure: Exception | None = None
        try:
            work()
        except Exception as error:  # noqa: BLE001  told to the one who waits
            failure = error
        # the loop may be gone by now, and with it whoever waited
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, failure)

    threading.Thread(target=run, name="otel", daemon=True).start()
    async with asyncio.timeout(limit):
        await done
