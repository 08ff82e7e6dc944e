"""Requests to the scripted upstream, one maker per endpoint, and how their answers are read in either form."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

Json = dict[str, Any]


def marker() -> str:
    """A word that no other request of this run contains: what a test's requests are found by upstream."""
    return f"marker-{uuid4().hex}."


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One cached endpoint as a client sees it."""

    name: str
    path: str
    #: makes a request's body around a prompt
    body: Callable[[str], Json]
    #: the text of a plain answer
    text: Callable[[Json], str]
    #: the text that one decoded frame of a stream adds
    delta: Callable[[Json], str]
    #: whether its streams are NDJSON
    lines: bool = False
    #: whether a stream and a plain answer can be made from each other
    both: bool = True

    def request(self, prompt: str, *, stream: bool = False, **more: Any) -> Json:
        # Ollama's own paths stream unless told not to: both forms say it, so that both are explicit.
        return {"model": "scripted", **self.body(prompt), "stream": stream, **more}

    def decoded(self, body: bytes) -> list[Json]:
        """The frames of a stream as documents, ``[DONE]`` left out. Raises ``ValueError`` on anything not strict."""
        if self.lines:
            return [json.loads(line) for line in body.splitlines()]
        return [frame for _, frame in events(body) if frame is not None]

    def streamed_text(self, body: bytes) -> str:
        """The text that a stream's frames amount to."""
        return "".join(self.delta(frame) for frame in self.decoded(body))


def named(value: object) -> str:
    """A parametrised test's id."""
    return value.name if isinstance(value, Endpoint) else str(value)


def events(body: bytes) -> list[tuple[str | None, Json | None]]:
    """A stream's events, strictly: only ``event:``, one or more ``data:`` and comments, each ended by a blank line.

    ``[DONE]`` is ``(None, None)``. Raises ``ValueError`` on anything an SDK stumbles over: id, retry, no data.
    """
    found: list[tuple[str | None, Json | None]] = []
    *frames, rest = body.split(b"\n\n")
    if rest:
        raise ValueError(f"the last frame is not ended: {rest!r}")
    for frame in frames:
        lines = frame.split(b"\n")
        if all(line.startswith(b":") for line in lines):
            continue
        names = [line[len(b"event: ") :] for line in lines if line.startswith(b"event: ")]
        data = [line[len(b"data: ") :] for line in lines if line.startswith(b"data: ")]
        if len(names) > 1 or not data or len(names) + len(data) != len(lines):
            raise ValueError(f"not a strict frame: {frame!r}")
        text = b"\n".join(data)
        document = None if text == b"[DONE]" else json.loads(text)
        found.append((names[0].decode() if names else None, document))
    return found


def _chat_delta(frame: Json) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in frame.get("choices", []))


def _said(prompt: str) -> list[Json]:
    return [{"role": "user", "content": prompt}]


CHAT = Endpoint(
    "chat",
    "/v1/chat/completions",
    lambda prompt: {"messages": _said(prompt)},
    lambda answer: str(answer["choices"][0]["message"]["content"]),
    _chat_delta,
)
COMPLETIONS = Endpoint(
    "completions",
    "/v1/completions",
    lambda prompt: {"prompt": prompt},
    lambda answer: str(answer["choices"][0]["text"]),
    lambda frame: "".join(choice["text"] for choice in frame.get("choices", [])),
)
RESPONSES = Endpoint(
    "responses",
    "/v1/responses",
    # one that is stored has an id of its own each time
    lambda prompt: {"input": prompt, "store": False},
    lambda answer: str(answer["output"][0]["content"][0]["text"]),
    lambda frame: str(frame["delta"]) if frame["type"] == "response.output_text.delta" else "",
)
MESSAGES = Endpoint(
    "messages",
    "/v1/messages",
    lambda prompt: {"messages": _said(prompt), "max_tokens": 100},
    lambda answer: str(answer["content"][0]["text"]),
    lambda frame: str(frame["delta"]["text"]) if frame["type"] == "content_block_delta" else "",
    both=False,
)
OLLAMA_CHAT = Endpoint(
    "ollama-chat",
    "/api/chat",
    lambda prompt: {"messages": _said(prompt)},
    lambda answer: str(answer["message"]["content"]),
    lambda frame: str(frame["message"]["content"]) if "message" in frame else "",
    lines=True,
    both=False,
)
OLLAMA_GENERATE = Endpoint(
    "ollama-generate",
    "/api/generate",
    lambda prompt: {"prompt": prompt},
    lambda answer: str(answer["response"]),
    lambda frame: str(frame.get("response", "")),
    lines=True,
    both=False,
)

STREAMING = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, OLLAMA_CHAT, OLLAMA_GENERATE)
