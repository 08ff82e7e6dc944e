"""The stream of chunks that a caller would have got who did not ask for usage, made of one that was asked for with it.

The proxy always asks, to know what an answer took. That leaves traces: OpenAI puts a null usage on every chunk, Ollama
one of zeros, all send a chunk of its own at the end, and llama.cpp puts its timings on that chunk instead of on the one
before it.
"""

import re
from collections.abc import Iterable
from typing import Any

from llmproxy.wire import sse
from llmproxy.wire.dialect import Document
from llmproxy.wire.documents import dump, peek

#: a member, not a word in a text: there its quotes would be escaped
_FINISH = re.compile(rb'"finish_reason"\s*:\s*"[^"]')
#: the usual end of a chunk of OpenAI's
_NULL_AT_THE_END = b',"usage":null}\n\n'

#: members that every chunk repeats
_HEADER = frozenset({"id", "object", "created", "model", "system_fingerprint", "service_tier", "choices", "usage"})


class UsageFilter:
    """Takes frames, gives frames. A chunk that finishes a choice is held back until the next one is there."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: bytes | None = None

    def feed(self, frames: Iterable[bytes]) -> list[bytes]:
        shown: list[bytes] = []
        for frame in frames:
            if b'"usage"' not in frame:
                self._show(frame, shown)
            elif frame.endswith(_NULL_AT_THE_END) and frame.count(b"\n") == 2:
                self._show(frame[: -len(_NULL_AT_THE_END)] + b"}\n\n", shown)
            elif (chunk := peek(sse.data(frame))) is None:
                self._show(frame, shown)
            elif is_usage_only(chunk):
                self._move(chunk)
            elif _is_trace(chunk):
                kept = {name: value for name, value in chunk.items() if name != "usage"}
                self._show(sse.frame(dump(kept), sse.event(frame)), shown)
            else:
                self._show(frame, shown)
        return shown

    def close(self) -> list[bytes]:
        """What was held back."""
        held, self._held = self._held, None
        return [] if held is None else [held]

    def _show(self, frame: bytes, shown: list[bytes]) -> None:
        shown += self.close()
        if _FINISH.search(frame):
            self._held = frame
        else:
            shown.append(frame)

    def _move(self, chunk: Document) -> None:
        """Has the chunk before say what else the one with the usage says."""
        beside = {name: value for name, value in chunk.items() if name not in _HEADER}
        held = None if self._held is None else peek(sse.data(self._held))
        if beside and held is not None and self._held is not None:
            self._held = sse.frame(dump(beside | held), sse.event(self._held))


def is_usage_only(chunk: Document) -> bool:
    """Whether only those who asked for usage get this chunk."""
    return chunk.get("choices") == [] and chunk.get("usage") is not None


def _is_trace(chunk: Document) -> bool:
    """Whether the chunk has its usage because that was asked for. Real counts at a choice's end come unasked."""
    if "usage" not in chunk:
        return False
    usage, choices = chunk["usage"], chunk.get("choices")
    if isinstance(usage, dict) and isinstance(choices, list) and any(map(_is_finishing, choices)):
        return not any(usage.values())
    return True


def _is_finishing(choice: Any) -> bool:
    return isinstance(choice, dict) and bool(choice.get("finish_reason"))
