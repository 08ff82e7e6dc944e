"""The table of cached endpoints. A row has an endpoint's paths, its dialect and its excused fields.

Every field of a request body is part of the key unless its row excuses it by name, with the reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmproxy.wire.dialect import Dialect
from llmproxy.wire.formats.chat import CHAT, COMPLETIONS
from llmproxy.wire.formats.embeddings import EMBEDDINGS
from llmproxy.wire.formats.messages import MESSAGES
from llmproxy.wire.formats.ollama import OLLAMA_CHAT, OLLAMA_EMBED, OLLAMA_EMBEDDINGS, OLLAMA_GENERATE
from llmproxy.wire.formats.plain import RERANK
from llmproxy.wire.formats.responses import RESPONSES
from llmproxy.wire.formats.transcriptions import FILE_NAME, FILE_TYPE, TRANSCRIPTIONS

_RENDERING = {
    "stream": "chooses the form of the answer; one entry serves both",
    "stream_options": "include_usage adds a chunk with the usage; its other fields are part of the key",
}
_BOOKKEEPING = {
    "user": "names the caller for the operator; the model never sees it",
    "metadata": "the caller's own labels; the model never sees them",
    "store": "whether the answer becomes addressable; not what it says",
    "safety_identifier": "names the caller for the operator",
    "prompt_cache_key": "a routing hint for the provider's prefix cache",
    "prompt_cache_retention": "lifetime of the provider's prefix cache",
    "prompt_cache_options": "settings of the provider's prefix cache",
    "service_tier": "a price class of the hosted service",
}
_OLLAMA = {"keep_alive": "how long the model stays loaded"}
_LLAMACPP = {
    "cache_prompt": "reuse of the prefix cache in the server",
    "id_slot": "which slot of the server works",
    "n_cache_reuse": "reuse of the prefix cache in the server",
    "sse_ping_interval": "comments in the stream, which are never passed on",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row. ``name`` is the operation in the key, the metric label and the history."""

    name: str
    paths: tuple[str, ...]
    dialect: Dialect
    excused: Mapping[str, str] = field(default_factory=dict)
    #: whether there are streams at all
    streams: bool = True
    #: whether an absent ``stream`` means a stream (Ollama's own API)
    streams_by_default: bool = False
    #: whether entries are kept per input instead of per request
    per_input: bool = False
    #: whether answers repeat members of the request that are not part of the key (``wire.echo``)
    echoes: bool = False
    #: the member without which a request only loads or unloads its model (Ollama's own API), "" for none
    needs: str = ""
    #: fields whose presence with a true value means that the request must run every time
    side_effects: frozenset[str] = frozenset()


_WALL_CLOCK = frozenset({"t_max_predict_ms"})

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "chat",
        ("/v1/chat/completions", "/chat/completions"),
        CHAT,
        excused=_RENDERING | _BOOKKEEPING | _LLAMACPP,
        side_effects=_WALL_CLOCK,
    ),
    Endpoint(
        "completions",
        ("/v1/completions",),
        COMPLETIONS,
        excused=_RENDERING | {"user": _BOOKKEEPING["user"]} | _LLAMACPP,
        side_effects=_WALL_CLOCK,
    ),
    Endpoint(
        "embeddings",
        ("/v1/embeddings",),
        EMBEDDINGS,
        excused={
            "user": _BOOKKEEPING["user"],
            "encoding_format": "float and base64 are renderings of one stored vector",
            "input": "keyed input by input",
        },
        streams=False,
        per_input=True,
    ),
    Endpoint(
        "responses",
        ("/v1/responses", "/responses"),
        RESPONSES,
        excused=_RENDERING
        | _BOOKKEEPING
        | _LLAMACPP
        | {
            "background": "when the answer is made; not what it says",
            "background_options": "when the answer is made; not what it says",
        },
        echoes=True,
        side_effects=_WALL_CLOCK | {"background", "conversation", "previous_response_id"},
    ),
    Endpoint("messages", ("/v1/messages",), MESSAGES, excused={"metadata": _BOOKKEEPING["metadata"]}),
    Endpoint(
        "rerank",
        ("/v1/rerank", "/rerank", "/v1/reranking", "/reranking"),
        RERANK,
        streams=False,
    ),
    Endpoint(
        "transcriptions",
        ("/v1/audio/transcriptions",),
        TRANSCRIPTIONS,
        excused={
            FILE_NAME: "the recording is known by its digest",
            FILE_TYPE: "the recording is known by its digest",
        },
    ),
    Endpoint(
        "ollama-chat",
        ("/api/chat",),
        OLLAMA_CHAT,
        needs="messages",
        excused=_OLLAMA | {"stream": _RENDERING["stream"]},
        streams_by_default=True,
    ),
    Endpoint(
        "ollama-generate",
        ("/api/generate",),
        OLLAMA_GENERATE,
        needs="prompt",
        excused=_OLLAMA | {"stream": _RENDERING["stream"]},
        streams_by_default=True,
    ),
    Endpoint(
        "ollama-embed",
        ("/api/embed",),
        OLLAMA_EMBED,
        needs="input",
        streams=False,
        excused=_OLLAMA,
    ),
    Endpoint(
        "ollama-embeddings",
        ("/api/embeddings",),
        OLLAMA_EMBEDDINGS,
        needs="prompt",
        streams=False,
        excused=_OLLAMA,
    ),
)


def shaping(options: object) -> dict[str, Any]:
    """The members of ``stream_options`` beside the usage: they may change the frames, so they are keyed."""
    return (
        {name: value for name, value in options.items() if name != "include_usage"} if isinstance(options, dict) else {}
    )


BY_PATH: Mapping[str, Endpoint] = {path: row for row in ENDPOINTS for path in row.paths}
