"""Chunks that differ in one text alone, as most of a stream do: the text is read, and not the rest of each. Pure."""

from collections.abc import Callable
from typing import Self

import orjson

from llmproxy.wire.documents import Document, peek
from llmproxy.wire.framing import sse_data
from llmproxy.wire.records import record

#: stands in the place of a text, to see whether it is found there
_OTHER = "\0"


@record
class RepeatedChunk:
    """The bytes of a frame before and behind the text of its chunk."""

    head: bytes
    tail: bytes

    @classmethod
    def of(cls, frame: bytes, text: str, chunk_with: Callable[[str], Document]) -> Self | None:
        """The pattern of a frame whose chunk has this text, None if its place cannot be told. ``chunk_with`` gives the
        chunk with another text."""
        head, found, tail = frame.partition(orjson.dumps(text))
        if not found or peek(sse_data(head + orjson.dumps(_OTHER) + tail)) != chunk_with(_OTHER):
            return None
        return cls(head, tail)

    def text_of(self, frame: bytes) -> str:
        """The text of another frame that differs in nothing else; "" for any other frame."""
        if not frame.startswith(self.head) or not frame.endswith(self.tail):
            return ""
        value = frame[len(self.head) : len(frame) - len(self.tail)]
        # a line feed would begin another line of the event
        if b"\n" in value:
            return ""
        try:
            text = orjson.loads(value)
        except orjson.JSONDecodeError:
            return ""
        return text if isinstance(text, str) else ""
