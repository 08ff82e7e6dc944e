"""Plausible answers of every endpoint: the plain document and the frames of the stream that amounts to it."""

import base64
import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.scripted_upstream.script import Script

Json = dict[str, Any]
SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
EPOCH = 1_800_000_000
VOCABULARY = ("zero", "one", "two", "three", "four", "naïve", "日本", "🙂", "e\u0301", "end")


@dataclass(frozen=True, slots=True)
class Answer:
    """``finish`` is the index of the frame that carries the finish reason; the last frame is the terminal one.

    ``raw`` is the body of a plain answer that is no JSON.
    """

    document: Json
    frames: tuple[bytes, ...] = ()
    stream_type: str = SSE
    finish: int = -1
    raw: bytes | None = None
    content_type: str = "application/json"

    @property
    def body(self) -> bytes:
        """The plain answer."""
        return json.dumps(self.document, ensure_ascii=False).encode() if self.raw is None else self.raw


def words(number: int, script: Script) -> list[str]:
    """The pieces of an answer's text. The first names the visit, so that no two answers are equal."""
    pad = ["x" * 1024] * (script.size // 1024)
    return [f"answer-{number}", *(" " + VOCABULARY[i % len(VOCABULARY)] for i in range(script.words)), *pad]


def sse(document: Json, event: str | None = None) -> bytes:
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {json.dumps(document, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


DONE = b"data: [DONE]\n\n"


def _usage(count: int) -> Json:
    return {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}


def chat(number: int, request: Json, script: Script) -> Answer:
    pieces = words(number, script)
    common = {"id": f"chatcmpl-{number}", "created": EPOCH + number, "model": request.get("model", "")}
    message = {"role": "assistant", "content": "".join(pieces)}
    document = {
        **common,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": _usage(len(pieces)),
    }

    def chunk(delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return sse({**common, "object": "chat.completion.chunk", "choices": [choice]})

    frames = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": piece}) for piece in pieces)]
    frames.append(chunk({}, "stop"))
    finish = len(frames) - 1
    if (request.get("stream_options") or {}).get("include_usage"):
        usage = {**common, "object": "chat.completion.chunk", "choices": [], "usage": _usage(len(pieces))}
        frames.append(sse(usage))
    return Answer(document, (*frames, DONE), finish=finish)


def completions(number: int, request: Json, script: Script) -> Answer:
    pieces = words(number, script)
    common = {"id": f"cmpl-{number}", "object": "text_completion", "created": EPOCH + number}
    common["model"] = request.get("model", "")

    def with_text(text: str, finish: str | None, **more: Any) -> Json:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return {**common, "choices": [choice], **more}

    frames = [sse(with_text(piece, None)) for piece in pieces]
    frames.append(sse(with_text("", "stop", usage=_usage(len(pieces)))))
    document = with_text("".join(pieces), "stop", usage=_usage(len(pieces)))
    return Answer(document, (*frames, DONE), finish=len(frames) - 1)


def responses(number: int, request: Json, script: Script) -> Answer:
    pieces = words(number, script)
    text = "".join(pieces)
    item_id = f"msg_{number}"
    where: Json = {"item_id": item_id, "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"id": item_id, "type": "message", "role": "assistant"}
    done_item = {**item, "status": "completed", "content": [part]}
    begun = _response(number, request) | {"status": "in_progress", "output": [], "usage": None}
    usage = {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": len(pieces),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7 + len(pieces),
    }
    document = _response(number, request) | {"status": "completed", "output": [done_item], "usage": usage}
    events: list[tuple[str, Json]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        (
            "response.output_item.added",
            {"output_index": 0, "item": {**item, "status": "in_progress", "content": []}},
        ),
        ("response.content_part.added", {**where, "part": {**part, "text": ""}}),
        *(("response.output_text.delta", {**where, "delta": piece, "logprobs": []}) for piece in pieces),
        ("response.output_text.done", {**where, "text": text, "logprobs": []}),
        ("response.content_part.done", {**where, "part": part}),
        ("response.output_item.done", {"output_index": 0, "item": done_item}),
        ("response.completed", {"response": document}),
    ]
    frames = tuple(sse({"type": kind, "sequence_number": i, **more}, kind) for i, (kind, more) in enumerate(events))
    return Answer(document, frames, finish=len(frames) - 1)


def _response(number: int, request: Json) -> Json:
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": EPOCH + number,
        "model": request.get("model", ""),
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
    }


def messages(number: int, request: Json, script: Script) -> Answer:
    pieces = words(number, script)
    document: Json = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": request.get("model", ""),
        "content": [{"type": "text", "text": "".join(pieces)}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": len(pieces)},
    }
    begun = {**document, "content": [], "stop_reason": None, "usage": {"input_tokens": 7, "output_tokens": 0}}
    ended = {
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": len(pieces)},
    }
    events: list[tuple[str, Json]] = [
        ("message_start", {"message": begun}),
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        *(("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": p}}) for p in pieces),
        ("content_block_stop", {"index": 0}),
        ("message_delta", ended),
        ("message_stop", {}),
    ]
    frames = tuple(sse({"type": kind, **more}, kind) for kind, more in events)
    return Answer(document, frames, finish=len(frames) - 2)


def _ollama(number: int, request: Json, script: Script, piece_as: Callable[[str], Json]) -> Answer:
    pieces = words(number, script)
    common = {
        "model": request.get("model", ""),
        "created_at": f"2027-01-15T08:{number // 60 % 60:02}:{number % 60:02}Z",
    }
    last = {
        "done": True,
        "done_reason": "stop",
        "total_duration": 1_000_000,
        "load_duration": 1000,
        "prompt_eval_count": 7,
        "eval_count": len(pieces),
    }
    lines = [{**common, **piece_as(piece), "done": False} for piece in pieces]
    lines.append({**common, **piece_as(""), **last})
    frames = tuple(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
    document = {**common, **piece_as("".join(pieces)), **last}
    return Answer(document, frames, NDJSON, finish=len(frames) - 1)


def ollama_chat(number: int, request: Json, script: Script) -> Answer:
    return _ollama(number, request, script, lambda text: {"message": {"role": "assistant", "content": text}})


def ollama_generate(number: int, request: Json, script: Script) -> Answer:
    return _ollama(number, request, script, lambda text: {"response": text})


def vector(text: str) -> list[float]:
    """Eight numbers made from a text, each exact as a float32."""
    return [byte / 256 - 0.5 for byte in hashlib.sha256(text.encode()).digest()[:8]]


def _inputs(request: Json) -> list[str]:
    given = request.get("input", "")
    return [str(one) for one in given] if isinstance(given, list) else [str(given)]


def embeddings(number: int, request: Json, script: Script) -> Answer:
    def rendered(text: str) -> list[float] | str:
        numbers = vector(text)
        if request.get("encoding_format") == "base64":
            return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
        return numbers

    texts = _inputs(request)
    data = [{"object": "embedding", "index": i, "embedding": rendered(text)} for i, text in enumerate(texts)]
    tokens = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Answer({"object": "list", "data": data, "model": request.get("model", ""), "usage": usage})


def ollama_embed(number: int, request: Json, script: Script) -> Answer:
    vectors = [vector(text) for text in _inputs(request)]
    return Answer({"model": request.get("model", ""), "embeddings": vectors, "prompt_eval_count": len(vectors)})


def rerank(number: int, request: Json, script: Script) -> Answer:
    scores = [vector(str(document))[0] for document in request.get("documents", [])]
    results = [{"index": i, "relevance_score": score} for i, score in enumerate(scores)]
    usage = {"prompt_tokens": number, "total_tokens": number}
    return Answer({"model": request.get("model", ""), "object": "list", "results": results, "usage": usage})


Endpoint = Callable[[int, Json, Script], Answer]

#: path -> how it is answered, and whether it streams when the body does not say
ENDPOINTS: dict[str, tuple[Endpoint, bool]] = {
    "/v1/chat/completions": (chat, False),
    "/v1/completions": (completions, False),
    "/v1/responses": (responses, False),
    "/v1/messages": (messages, False),
    "/v1/embeddings": (embeddings, False),
    "/v1/rerank": (rerank, False),
    "/api/chat": (ollama_chat, True),
    "/api/generate": (ollama_generate, True),
    "/api/embed": (ollama_embed, False),
}
