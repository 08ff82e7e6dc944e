"""Errors inside streams of server-sent events: found whatever their shape, and told such that every SDK raises.

Seen in the wild: ``{"error": {...}}`` and ``{"error": "text"}`` in the place of a chunk or beside its choices, an event
named ``error`` with the members at its top or with a mere text, ``{"type": "error"}``, ``{"object": "error"}``.
"""

from llmproxy.wire import sse
from llmproxy.wire.dialect import Document, StreamError
from llmproxy.wire.documents import dump, error_message, read_leniently
from llmproxy.wire.errors import envelope

#: what says that an event is an error, and nothing about it
_MARKS = (("type", "error"), ("object", "error"))


def fault_of(frame: bytes) -> StreamError | None:
    """The error that a frame tells, None for an ordinary one. An error object of OpenAI's is told as it came."""
    if b"error" not in frame:
        return None
    event, named = read_leniently(sse.data(frame)), sse.event(frame) == b"error"
    if event is None:
        return _told({}, {"message": sse.data(frame).decode("utf-8", "replace")}) if named else None
    if error := event.get("error"):
        return StreamError(error, frame) if isinstance(error, dict) else _told(event, {"message": error_message(error)})
    if not named and all(event.get(name) != mark for name, mark in _MARKS):
        return None
    error = {name: value for name, value in event.items() if (name, value) not in _MARKS and name != "error"}
    error.pop("sequence_number", None)
    return _told(event, error)


def _told(event: Document, error: Document) -> StreamError:
    whole = envelope(error_message(error), "server_error", "upstream_error")["error"] | error
    return StreamError(error, sse.frame(dump({**event, "error": whole}), b"error"))
