"""What a span says of a request: OpenTelemetry's conventions for generative AI (1.41) and HTTP, and words of ours.

Never what was asked or answered: the conventions leave that out, too, unless somebody wants it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from llmproxy.observe.genai import OPERATIONS
from llmproxy.wire.exchange import Exchange

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
    """``provider`` is the upstream's kind, "" where none was asked."""
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
