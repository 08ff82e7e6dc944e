"""One span for every request, a child for every phase of its life.

A request's span is begun when the request comes in, because the upstream is told its id; everything else is written
down afterwards, when the request is counted.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import orjson
from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context

from llmproxy.observe.metrics import OPERATIONS
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.headers import HeaderList
from llmproxy.wire.vocabulary import Phase


class RequestTrace:
    """The part of one request in its trace."""

    def __init__(self, span: Span, parent: Context, fields: frozenset[bytes]) -> None:
        #: None once it was written down: an answer that is remembered keeps its first request's part in the trace
        self.span: Span | None = span
        #: what the client said of the trace
        self.parent = parent
        self._fields = fields

    def propagate(self, headers: HeaderList) -> HeaderList:
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
        """Continues the client's trace, or begins a new one."""
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
        if (traced.status >= 500 and traced.failed) or (traced.status < 400 and error_of(traced)):
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


Value = str | int | float | Sequence[str]

#: a body larger than this is not read again for the sake of a span
_LARGEST_BODY = 256 * 1024

#: a request's fields -> the conventions' names
_NUMBERS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}


def name_of(traced: Exchange) -> str:
    """The span's name: the operation and the model, or the method and the endpoint."""
    operation = OPERATIONS.get(traced.endpoint)
    if operation is None:
        return f"{traced.method} {traced.endpoint}"
    return f"{operation} {traced.model}" if traced.model else operation


def attributes_of(traced: Exchange, provider: str) -> dict[str, Value]:
    """``provider`` is the upstream's kind, "" without an upstream call."""
    found: dict[str, Value] = {
        "http.request.method": traced.method,
        "url.path": traced.path,
        "http.response.status_code": traced.status,
        "llmproxy.request_id": traced.request_id,
        "llmproxy.endpoint": traced.endpoint,
    }
    words = {
        "llmproxy.cache": traced.cache,
        "llmproxy.reason": traced.reason,
        "llmproxy.stored": traced.stored,
        "llmproxy.upstream": traced.upstream,
        "gen_ai.provider.name": provider,
        "gen_ai.conversation.id": traced.session,
        "error.type": error_of(traced),
    }
    found |= {name: str(word) for name, word in words.items() if word}
    if traced.endpoint in OPERATIONS:
        found |= _generation(traced)
    return found


def error_of(traced: Exchange) -> str:
    """The status of an error, ``_OTHER`` for a stream that broke off, "" for a success."""
    if traced.status >= 400:
        return str(traced.status)
    return "_OTHER" if traced.error else ""


def _generation(traced: Exchange) -> Iterator[tuple[str, Value]]:
    yield "gen_ai.operation.name", OPERATIONS[traced.endpoint]
    if traced.model:
        yield "gen_ai.request.model", traced.model
    if traced.stream:
        yield "gen_ai.request.stream", True
    usage = traced.usage
    if usage.prompt_tokens is not None:
        yield "gen_ai.usage.input_tokens", usage.prompt_tokens
    if usage.completion_tokens is not None:
        yield "gen_ai.usage.output_tokens", usage.completion_tokens
    yield from _asked(_document(traced.request_body))
    yield from _answered(_document(traced.response_body))


def _asked(body: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    options = body.get("options")
    # Ollama's own dialect keeps them apart
    fields = {**options, **body} if isinstance(options, dict) else body
    for field, name in _NUMBERS.items():
        value = fields.get(field)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value
    stops = fields.get("stop")
    if isinstance(stops, str):
        stops = [stops]
    if isinstance(stops, list) and stops and all(isinstance(stop, str) for stop in stops):
        yield "gen_ai.request.stop_sequences", stops


def _answered(body: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    for field, name in (("id", "gen_ai.response.id"), ("model", "gen_ai.response.model")):
        value = body.get(field)
        if isinstance(value, str) and value:
            yield name, value
    choices = body.get("choices")
    if isinstance(choices, list):
        reasons = [choice.get("finish_reason") for choice in choices if isinstance(choice, dict)]
    else:
        reasons = [body.get("stop_reason") or body.get("done_reason")]
    words = [reason for reason in reasons if isinstance(reason, str)]
    if words:
        yield "gen_ai.response.finish_reasons", words


def _document(body: bytes) -> Mapping[str, Any]:
    if not 0 < len(body) <= _LARGEST_BODY:
        return {}
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}
