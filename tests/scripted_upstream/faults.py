"""The ways an answer goes wrong, one function each. A stream's fault takes over after ``script.after`` frames."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tests.scripted_upstream.answers import DONE, NDJSON, Answer, sse
from tests.scripted_upstream.stage import Stage


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault works with: the answer, and the frames that have not been sent yet."""

    stage: Stage
    answer: Answer
    rest: Sequence[bytes] = ()

    @property
    def lines(self) -> bool:
        """Whether the stream is NDJSON."""
        return self.answer.stream_type == NDJSON

    async def send(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            await self.stage.chunk(frame)


ERROR = {"message": "the model fell over", "type": "server_error", "param": None, "code": 500}


async def cut(scene: Scene) -> None:
    """FIN in the middle of a chunk."""
    await scene.stage.send(b'40\r\ndata: {"id"')
    scene.stage.close()


async def reset(scene: Scene) -> None:
    """RST."""
    scene.stage.reset()


async def bad_chunk(scene: Scene) -> None:
    """A chunk without a size."""
    await scene.stage.send(b"zz\r\nabc\r\n")
    scene.stage.close()


async def clean_end(scene: Scene) -> None:
    """A clean end that comes too early."""
    await scene.stage.end()


async def half_frame(scene: Scene) -> None:
    """A clean end in the middle of a frame."""
    await scene.stage.chunk(scene.rest[0][: len(scene.rest[0]) // 2])
    await scene.stage.end()


async def no_terminal(scene: Scene) -> None:
    """Everything but the terminal event, then a clean end."""
    await scene.send(scene.rest[:-1])
    await scene.stage.end()


async def no_finish(scene: Scene) -> None:
    """Everything but the frame with the finish reason."""
    finish = scene.answer.frames[scene.answer.finish]
    await scene.send([frame for frame in scene.rest if frame != finish])
    await scene.stage.end()


async def no_last_chunk(scene: Scene) -> None:
    """Every frame, but FIN where the 0-chunk should be."""
    await scene.send(scene.rest)
    scene.stage.close()


async def error_frame(scene: Scene) -> None:
    """An error inside the stream (llama.cpp), then a clean end."""
    frame = json.dumps({"error": ERROR["message"]}).encode() + b"\n" if scene.lines else sse({"error": ERROR})
    await scene.stage.chunk(frame)
    await scene.stage.end()


async def error_event(scene: Scene) -> None:
    """The same with an ``event: error`` line and a type (Responses, Anthropic)."""
    await scene.stage.chunk(sse({"type": "error", "sequence_number": 3, "error": ERROR}, "error"))
    await scene.stage.end()


async def error_flat(scene: Scene) -> None:
    """A Responses error event with its members at the top."""
    await scene.stage.chunk(sse({**ERROR, "type": "error", "sequence_number": 3}, "error"))
    await scene.stage.end()


async def failed(scene: Scene) -> None:
    """``response.failed`` as terminal event."""
    error = {"code": "server_error", "message": ERROR["message"]}
    response = {**scene.answer.document, "status": "failed", "output": [], "usage": None, "error": error}
    frame = {"type": "response.failed", "sequence_number": 3, "response": response}
    await scene.stage.chunk(sse(frame, "response.failed"))
    await scene.stage.end()


async def error_text(scene: Scene) -> None:
    """An error that is only a text."""
    await scene.stage.chunk(sse({"error": ERROR["message"]}))
    await scene.stage.end()


async def error_then_done(scene: Scene) -> None:
    """An error, and then the terminal event of success."""
    await scene.stage.chunk(sse({"error": ERROR}))
    await scene.stage.chunk(DONE)
    await scene.stage.end()


async def router_text(scene: Scene) -> None:
    """llama.cpp's router when its child dies: plain text in the stream, then a clean end."""
    await scene.stage.chunk(b"proxy error: Could not read from the child\n")
    await scene.stage.end()


async def empty_delta(scene: Scene) -> None:
    """Ollama when the model dies on /v1: an empty chunk, no finish reason, no ``[DONE]``, a clean end."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    await scene.stage.chunk(sse({"id": "chatcmpl-9", "object": "chat.completion.chunk", "choices": [choice]}))
    await scene.stage.end()


async def silence(scene: Scene) -> None:
    """Nothing more, ever."""
    await asyncio.Event().wait()


async def drop(scene: Scene) -> None:
    """FIN before any byte."""
    scene.stage.close()


async def not_http(scene: Scene) -> None:
    """Bytes that are no HTTP response."""
    await scene.stage.send(b"220 mail.example ESMTP\r\n\r\n")
    scene.stage.close()


async def html(scene: Scene) -> None:
    """A web page with status 200."""
    await scene.stage.whole(200, "text/html", b"<html><body>Welcome</body></html>")


async def nothing(scene: Scene) -> None:
    """Status 200 and no body."""
    await scene.stage.whole(200, "application/json", b"")


async def short(scene: Scene) -> None:
    """Half of the bytes that content-length promises."""
    body = json.dumps(scene.answer.document).encode()
    headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
    await scene.stage.head(200, headers)
    await scene.stage.send(body[: len(body) // 2])
    scene.stage.close()


async def half_chunked(scene: Scene) -> None:
    """A chunked document that breaks off."""
    await scene.stage.head(200, [("content-type", "application/json"), ("transfer-encoding", "chunked")])
    await scene.stage.chunk(json.dumps(scene.answer.document).encode()[:40])
    scene.stage.close()


async def bad_json(scene: Scene) -> None:
    """A whole body that is half a document."""
    body = json.dumps(scene.answer.document).encode()
    await scene.stage.whole(200, "application/json", body[: len(body) // 2])


async def error_member(scene: Scene) -> None:
    """Status 200 with an error in the document."""
    await scene.stage.whole(200, "application/json", json.dumps({"error": ERROR}).encode())


async def unfinished(scene: Scene) -> None:
    """A document whose choice has no finish reason, or which says that it is not done."""
    document = json.loads(json.dumps(scene.answer.document))
    for choice in document.get("choices", []):
        choice["finish_reason"] = None
    for name, value in {"status": "in_progress", "done": False, "stop_reason": None}.items():
        if name in document:
            document[name] = value
    await scene.stage.whole(200, "application/json", json.dumps(document).encode())


async def until_closed(scene: Scene) -> None:
    """Everything but the terminal event, in a body that ends with its connection."""
    await scene.stage.head(200, [("content-type", scene.answer.stream_type), ("connection", "close")])
    await scene.stage.send(b"".join(scene.answer.frames[:-1]))
    scene.stage.close()


async def plain_document(scene: Scene) -> None:
    """The plain document where a stream was asked for."""
    await scene.stage.whole(200, "application/json", json.dumps(scene.answer.document).encode())


Fault = Callable[[Scene], Awaitable[None]]

#: take the place of a whole answer, head included
INSTEAD: dict[str, Fault] = {
    "silent": silence,
    "drop": drop,
    "reset-at-once": reset,
    "not-http": not_http,
    "html": html,
    "nothing": nothing,
    "short": short,
    "half-chunked": half_chunked,
    "bad-json": bad_json,
    "error-member": error_member,
    "unfinished": unfinished,
    "plain-document": plain_document,
    "until-closed": until_closed,
}

#: break a stream that has begun
WITHIN: dict[str, Fault] = {
    "cut": cut,
    "reset": reset,
    "bad-chunk": bad_chunk,
    "clean-end": clean_end,
    "half-frame": half_frame,
    "no-terminal": no_terminal,
    "no-finish": no_finish,
    "no-last-chunk": no_last_chunk,
    "error-frame": error_frame,
    "error-event": error_event,
    "error-flat": error_flat,
    "failed": failed,
    "error-text": error_text,
    "error-then-done": error_then_done,
    "router-text": router_text,
    "empty-delta": empty_delta,
    "silence": silence,
}
