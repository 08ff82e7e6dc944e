"""The events of a Responses stream in their standard order, from whole items or from the rest of started ones."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from llmproxy.wire import sse
from llmproxy.wire.dialect import Document
from llmproxy.wire.documents import dump


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
    """Writes the frames of one stream: it counts the events. Items and parts are complete JSON objects.

    ``streamed`` is what of a text was sent before; None means that not even its opening was. ``first`` is the number
    of the first event.
    """

    def __init__(self, first: int = 0) -> None:
        self._sent = first

    def event(self, type: str, /, **members: Any) -> bytes:
        """One event of ``type`` with the next sequence number."""
        body = {"type": type, "sequence_number": self._sent, **members}
        self._sent += 1
        return sse.frame(dump(body), type.encode())

    def opening(self, response: Document) -> list[bytes]:
        """``response.created`` and ``response.in_progress`` of a Response under way."""
        return [self.event(type, response=response) for type in ("response.created", "response.in_progress")]

    def ending(self, response: Document, /, **beside: Any) -> bytes:
        """The terminal event of a Response; ``beside`` are members next to it."""
        type = _ENDINGS.get(str(response.get("status")), "response.failed")
        return self.event(type, response=response, **beside)

    def item_added(self, index: int, item: Document) -> bytes:
        return self.event("response.output_item.added", output_index=index, item=_blank_item(item))

    def item_done(self, index: int, item: Document) -> bytes:
        return self.event("response.output_item.done", output_index=index, item=item)

    def part_added(self, where: Document, part: Document) -> bytes:
        return self.event("response.content_part.added", **where, part=_blank_part(part))

    def text_delta(self, where: Document, kind: str, delta: str, logprobs: Any = None, /, **beside: Any) -> bytes:
        """One piece of a text part of ``kind``, a name in ``TEXT_PARTS``; ``beside`` are members next to it."""
        members: Document = {"delta": delta, **beside}
        if kind == "output_text":
            members["logprobs"] = logprobs or []
        return self.event(f"{TEXT_PARTS[kind].events}.delta", **where, **members)

    def arguments_delta(self, where: Document, delta: str, /, **beside: Any) -> bytes:
        return self.event("response.function_call_arguments.delta", **where, delta=delta, **beside)

    def contents(self, index: int, item: Document, streamed: str | None = None) -> Iterator[bytes]:
        """What comes between an item's added and done. ``streamed`` is about its arguments or its first part."""
        where = {"item_id": item.get("id"), "output_index": index}
        if item.get("type") == "function_call":
            yield from self._arguments(where, item, streamed or "")
            return
        if item.get("type") not in ("message", "reasoning"):
            return
        for place, part in _parts(item, "summary"):
            yield from self._summary(where | {"summary_index": place}, part)
        for place, part in _parts(item, "content"):
            yield from self._part(where | {"content_index": place}, part, streamed if place == 0 else None)

    def whole_item(self, index: int, item: Document) -> Iterator[bytes]:
        yield self.item_added(index, item)
        yield from self.contents(index, item)
        yield self.item_done(index, item)

    def _arguments(self, where: Document, item: Document, streamed: str) -> Iterator[bytes]:
        arguments = _text(item, "arguments")
        if remainder := _remainder(arguments, streamed):
            yield self.arguments_delta(where, remainder)
        name = item.get("name")
        yield self.event("response.function_call_arguments.done", **where, name=name, arguments=arguments)

    def _part(self, where: Document, part: Document, streamed: str | None) -> Iterator[bytes]:
        if streamed is None:
            yield self.part_added(where, part)
        kind = str(part.get("type"))
        if kind in TEXT_PARTS:
            events, member = TEXT_PARTS[kind]
            text = _text(part, member)
            if remainder := _remainder(text, streamed or ""):
                yield self.text_delta(where, kind, remainder, part.get("logprobs") if not streamed else None)
            for place, annotation in enumerate(_list(part, "annotations")):
                yield self.event(
                    "response.output_text.annotation.added",
                    **where,
                    annotation_index=place,
                    annotation=annotation,
                )
            logprobs = {"logprobs": part.get("logprobs") or []} if kind == "output_text" else {}
            yield self.event(f"{events}.done", **where, **{member: text}, **logprobs)
        yield self.event("response.content_part.done", **where, part=part)

    def _summary(self, where: Document, part: Document) -> Iterator[bytes]:
        text = _text(part, "text")
        yield self.event("response.reasoning_summary_part.added", **where, part=part | {"text": ""})
        if text:
            yield self.event("response.reasoning_summary_text.delta", **where, delta=text)
        yield self.event("response.reasoning_summary_text.done", **where, text=text)
        yield self.event("response.reasoning_summary_part.done", **where, part=part)


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
    """What of ``text`` is still to be sent; nothing where the pieces sent before were other ones."""
    return text[len(streamed) :] if text.startswith(streamed) else ""


def _blank_item(item: Document) -> Document:
    """The item as it looks before anything of it was said. Kinds without pieces are there at once."""
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
