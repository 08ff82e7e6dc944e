"""The answers of ``/v1/responses``: the terminal event of a stream carries the whole plain answer."""

from collections.abc import Sequence

import orjson

from llmproxy.wire import responses_stream, sse
from llmproxy.wire.dialect import Document, Malformed
from llmproxy.wire.documents import error_message, parse, peek, tokens
from llmproxy.wire.exchange import Usage
from llmproxy.wire.responses_document import complete
from llmproxy.wire.vocabulary import Reason

__all__ = ["RESPONSES", "complete"]

_TERMINAL = ("response.completed", "response.incomplete")
_ENDED = ("completed", "incomplete")


class _Responses:
    __slots__ = ()

    name: str = "responses"
    both: bool = True
    stream_type: bytes = b"text/event-stream"

    def splitter(self) -> sse.SseSplitter:
        return sse.SseSplitter()

    def terminal(self, frame: bytes) -> bool:
        if b'"response.completed"' not in frame and b'"response.incomplete"' not in frame:
            return False
        event = peek(sse.data(frame))
        return event is not None and event.get("type") in _TERMINAL

    def fault(self, frame: bytes) -> str | None:
        if b'"error"' not in frame and b'"response.failed"' not in frame:
            return None
        event = peek(sse.data(frame))
        if event is None:
            return None
        if event.get("type") == "response.failed":
            response = event.get("response")
            error = response.get("error") if isinstance(response, dict) else None
            return "The response failed." if error is None else error_message(error)
        if event.get("type") == "error":
            return error_message(event.get("error") or event)
        return error_message(event["error"]) if event.get("error") is not None else None

    def usage_only(self, frame: bytes) -> bool:
        return False

    def assemble(self, frames: Sequence[bytes]) -> Document:
        for frame in reversed(frames):
            if self.terminal(frame):
                response = parse(sse.data(frame)).get("response")
                if isinstance(response, dict):
                    return response
        raise Malformed("the stream holds no finished response")

    def render(self, document: Document) -> list[bytes]:
        return responses_stream.render(document)

    def flaw(self, document: Document) -> Reason | None:
        if document.get("error") is not None or document.get("status") in ("failed", "cancelled"):
            return Reason.ERROR
        output = document.get("output")
        if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
            return Reason.MALFORMED
        return None if document.get("status") in _ENDED else Reason.INCOMPLETE

    def usage(self, document: Document) -> Usage:
        return tokens(document.get("usage"), "input_tokens", "output_tokens")

    def failure(self, message: str, code: str, type: str) -> bytes:
        # The nested error makes every SDK raise, the flat members are the published shape. The number of the event is
        # not known here, and parsers that require one take any.
        told = {"code": code, "message": message, "param": None}
        body = {"type": "error", "sequence_number": 0, **told, "error": {"type": type, **told}}
        return sse.frame(orjson.dumps(body), b"error")


RESPONSES = _Responses()
