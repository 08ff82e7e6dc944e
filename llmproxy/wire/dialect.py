"""How one endpoint's requests are read, and its answers kept and given in either form. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llmproxy.wire.documents import Document, Malformed, dump, error_message, peek, read_leniently
from llmproxy.wire.errors import ProxyError, UnreadableBody, envelope
from llmproxy.wire.exchange import Usage
from llmproxy.wire.framing import SSE, SseSplitter, sse_data, sse_event, sse_frame
from llmproxy.wire.json_body import BOM, parse
from llmproxy.wire.vocabulary import Reason


class Splitter(Protocol):
    """Cuts a byte stream into frames, however the network cut the bytes."""

    @property
    def waiting(self) -> int:
        """Bytes of the unfinished frame."""
        ...

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that ``data`` completes, each in its strict form."""
        ...

    def finish(self) -> list[bytes]:
        """Ends the body: returns the last frame if only its line end was missing."""
        ...

    def rest(self) -> bytes:
        """The bytes of an unfinished frame."""
        ...


@dataclass(frozen=True, slots=True)
class StreamError:
    """An error inside a stream.

    ``error`` is what the upstream sent: an object, or a text. ``frame`` is the event for the client. ``request_id`` is
    the upstream's id of the request, if the error has one (Anthropic).
    """

    error: Any
    frame: bytes
    request_id: str = ""


class Filter(Protocol):
    """Takes the frames of one stream as they come, and returns those that a caller gets."""

    def feed(self, frames: Iterable[bytes]) -> list[bytes]: ...

    def close(self) -> list[bytes]:
        """Ends the stream: returns the frames that were held back."""
        ...


class Dialect(Protocol):
    """One endpoint's requests and answers. A frame is the strict bytes of one event (SSE) or line (NDJSON).

    ``both`` says whether a streamed answer and a plain one can be made from each other.
    """

    name: str
    both: bool
    #: whether a request is JSON that can be written anew; otherwise the upstream gets it byte for byte
    json_requests: bool
    #: content type of a streamed answer
    stream_type: bytes
    #: content type of a plain answer; empty if answers come in several, of which the upstream names one
    document_type: bytes

    def read_request(self, body: bytes, content_type: bytes) -> Document:
        """The members of a request; each is part of the key unless the endpoint excuses it.

        Raises ``UnreadableBody`` for a body that the upstream shall judge, ``BadRequest`` for a broken one.
        """
        ...

    def read_answer(self, body: bytes, content_type: bytes) -> Document | None:
        """A plain answer as an object, None for a body that does not have the endpoint's form."""
        ...

    def splitter(self) -> Splitter: ...

    def terminal(self, frame: bytes) -> bool:
        """Whether this frame ends a complete stream."""
        ...

    def finished(self, frames: Sequence[bytes]) -> bool:
        """Whether a stream is complete that ended cleanly with these frames and without its terminal event: every
        choice has a finish reason, or the server does not always mark its end."""
        ...

    def fault(self, frame: bytes) -> StreamError | None:
        """The error in this frame, None for an ordinary frame."""
        ...

    def usage_only(self, frame: bytes) -> bool:
        """Whether only callers who asked for usage may get this frame."""
        ...

    def usage_filter(self) -> Filter | None:
        """Makes the frames of callers who did not ask for usage; None if they get the same frames."""
        ...

    def assemble(self, frames: Sequence[bytes]) -> Document:
        """The plain answer that the frames of a complete stream amount to.

        Raises ``Malformed``; ``Lossy`` if the server's own plain answer may be a different one.
        """
        ...

    def render(self, document: Document) -> list[bytes]:
        """The frames of the stream that amounts to this plain answer, usage and terminal event included."""
        ...

    def flaw(self, document: Document) -> Reason | None:
        """Why this plain answer may not be stored: ERROR, MALFORMED, INCOMPLETE; None for a complete one."""
        ...

    def usage(self, document: Document) -> Usage: ...

    def failure(self, error: ProxyError, request_id: str = "") -> bytes:
        """The frame that reports an error inside a stream, such that every SDK raises."""
        ...


class JsonDialect:
    """The half of a dialect whose requests and plain answers are JSON objects, and whose streams are events."""

    __slots__ = ()

    json_requests: bool = True
    stream_type: bytes = SSE
    document_type: bytes = b"application/json"

    def read_request(self, body: bytes, content_type: bytes) -> Document:
        if body.startswith(BOM):
            # some servers take it and some do not
            raise UnreadableBody("The request body begins with a byte-order mark.")
        return parse(body)

    def read_answer(self, body: bytes, content_type: bytes) -> Document | None:
        return peek(body)

    def splitter(self) -> Splitter:
        return SseSplitter()

    def finished(self, frames: Sequence[bytes]) -> bool:
        return False

    def usage_only(self, frame: bytes) -> bool:
        return False

    def usage_filter(self) -> Filter | None:
        return None


def is_final_reason(reason: object, reasons: frozenset[str]) -> bool:
    """Whether a finish reason is one of ``reasons``; some servers write theirs in capitals."""
    return isinstance(reason, str) and reason.lower() in reasons


class Lossy(Malformed):
    """Only the sender could put these frames together. ``document`` is an approximation that must not be served."""

    def __init__(self, message: str, document: Document):
        super().__init__(message)
        self.document = document


#: members that mark an event as an error and do not describe it
_MARKS = (("type", "error"), ("object", "error"))


def fault_of(frame: bytes) -> StreamError | None:
    """The error in a frame, None for an ordinary one. An error object of OpenAI's form keeps its frame."""
    if b"error" not in frame:
        return None
    event, is_error_event = read_leniently(sse_data(frame)), sse_event(frame) == b"error"
    if event is None:
        return _error_event({}, {"message": sse_data(frame).decode("utf-8", "replace")}) if is_error_event else None
    if error := event.get("error"):
        return (
            StreamError(error, frame)
            if isinstance(error, dict)
            else _error_event(event, {"message": error_message(error)})
        )
    if not is_error_event and all(event.get(name) != mark for name, mark in _MARKS):
        return None
    error = {name: value for name, value in event.items() if (name, value) not in _MARKS and name != "error"}
    error.pop("sequence_number", None)
    return _error_event(event, error)


def _error_event(event: Document, error: Document) -> StreamError:
    whole = envelope(error_message(error), "server_error", "upstream_error")["error"] | error
    return StreamError(error, sse_frame(dump({**event, "error": whole}), b"error"))
