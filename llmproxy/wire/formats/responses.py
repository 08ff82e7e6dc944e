"""The answers of ``/v1/responses``: Response objects as strict parsers require them, and the events of their streams.

The terminal event of a stream carries the whole plain answer.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from llmproxy.wire.dialect import JsonDialect, StreamError, fault_of, is_final_reason
from llmproxy.wire.documents import Document, Malformed, dump, error_message, parse, read_leniently, tokens
from llmproxy.wire.errors import OPENAI_ERRORS, ProxyError, error_document
from llmproxy.wire.exchange import Usage
from llmproxy.wire.framing import sse_data, sse_frame
from llmproxy.wire.vocabulary import Reason

_ITEM_PREFIX = {"message": "msg", "function_call": "fc", "reasoning": "rs"}


def complete(document: Document, request: Document) -> Document:
    """``document`` with every member that the Open Responses specification requires. Neither argument is changed.

    A missing member has the request's value, else the published default. A Response that used up the request's
    ``max_output_tokens`` is ``incomplete``: llama.cpp calls it completed.
    """
    response = _echo(request)
    response |= {name: value for name, value in document.items() if value is not None or name not in response}
    if isinstance(output := document.get("output"), list):
        id = str(document.get("id", ""))
        response["output"] = [complete_item(item, id, index) for index, item in enumerate(output)]
    response["usage"] = _usage(document.get("usage"))
    if response.get("status") == "completed" and _used_up(response, request):
        response |= {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    if response.get("status") != "completed":
        response["completed_at"] = None
    elif response["completed_at"] is None:
        response["completed_at"] = response["created_at"]
    return response


def complete_item(item: Any, response_id: str, index: int) -> Any:
    """An output item with the members of its kind; a missing id is made from the response's id and the index.

    Any value but an object stays as it is.
    """
    if not isinstance(item, dict):
        return item
    kind = item.get("type")
    completed = item | {"id": item.get("id") or _item_id(item, response_id, index)}
    if kind == "message":
        parts = item.get("content")
        content = [complete_part(part) for part in parts] if isinstance(parts, list) else []
        completed = {"role": "assistant", "status": "completed", **completed, "content": content}
    elif kind == "function_call":
        completed = {"status": "completed", **completed}
    elif kind == "reasoning":
        completed = {"summary": [], **completed}
    return completed


def complete_part(part: Any) -> Any:
    """A content part with the members of its kind. Any value but an object stays as it is."""
    if isinstance(part, dict) and part.get("type") == "output_text":
        return {"annotations": [], "logprobs": [], **part}
    return part


def _item_id(item: Document, response_id: str, index: int) -> str:
    call_id = item.get("call_id")
    if item.get("type") == "function_call" and isinstance(call_id, str) and call_id:
        return "fc_" + call_id.removeprefix("fc_").removeprefix("call_")
    prefix = _ITEM_PREFIX.get(str(item.get("type")), "item")
    return f"{prefix}_{response_id.removeprefix('resp_')}_{index}"


def _echo(request: Document) -> Document:
    """The members of a Response that repeat its request, and the defaults of the others."""
    response: Document = {
        "object": "response",
        "created_at": 0,
        "completed_at": None,
        "model": "",
        "error": None,
        "incomplete_details": None,
        "background": False,
        "frequency_penalty": 0.0,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "presence_penalty": 0.0,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "safety_identifier": None,
        "store": False,
        "temperature": 1.0,
        "tool_choice": "auto",
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "user": None,
    }
    for name in response.keys() - _NEVER_ECHOED:
        if request.get(name) is not None:
            response[name] = request[name]
    response["reasoning"] = {"effort": None, "summary": None} | _object(request.get("reasoning"))
    response["text"] = {"format": {"type": "text"}} | _object(request.get("text"))
    tools = request.get("tools")
    response["tools"] = [_tool(tool) for tool in tools] if isinstance(tools, list) else []
    response["service_tier"] = "default"
    return response


#: members that no request has
_NEVER_ECHOED = frozenset({"object", "created_at", "completed_at", "error", "incomplete_details"})


def _object(value: Any) -> Document:
    return value if isinstance(value, dict) else {}


def _tool(tool: Any) -> Any:
    if isinstance(tool, dict) and tool.get("type") == "function":
        return {"description": None, "parameters": None, "strict": None, **tool}
    return tool


def _usage(usage: Any) -> Document | None:
    if not isinstance(usage, dict):
        return None
    counted = tokens(usage, "input_tokens", "output_tokens")
    input_tokens, output_tokens = counted.prompt_tokens or 0, counted.completion_tokens or 0
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input_tokens + output_tokens,
    } | {name: value for name, value in usage.items() if value is not None}


def _used_up(response: Document, request: Document) -> bool:
    limit = request.get("max_output_tokens")
    used = (response["usage"] or {}).get("output_tokens")
    return isinstance(limit, int) and isinstance(used, int) and used >= limit


class TextPart(NamedTuple):
    """How a part of text is streamed: the prefix of its events, and the member that holds the text."""

    events: str
    member: str


TEXT_PARTS = {
    "output_text": TextPart("response.output_text", "text"),
    "refusal": TextPart("response.refusal", "refusal"),
    "reasoning_text": TextPart("response.reasoning_text", "text"),
}

_ENDINGS = {"completed": "response.completed", "incomplete": "response.incomplete"}


class EventWriter:
    """Writes and numbers the frames of one stream. Items and parts are complete JSON objects.

    ``streamed`` is the part of a text that was sent before; None if not even its opening was. ``first`` is the number
    of the first event.
    """

    def __init__(self, first: int = 0) -> None:
        self._sent = first

    def event(self, type: str, /, **members: Any) -> bytes:
        """One event of ``type`` with the next sequence number."""
        body = {"type": type, "sequence_number": self._sent, **members}
        self._sent += 1
        return sse_frame(dump(body), type.encode())

    def opening(self, response: Document) -> list[bytes]:
        """``response.created`` and ``response.in_progress`` of a Response under way."""
        return [self.event(type, response=response) for type in ("response.created", "response.in_progress")]

    def ending(self, response: Document, /, **extra: Any) -> bytes:
        """The terminal event of a Response; ``extra`` are further members of the event."""
        type = _ENDINGS.get(str(response.get("status")), "response.failed")
        return self.event(type, response=response, **extra)

    def item_added(self, index: int, item: Document) -> bytes:
        return self.event("response.output_item.added", output_index=index, item=_blank_item(item))

    def item_done(self, index: int, item: Document) -> bytes:
        return self.event("response.output_item.done", output_index=index, item=item)

    def part_added(self, location: Document, part: Document) -> bytes:
        return self.event("response.content_part.added", **location, part=_blank_part(part))

    def text_delta(self, location: Document, kind: str, delta: str, logprobs: Any = None, /, **extra: Any) -> bytes:
        """One piece of a text part of ``kind``, a name in ``TEXT_PARTS``; ``extra`` are further members of the
        event."""
        members: Document = {"delta": delta, **extra}
        if kind == "output_text":
            members["logprobs"] = logprobs or []
        return self.event(f"{TEXT_PARTS[kind].events}.delta", **location, **members)

    def arguments_delta(self, location: Document, delta: str, /, **extra: Any) -> bytes:
        return self.event("response.function_call_arguments.delta", **location, delta=delta, **extra)

    def contents(self, index: int, item: Document, streamed: str | None = None) -> Iterator[bytes]:
        """The events between an item's added and done. ``streamed`` belongs to its arguments or its first part."""
        location = {"item_id": item.get("id"), "output_index": index}
        if item.get("type") == "function_call":
            yield from self._arguments(location, item, streamed or "")
            return
        if item.get("type") not in ("message", "reasoning"):
            return
        for place, part in _parts(item, "summary"):
            yield from self._summary(location | {"summary_index": place}, part)
        for place, part in _parts(item, "content"):
            yield from self._part(location | {"content_index": place}, part, streamed if place == 0 else None)

    def whole_item(self, index: int, item: Document) -> Iterator[bytes]:
        yield self.item_added(index, item)
        yield from self.contents(index, item)
        yield self.item_done(index, item)

    def _arguments(self, location: Document, item: Document, streamed: str) -> Iterator[bytes]:
        arguments = _text(item, "arguments")
        if remainder := _remainder(arguments, streamed):
            yield self.arguments_delta(location, remainder)
        name = item.get("name")
        yield self.event("response.function_call_arguments.done", **location, name=name, arguments=arguments)

    def _part(self, location: Document, part: Document, streamed: str | None) -> Iterator[bytes]:
        if streamed is None:
            yield self.part_added(location, part)
        kind = str(part.get("type"))
        if kind in TEXT_PARTS:
            events, member = TEXT_PARTS[kind]
            text = _text(part, member)
            if remainder := _remainder(text, streamed or ""):
                yield self.text_delta(location, kind, remainder, part.get("logprobs") if not streamed else None)
            for place, annotation in enumerate(_list(part, "annotations")):
                yield self.event(
                    "response.output_text.annotation.added",
                    **location,
                    annotation_index=place,
                    annotation=annotation,
                )
            logprobs = {"logprobs": part.get("logprobs") or []} if kind == "output_text" else {}
            yield self.event(f"{events}.done", **location, **{member: text}, **logprobs)
        yield self.event("response.content_part.done", **location, part=part)

    def _summary(self, location: Document, part: Document) -> Iterator[bytes]:
        text = _text(part, "text")
        yield self.event("response.reasoning_summary_part.added", **location, part=part | {"text": ""})
        if text:
            yield self.event("response.reasoning_summary_text.delta", **location, delta=text)
        yield self.event("response.reasoning_summary_text.done", **location, text=text)
        yield self.event("response.reasoning_summary_part.done", **location, part=part)


def render(response: Document) -> list[bytes]:
    """The whole stream of a Response that has ended."""
    writer = EventWriter()
    under_way = {"completed_at": None, "error": None, "incomplete_details": None, "usage": None}
    frames = writer.opening(response | under_way | {"status": "in_progress", "output": []})
    for index, item in enumerate(response["output"]):
        frames.extend(writer.whole_item(index, item))
    frames.append(writer.ending(response))
    return frames


def _parts(item: Document, name: str) -> Iterator[tuple[int, Document]]:
    for place, part in enumerate(_list(item, name)):
        if isinstance(part, dict):
            yield place, part


def _list(holder: Document, name: str) -> list[Any]:
    value = holder.get(name)
    return value if isinstance(value, list) else []


def _text(holder: Document, name: str) -> str:
    value = holder.get(name)
    return value if isinstance(value, str) else ""


def _remainder(text: str, streamed: str) -> str:
    """The unsent rest of ``text``; empty if the pieces sent before were different."""
    return text[len(streamed) :] if text.startswith(streamed) else ""


def _blank_item(item: Document) -> Document:
    """The item before its first piece. Kinds without pieces are complete at once."""
    blank = dict(item)
    if "status" in item:
        blank["status"] = "in_progress"
    if item.get("type") == "function_call":
        blank["arguments"] = ""
    elif item.get("type") in ("message", "reasoning"):
        blank |= {name: [] for name in ("content", "summary") if isinstance(item.get(name), list)}
    return blank


def _blank_part(part: Document) -> Document:
    kind = str(part.get("type"))
    if kind not in TEXT_PARTS:
        return part
    blank = part | {TEXT_PARTS[kind].member: ""}
    return blank | {name: [] for name in ("annotations", "logprobs") if name in part}


#: ``incomplete_details.reason`` of Responses
_INCOMPLETE_REASONS = frozenset({"content_filter", "max_output_tokens", "max_tokens"})
_TERMINAL = ("response.completed", "response.incomplete")


class _Responses(JsonDialect):
    __slots__ = ()

    name: str = "responses"
    both: bool = True

    def terminal(self, frame: bytes) -> bool:
        if b'"response.completed"' not in frame and b'"response.incomplete"' not in frame:
            return False
        event = read_leniently(sse_data(frame))
        return event is not None and event.get("type") in _TERMINAL

    def fault(self, frame: bytes) -> StreamError | None:
        if b'"response.failed"' in frame:
            event = read_leniently(sse_data(frame))
            if event is not None and event.get("type") == "response.failed":
                response = event.get("response")
                error = response.get("error") if isinstance(response, dict) else None
                return StreamError(error or "The response failed.", frame)
        fault = fault_of(frame)
        if fault is None or b'"type":"error"' in fault.frame.replace(b" ", b""):
            return fault
        return StreamError(fault.error, _failure(error_message(fault.error), fault.error))

    def assemble(self, frames: Sequence[bytes]) -> Document:
        # every event is parsed: a stream with one that is not JSON is handed on once, and not kept
        for event in reversed([parse(sse_data(frame)) for frame in frames]):
            if event.get("type") in _TERMINAL and isinstance(response := event.get("response"), dict):
                return response
        raise Malformed("the stream holds no finished response")

    def render(self, document: Document) -> list[bytes]:
        return render(document)

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
            return None if reason is None or is_final_reason(reason, _INCOMPLETE_REASONS) else Reason.INCOMPLETE
        return None if document.get("status") == "completed" else Reason.INCOMPLETE

    def usage(self, document: Document) -> Usage:
        return tokens(document.get("usage"), "input_tokens", "output_tokens")

    def failure(self, error: ProxyError, request_id: str = "") -> bytes:
        return _failure(error.message, error_document(OPENAI_ERRORS, error, request_id)["error"])


def _failure(message: str, error: Document) -> bytes:
    """The event of an error. The nested members make every SDK raise, the flat ones are the published form.

    The number of the event is not known here; parsers that require one accept any.
    """
    members = {"code": error.get("code"), "message": message, "param": error.get("param")}
    return sse_frame(dump({"type": "error", "sequence_number": 0, **members, "error": error}), b"error")


RESPONSES = _Responses()
