"""A collector of OpenTelemetry's protocol over HTTP, that remembers what it is sent."""

import gzip
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.timeouts import WAIT_SECONDS


class Collector:
    """Listens on a free port of the loopback. ``status`` is what it answers."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.raw: list[bytes] = []
        self.resources: list[dict[str, object]] = []
        self._spans: list[Span] = []
        self._arrived = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                self.send_response(collector._take(body))
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: what is printed here is the tests'."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def requests(self, count: int) -> list[Span]:
        """The spans of the first ``count`` requests, in the order of their beginnings."""
        self._wait(lambda: len(self._roots()) >= count, f"{count} requests")
        return self._roots()

    def phases(self, request: Span) -> list[Span]:
        """The children of a request's span."""
        return [span for span in self._spans if span.parent_span_id == request.span_id]

    @property
    def spans(self) -> list[Span]:
        return list(self._spans)

    def _roots(self) -> list[Span]:
        return sorted((span for span in self._spans if span.kind == Span.SPAN_KIND_SERVER), key=_beginning)

    def _take(self, body: bytes) -> int:
        with self._arrived:
            self.raw.append(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append(words(resource.resource.attributes))
                self._spans += [span for scope in resource.scope_spans for span in scope.spans]
            self._arrived.notify_all()
        return self.status

    def _wait(self, there: Callable[[], bool], what: str) -> None:
        with self._arrived:
            if not self._arrived.wait_for(there, WAIT_SECONDS):
                raise TimeoutError(f"{what} did not reach the collector within {WAIT_SECONDS} s")


def words(attributes: Iterable[KeyValue]) -> dict[str, object]:
    """Attributes as a dictionary."""
    return {each.key: _value(each.value) for each in attributes}


def _value(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind or "string_value")


def _beginning(span: Span) -> int:
    return span.start_time_unix_nano
