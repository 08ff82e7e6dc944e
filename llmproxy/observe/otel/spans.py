"""One span for every request, a child for every phase of its life.

A request's span is begun when the request comes in, because the upstream is told its id; everything else is written
down afterwards, when the request is counted.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import cast

from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context

from llmproxy.observe.otel.attributes import attributes_of, error_of, name_of
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.vocabulary import Phase

Headers = list[tuple[bytes, bytes]]


class RequestTrace:
    """The part of one request in its trace."""

    def __init__(self, span: Span, parent: Context, fields: frozenset[bytes]) -> None:
        #: None once it was written down: an answer that is remembered keeps its first request's part in the trace
        self.span: Span | None = span
        #: what the client said of the trace
        self.parent = parent
        self._fields = fields

    def passed_on(self, headers: Headers) -> Headers:
        if self.span is None:
            return headers
        carrier: dict[str, str] = {}
        get_global_textmap().inject(carrier, set_span_in_context(self.span, self.parent))
        kept = [header for header in headers if header[0] not in self._fields]
        return [*kept, *((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in carrier.items())]


class Spans:
    """Begins and ends the spans of requests."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        # the propagators are those of OTEL_PROPAGATORS
        self._fields = frozenset(field.lower().encode("latin-1") for field in get_global_textmap().fields)
        #: an upstream's name -> its kind, a word of a closed list
        self.kind_of: Callable[[str], str] = lambda upstream: ""

    def begin(self, headers: Iterable[tuple[bytes, bytes]], started_at: float) -> RequestTrace:
        """The client's trace goes on; who brings none begins one."""
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name in self._fields}
        parent = get_global_textmap().extract(carrier, Context())
        return RequestTrace(self._start("request", parent, started_at, SpanKind.SERVER), parent, self._fields)

    def end(self, traced: Exchange) -> None:
        """Writes down a finished request, be it one that was answered like the one its trace was begun for."""
        begun = cast(RequestTrace, traced.trace)
        span, begun.span = begun.span, None
        if span is None:
            span = self._start("request", begun.parent, traced.started_at, SpanKind.SERVER)
        if not span.is_recording():
            return
        span.update_name(name_of(traced))
        span.set_attributes(attributes_of(traced, self.kind_of(traced.upstream) if traced.upstream else ""))
        if traced.status >= 500 or (traced.status < 400 and error_of(traced)):
            # a status from 400 on is the client's doing, and no error of a server's span
            span.set_status(StatusCode.ERROR, traced.error or None)
        self._end_phases(traced.phases, set_span_in_context(span, Context()), traced.started_at)
        span.end(_nanoseconds(traced.started_at + traced.seconds))

    def _start(self, name: str, parent: Context, at: float, kind: SpanKind) -> Span:
        return self._tracer.start_span(name, context=parent, kind=kind, start_time=_nanoseconds(at))

    def _end_phases(self, phases: Mapping[Phase, float], parent: Context, at: float) -> None:
        for phase, seconds in phases.items():
            child = self._start(phase.value, parent, at, SpanKind.INTERNAL)
            at += seconds
            child.end(_nanoseconds(at))


def _nanoseconds(at: float) -> int:
    return int(at * 1e9)
