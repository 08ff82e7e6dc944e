"""The answers of ``/v1/messages`` (Anthropic's form). Neither the plain answer nor the stream is made from the
other."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llmproxy.wire.dialect import JsonDialect, StreamError, fault_of, is_final_reason
from llmproxy.wire.documents import Document, Malformed, dump, error_message, parse, peek, read_leniently, tokens
from llmproxy.wire.errors import ANTHROPIC_ERRORS, ProxyError, error_document
from llmproxy.wire.exchange import Usage
from llmproxy.wire.formats.deltas import Deltas
from llmproxy.wire.framing import sse_data, sse_event, sse_frame
from llmproxy.wire.vocabulary import Reason

#: ``stop_reason`` of messages
_STOP_REASONS = frozenset(
    {
        "end_turn",
        "max_tokens",
        "model_context_window_exceeded",
        "pause_turn",
        "refusal",
        "stop_sequence",
        "tool_use",
    }
)
#: pieces of texts in a block, and of the JSON that becomes its ``input``
_JOINED = frozenset({"text", "thinking", "signature", "partial_json"})
_GROWN = frozenset({"citations"})


class _Messages(JsonDialect):
    __slots__ = ()

    name: str = "messages"
    both: bool = False

    def terminal(self, frame: bytes) -> bool:
        if b'"message_stop"' not in frame:
            return False
        event = read_leniently(sse_data(frame))
        return event is not None and event.get("type") == "message_stop"

    def finished(self, frames: Sequence[bytes]) -> bool:
        for event in (read_leniently(sse_data(frame)) for frame in reversed(frames)):
            delta = (event or {}).get("delta")
            if isinstance(delta, dict) and delta.get("stop_reason"):
                return True
        return False

    def fault(self, frame: bytes) -> StreamError | None:
        fault = fault_of(frame)
        if fault is None:
            return None
        request_id = request_id_of(read_leniently(sse_data(frame)) or {})
        if sse_event(frame) == b"error" and fault.frame == frame:
            return replace(fault, request_id=request_id)
        # clients look at the event's name alone
        error = {"type": "api_error", "message": error_message(fault.error)} | fault.error
        event = {"type": "error", "error": error} | ({"request_id": request_id} if request_id else {})
        return StreamError(fault.error, sse_frame(dump(event), b"error"), request_id)

    def assemble(self, frames: Sequence[bytes]) -> Document:
        message: Document | None = None
        blocks: dict[int, Deltas] = {}
        for event in (parse(sse_data(frame)) for frame in frames):
            kind = event.get("type")
            if kind == "message_start":
                message = dict(_object(event, "message"))
            elif kind == "content_block_start":
                _block(event, blocks).add(_object(event, "content_block"))
            elif kind == "content_block_delta":
                _block(event, blocks).add(_block_delta(_object(event, "delta")))
            elif kind == "message_delta" and message is not None:
                message |= _object(event, "delta")
                usages = (usage for usage in (message.get("usage"), event.get("usage")) if isinstance(usage, dict))
                message["usage"] = {name: count for usage in usages for name, count in usage.items()}
        if message is None:
            raise Malformed("the stream holds no message")
        return message | {"content": [_finished(blocks[index]) for index in sorted(blocks)]}

    def render(self, document: Document) -> list[bytes]:
        raise Malformed("a message is not rendered as a stream")

    def flaw(self, document: Document) -> Reason | None:
        if document.get("type") == "error" or document.get("error") is not None:
            return Reason.ERROR
        if not isinstance(document.get("content"), list):
            return Reason.MALFORMED
        return None if is_final_reason(document.get("stop_reason"), _STOP_REASONS) else Reason.INCOMPLETE

    def usage(self, document: Document) -> Usage:
        return tokens(document.get("usage"), "input_tokens", "output_tokens")

    def failure(self, error: ProxyError, request_id: str = "") -> bytes:
        return sse_frame(dump(error_document(ANTHROPIC_ERRORS, error, request_id)), b"error")


def request_id_of(error: Document) -> str:
    """The server's id of the request, in the document or the event of an error; "" if it has none."""
    request_id = error.get("request_id")
    return request_id if isinstance(request_id, str) else ""


def _object(event: Document, name: str) -> Document:
    value = event.get(name)
    if not isinstance(value, dict):
        raise Malformed(f"{event.get('type')} has no {name}")
    return value


def _block(event: Document, blocks: dict[int, Deltas]) -> Deltas:
    index = event.get("index")
    if not isinstance(index, int):
        raise Malformed(f"{event.get('type')} has no index")
    return blocks.setdefault(index, Deltas([], joined=_JOINED, grown=_GROWN, settled=frozenset({"type"})))


def _block_delta(delta: Document) -> Document:
    """A delta in the names of its block: without its own type, and with a citation as a list of one."""
    members = {name: value for name, value in delta.items() if name not in ("type", "citation")}
    return members | ({"citations": [delta["citation"]]} if "citation" in delta else {})


def _finished(block: Deltas) -> dict[str, Any]:
    finished = block.result()
    partial = finished.pop("partial_json", None)
    if finished.get("type") == "tool_use":
        # cut off in the middle, the JSON does not parse: llama.cpp's plain answer has an empty input then
        finished["input"] = (peek(partial.encode()) if partial else None) or finished.get("input") or {}
    return finished


MESSAGES = _Messages()
