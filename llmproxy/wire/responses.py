"""The answers of ``/v1/responses``: the terminal event of a stream carries the whole plain answer."""

from collections.abc import Sequence

from llmproxy.wire import responses_stream, sse
from llmproxy.wire.dialect import Document, Malformed, StreamError
from llmproxy.wire.documents import dump, error_message, parse, read_leniently, tokens
from llmproxy.wire.error_dialects import OPENAI_ERRORS, told_in
from llmproxy.wire.errors import ProxyError
from llmproxy.wire.exchange import Usage
from llmproxy.wire.finish_words import INCOMPLETE_REASONS, says_done
from llmproxy.wire.responses_document import complete
from llmproxy.wire.stream_errors import fault_of
from llmproxy.wire.vocabulary import Reason

__all__ = ["RESPONSES", "complete"]

_TERMINAL = ("response.completed", "response.incomplete")


class _Responses:
    __slots__ = ()

    name: str = "responses"
    both: bool = True
    stream_type: bytes = b"text/event-stream"
    document_type: bytes = b"application/json"

    def splitter(self) -> sse.SseSplitter:
        return sse.SseSplitter()

    def terminal(self, frame: bytes) -> bool:
        if b'"response.completed"' not in frame and b'"response.incomplete"' not in frame:
            return False
        event = read_leniently(sse.data(frame))
        return event is not None and event.get("type") in _TERMINAL

    def finished(self, frames: Sequence[bytes]) -> bool:
        return False

    def fault(self, frame: bytes) -> StreamError | None:
        if b'"response.failed"' in frame:
            event = read_leniently(sse.data(frame))
            if event is not None and event.get("type") == "response.failed":
                response = event.get("response")
                error = response.get("error") if isinstance(response, dict) else None
                return StreamError(error or "The response failed.", frame)
        found = fault_of(frame)
        if found is None or b'"type":"error"' in found.frame.replace(b" ", b""):
            return found
        return StreamError(found.error, _failure(error_message(found.error), found.error))

    def usage_only(self, frame: bytes) -> bool:
        return False

    def usage_filter(self) -> None:
        return None

    def assemble(self, frames: Sequence[bytes]) -> Document:
        # every event is read: what is no JSON may be handed on once, and not kept
        for event in reversed([parse(sse.data(frame)) for frame in frames]):
            if event.get("type") in _TERMINAL and isinstance(response := event.get("response"), dict):
                return response
        raise Malformed("the stream holds no finished response")

    def render(self, document: Document) -> list[bytes]:
        return responses_stream.render(document)

    def flaw(self, document: Document) -> Reason | None:
        if document.get("error") is not None or document.get("status") in ("failed", "cancelled"):
            return Reason.ERROR
        if "error" in (document.get("type"), document.get("object")):
            return Reason.ERROR
        output = document.get("output")
        if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
            return Reason.MALFORMED
        if document.get("status") == "incomplete":
            details = document.get("incomplete_details")
            reason = details.get("reason") if isinstance(details, dict) else None
            return None if reason is None or says_done(reason, INCOMPLETE_REASONS) else Reason.INCOMPLETE
        return None if document.get("status") == "completed" else Reason.INCOMPLETE

    def usage(self, document: Document) -> Usage:
        return tokens(document.get("usage"), "input_tokens", "output_tokens")

    def failure(self, error: ProxyError, request_id: str = "") -> bytes:
        return _failure(error.message, told_in(OPENAI_ERRORS, error, request_id)["error"])


def _failure(message: str, error: Document) -> bytes:
    """The event of an error. The nested members make every SDK raise, the flat ones are the published shape. The number
    of the event is not known here, and parsers that require one take any."""
    told = {"code": error.get("code"), "message": message, "param": error.get("param")}
    return sse.frame(dump({"type": "error", "sequence_number": 0, **told, "error": error}), b"error")


RESPONSES = _Responses()
