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
    """Cuts a byte stream into frames, however the bytes were cut on their way."""

    @property
    def waiting(self) -> int:
        """Bytes of the frame that is not whole yet."""
        ...

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that ``data`` completes, each in its strict form."""
        ...

    def finish(self) -> list[bytes]:
        """The body is over: its last frame, where nothing but the end of a line was missing."""
        ...

    def rest(self) -> bytes:
        """What is left of an unfinished frame."""
        ...


@dataclass(frozen=True, slots=True)
class StreamError:
    """An error inside a stream. ``error`` is what the upstream said: an object, or a text. ``frame`` tells a client.
    ``request_id`` is the upstream's name of the request where the error tells it (Anthropic)."""

    error: Any
    frame: bytes
    request_id: str = ""


class Filter(Protocol):
    """Takes the frames of one stream as they come, gives those that a caller is shown."""

    def feed(self, frames: Iterable[bytes]) -> list[bytes]: ...

    def close(self) -> list[bytes]:
        """What was held back, once there is no more."""
        ...


class Dialect(Protocol):
    """An endpoint's requests and answers. A frame is the strict bytes of one event (SSE, with its blank line) or line
    (NDJSON).

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
        """The members of a request, each of which the key holds unless the endpoint excuses it.

        Raises ``UnreadableBody`` for what is the upstream's to judge, ``BadRequest`` for what nobody can read.
        """
        ...

    def read_answer(self, body: bytes, content_type: bytes) -> Document | None:
        """A plain answer as an object, None for what is none."""
        ...

    def splitter(self) -> Splitter: ...

    def terminal(self, frame: bytes) -> bool:
        """Whether this frame ends a complete stream."""
        ...

    def finished(self, frames: Sequence[bytes]) -> bool:
        """Whether a stream that ended with these frames, cleanly and without its terminal event, has come to its end:
        every choice says that it is finished, or the server has ends that it does not tell."""
        ...

    def fault(self, frame: bytes) -> StreamError | None:
        """The error that this frame tells, None for an ordinary frame."""
        ...

    def usage_only(self, frame: bytes) -> bool:
        """Whether only callers who asked for usage may get this frame."""
        ...

    def usage_filter(self) -> Filter | None:
        """What makes the frames of callers who did not ask for usage; None where they are the same."""
        ...

    def assemble(self, frames: Sequence[bytes]) -> Document:
        """The plain answer that these frames of a complete stream amount to. Raises ``Malformed``; ``Lossy`` where the
        server's plain answer may be another one."""
        ...

    def render(self, document: Document) -> list[bytes]:
        """The frames of the stream that amounts to this plain answer, usage and terminal event included."""
        ...

    def flaw(self, document: Document) -> Reason | None:
        """Why this plain answer may not be stored: ERROR, MALFORMED, INCOMPLETE; None for a complete one."""
        ...

    def usage(self, document: Document) -> Usage: ...

    def failure(self, error: ProxyError, request_id: str = "") -> bytes:
        """The frame that tells a client inside a stream that it failed, such that every SDK raises."""
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


def says_done(word: object, words: frozenset[str]) -> bool:
    """Some servers write their words in capitals."""
    return isinstance(word, str) and word.lower() in words


class Lossy(Malformed):
    """Frames that only their sender could put together. ``document`` is what they may amount to: not to be served."""

    def __init__(self, message: str, document: Document):
        super().__init__(message)
        self.document = document


#: what says that an event is an error, and nothing about it
_MARKS = (("type", "error"), ("object", "error"))


def fault_of(frame: bytes) -> StreamError | None:
    """The error that a frame tells, None for an ordinary one. An error object of OpenAI's is told as it came."""
    if b"error" not in frame:
        return None
    event, named = read_leniently(sse_data(frame)), sse_event(frame) == b"error"
    if event is None:
        return _told({}, {"message": sse_data(frame).decode("utf-8", "replace")}) if named else None
    if error := event.get("error"):
        return StreamError(error, frame) if isinstance(error, dict) else _told(event, {"message": error_message(error)})
    if not named and all(event.get(name) != mark for name, mark in _MARKS):
        return None
    error = {name: value for name, value in event.items() if (name, value) not in _MARKS and name != "error"}
    error.pop("sequence_number", None)
    return _told(event, error)


def _told(event: Document, error: Document) -> StreamError:
    whole = envelope(error_message(error), "server_error", "upstream_error")["error"] | error
    return StreamError(error, sse_frame(dump({**event, "error": whole}), b"error"))
