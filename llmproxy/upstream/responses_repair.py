"""Repairs a Responses stream of llama.cpp, event by event, so that the SDKs' stream helpers can read it. Pure.

llama.cpp sends no sequence numbers and no indexes, only fragments of the Response in its first events, no ``done`` of
arguments, in some versions no ids on function calls, and sends every ``done`` of items at the end. Each of its items
has one part.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llmproxy.wire.documents import Document, error_message, peek
from llmproxy.wire.formats.responses import TEXT_PARTS, EventWriter, complete, complete_item, complete_part
from llmproxy.wire.framing import sse_data

#: kind of text by the type of its delta event
_TEXT_DELTAS = {f"{part.events}.delta": kind for kind, part in TEXT_PARTS.items()}
_ARGUMENTS_DELTA = "response.function_call_arguments.delta"

#: members of an event that are written anew; others (progress, timings) are passed on
_WRITTEN = frozenset(
    {"type", "sequence_number", "response", "item_id", "output_index", "content_index", "delta", "logprobs"}
)

#: written anew from what is known about the item
_REPLACED = frozenset(
    {
        "response.created",
        "response.queued",
        "response.content_part.added",
        "response.content_part.done",
        "response.function_call_arguments.done",
        *(f"{part.events}.done" for part in TEXT_PARTS.values()),
    }
)


@dataclass(slots=True)
class _Item:
    """One unfinished output item. ``item`` has its members so far, ``pieces`` the sent pieces of its one text."""

    index: int
    item: Document
    pieces: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    #: the kind of the part under way, None before its opening
    part: str | None = None
    done: bool = False

    @property
    def location(self) -> Document:
        return {"item_id": self.item["id"], "output_index": self.index}

    @property
    def streamed(self) -> str | None:
        return "".join(self.pieces) if self.part or self.pieces else None

    def has_id(self, name: object) -> bool:
        return name is not None and name in (self.item["id"], self.item.get("call_id"))

    def finished(self) -> Document:
        """The whole item, as far as its pieces show."""
        text = "".join(self.pieces)
        item = self.item | ({"status": "completed"} if "status" in self.item else {})
        if item.get("type") == "function_call":
            return item | {"arguments": text}
        if self.part is None:
            return item
        part: Document = {"type": self.part, TEXT_PARTS[self.part].member: text}
        return item | {"content": [part | ({"logprobs": self.logprobs} if self.logprobs else {})]}


class Repair:
    """Takes one upstream frame, returns the frames that stand for it; one instance repairs one stream.

    A standard stream passes unchanged. ``request`` is the request's body; ``clock`` gives Unix seconds.
    """

    def __init__(self, request: Document, clock: Callable[[], float] = time.time):
        self._request = request
        self._clock = clock
        self._writer = EventWriter()
        self._response: Document = {}
        self._items: list[_Item] = []
        self._standard = False
        self._ended = False

    def __call__(self, frame: bytes) -> list[bytes]:
        if self._standard:
            return [frame]
        if self._ended:
            return []
        data = sse_data(frame)
        event = peek(data)
        if event is None:
            # JSON that is not strict is passed on: the client may read it
            return [] if data.strip() == b"[DONE]" else [frame]
        if not self._response and _is_standard(event):
            self._standard = True
            return [frame]
        return self.event(event)

    def event(self, event: Document) -> list[bytes]:
        """The frames that stand for one event of the upstream; none after the end of the stream."""
        if self._ended:
            return []
        type = event.get("type")
        if type == "error" or event.get("error") is not None:
            return self._fail(error_message(event.get("error") or event))
        if type == "response.failed":
            return self._fail(error_message(_member(event, "response").get("error") or "The response failed."))
        if not isinstance(type, str):
            return []
        frames = [] if self._response else self._begin(event)
        if type == "response.output_item.added":
            frames += self._add(_member(event, "item"))
        elif type == _ARGUMENTS_DELTA or type in _TEXT_DELTAS:
            frames += self._delta(event)
        elif type == "response.output_item.done":
            frames += self._finish(_member(event, "item"))
        elif type in ("response.completed", "response.incomplete"):
            frames += self._end(event)
        elif type == "response.in_progress":
            frames += self._progress(event)
        elif type not in _REPLACED:
            members = {name: value for name, value in event.items() if name not in ("type", "sequence_number")}
            frames.append(self._writer.event(type, **members))
        return frames

    def _begin(self, event: Document) -> list[bytes]:
        """The opening events. A stream that ends with its first token has none of its own."""
        self._response = self._under_way(_member(event, "response").get("id"))
        return self._writer.opening(complete(self._response, self._request))

    def _progress(self, event: Document) -> list[bytes]:
        """The progress of the prompt. An event that only opens the stream has no further members."""
        extra = _extra(event)
        if not extra:
            return []
        return [self._writer.event("response.in_progress", response=complete(self._response, self._request), **extra)]

    def _under_way(self, id: object) -> Document:
        now = self._clock()
        return {
            "id": id if isinstance(id, str) and id else f"resp_{int(now * 1e6):x}",
            "created_at": int(now),
            "status": "in_progress",
            "output": [],
        }

    def _add(self, item: Document) -> list[bytes]:
        """Opens an item, and closes the previous one: readers show an item as in progress until it is done."""
        frames = [
            frame for current in self._items if not current.done for frame in self._close(current, current.finished())
        ]
        added = _Item(len(self._items), self._complete_item(item, len(self._items)))
        self._items.append(added)
        return [*frames, self._writer.item_added(added.index, added.item)]

    def _delta(self, event: Document) -> list[bytes]:
        delta = event.get("delta")
        if not isinstance(delta, str):
            return []
        frames: list[bytes] = []
        kind = _TEXT_DELTAS.get(str(event["type"]))
        item = self._find(event.get("item_id"))
        if item is None:
            frames += self._add(_unannounced(kind, event))
            item = self._items[-1]
        # the calls of a chat may come by turns: the item's end is sent again with all of it
        item.done = False
        item.pieces.append(delta)
        if kind is None:
            return [*frames, self._writer.arguments_delta(item.location, delta, **_extra(event))]
        location = item.location | {"content_index": 0}
        if item.part is None:
            item.part = kind
            part = {"type": kind, TEXT_PARTS[kind].member: ""}
            frames.append(self._writer.part_added(location, complete_part(part)))
        logprobs = event.get("logprobs")
        item.logprobs += logprobs if isinstance(logprobs, list) else []
        return [*frames, self._writer.text_delta(location, kind, delta, logprobs, **_extra(event))]

    def _finish(self, item: Document) -> list[bytes]:
        current = self._find(item.get("id") or item.get("call_id"))
        frames: list[bytes] = []
        if current is None:
            frames = self._add(item)
            current = self._items[-1]
        members = {name: value for name, value in item.items() if value not in (None, "", [])}
        if current.done:
            current.item = current.item | members | {"id": current.item["id"]}
            return frames
        return frames + self._close(current, current.finished() | members)

    def _close(self, current: _Item, final: Document) -> list[bytes]:
        streamed = current.streamed
        final = self._complete_item(final | {"id": current.item["id"]}, current.index)
        current.item = final
        current.done = True
        frames = list(self._writer.contents(current.index, final, streamed))
        return [*frames, self._writer.item_done(current.index, final)]

    def _end(self, event: Document) -> list[bytes]:
        response = _member(event, "response")
        frames: list[bytes] = []
        output = response.get("output")
        for item in output if isinstance(output, list) else []:
            frames += self._finish(item) if isinstance(item, dict) else []
        for current in self._items:
            if not current.done:
                frames += self._close(current, current.finished())
        status = str(event["type"]).removeprefix("response.")
        ended = {"status": status, "completed_at": response.get("created_at")} | response | self._identity()
        self._ended = True
        return [*frames, self._writer.ending(complete(ended, self._request), **_extra(event))]

    def _fail(self, message: str) -> list[bytes]:
        self._ended = True
        self._response = self._response or self._under_way(None)
        error = {"code": "server_error", "message": message}
        failed = self._response | self._identity() | {"status": "failed", "error": error}
        return [self._writer.ending(complete(failed, self._request))]

    def _identity(self) -> Document:
        """The members that must be the same in every event, and the items in the order in which they were streamed."""
        output = [current.item for current in self._items if current.done]
        return {"id": self._response["id"], "created_at": self._response["created_at"], "output": output}

    def _complete_item(self, item: Document, index: int) -> Document:
        completed: Document = complete_item(item, self._response["id"], index)
        return completed

    def _find(self, name: object) -> _Item | None:
        return next((current for current in reversed(self._items) if current.has_id(name)), None)


def _is_standard(event: Document) -> bool:
    response = event.get("response")
    return "sequence_number" in event and (not isinstance(response, dict) or "output" in response)


def _extra(event: Document) -> Document:
    return {name: value for name, value in event.items() if name not in _WRITTEN}


def _member(event: Document, name: str) -> Document:
    value: Any = event.get(name)
    return value if isinstance(value, dict) else {}


def _unannounced(kind: str | None, event: Document) -> Document:
    """The item of a delta that no event announced."""
    if kind is None:
        return {
            "type": "function_call",
            "id": event.get("item_id"),
            "call_id": event.get("item_id"),
            "name": "",
        }
    if kind == "reasoning_text":
        return {"type": "reasoning", "id": event.get("item_id"), "summary": [], "content": []}
    return {"type": "message", "id": event.get("item_id"), "content": []}
