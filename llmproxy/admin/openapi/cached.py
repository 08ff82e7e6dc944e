"""The cached endpoints as operations, made from their table: one for each row, at the first of its paths."""

from collections.abc import Iterator

from llmproxy.admin.openapi.json_schema import ANY, FLAG, OBJECT, TEXT, Schema, array, choice, members, whole
from llmproxy.admin.openapi.operation import EVENTS, JSON, Operation
from llmproxy.wire.endpoints import ENDPOINTS, Endpoint
from llmproxy.wire.vocabulary import CacheStatus

_MESSAGES = array(OBJECT, example=[{"role": "user", "content": "Why is the sky blue?"}])
_TEXT_OR_TEXTS: Schema = {"anyOf": [TEXT, array(TEXT)], "example": "The cat sat on the mat."}
_PROMPT = TEXT | {"example": "Once upon a time"}

#: by row: what it is in words, and the members of a request that it cannot do without
_REQUESTS: dict[str, tuple[str, dict[str, Schema]]] = {
    "chat": ("Chat completion", {"messages": _MESSAGES}),
    "completions": ("Text completion", {"prompt": _TEXT_OR_TEXTS}),
    "embeddings": ("Embeddings, cached input by input", {"input": _TEXT_OR_TEXTS}),
    "responses": ("Response, which can be asked for again by its id", {"input": _TEXT_OR_TEXTS}),
    "messages": ("Anthropic's messages", {"max_tokens": whole(1), "messages": _MESSAGES}),
    "rerank": ("Ranking of documents", {"query": TEXT, "documents": array(TEXT)}),
    "transcriptions": ("Transcription of a recording", {"file": TEXT | {"format": "binary"}}),
    "ollama-chat": ("Ollama's chat", {"messages": _MESSAGES}),
    "ollama-generate": ("Ollama's completion", {"prompt": _PROMPT}),
    "ollama-embed": ("Ollama's embeddings", {"input": _TEXT_OR_TEXTS}),
    "ollama-embeddings": ("Ollama's embedding of one text", {"prompt": _PROMPT}),
}

#: what a request can ask of the cache
DIRECTIVES: dict[str, Schema] = {
    "Cache-Control": TEXT
    | {
        "description": "`no-cache`, `no-store`, `only-if-cached`, `max-age=N`, `min-fresh=N`, `max-stale[=N]`, "
        "`stale-if-error=N`"
    },
    "X-LLMProxy-TTL": {"type": "number", "exclusiveMinimum": 0, "description": "seconds that the answer is stored"},
    "X-LLMProxy-Namespace": TEXT | {"description": "a cache of its own"},
    "X-LLMProxy-Tags": TEXT | {"description": "labels to flush by, with commas between them"},
    "X-LLMProxy-Session": TEXT | {"description": "for the history"},
    "X-LLMProxy-User": TEXT | {"description": "for the history"},
    "X-LLMProxy-Replay": choice(("fast", "paced")) | {"description": "how a stored stream is sent"},
    "X-LLMProxy-Single-Flight": choice(("off",)) | {"description": "a generation of its own"},
    "X-Request-Id": TEXT | {"description": "the id of this request in answer, log and history"},
}

#: what an answer says of the cache
HEADERS: dict[str, Schema] = {
    "X-Cache": choice(status.value.upper() for status in CacheStatus),
    "Cache-Status": TEXT | {"description": "RFC 9211"},
    "Age": {"type": "integer", "description": "on a hit: seconds since the answer was stored"},
    "X-Request-Id": TEXT,
}


def cached_operations() -> Iterator[tuple[str, Operation]]:
    """The operations with their paths."""
    for row in ENDPOINTS:
        yield row.paths[0], _operation(row)


def _operation(row: Endpoint) -> Operation:
    summary, required = _REQUESTS[row.name]
    known = {"model": TEXT | {"example": "smollm2"}, **required, **({"stream": FLAG} if row.streams else {})}
    body = members(known, optional=known.keys() - required.keys())
    answers: dict[str, Schema] = {row.dialect.document_type.decode() or JSON: OBJECT}
    if row.streams:
        answers[row.dialect.stream_type.decode() or EVENTS] = TEXT
    if not row.dialect.document_type:
        answers["text/plain"] = TEXT
    return Operation(
        summary,
        tag="cached endpoints",
        headers=DIRECTIVES,
        body=body if row.dialect.json_requests else body | {"properties": known | {"response_format": ANY}},
        body_type=JSON if row.dialect.json_requests else "multipart/form-data",
        answers=answers,
        description=_description(row),
    )


def _description(row: Endpoint) -> str:
    lines = ["Any member that the model server knows may be there. All of them are part of the cache key, but for:", ""]
    lines += [f"- `{name}`: {why}" for name, why in row.excused.items()]
    text = "\n".join(lines) if row.excused else "Every member is part of the cache key."
    others = ", ".join(f"`{path}`" for path in row.paths[1:])
    return f"{text}\n\nAlso at {others}." if others else text
