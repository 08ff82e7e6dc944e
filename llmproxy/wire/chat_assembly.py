"""One choice of a chat answer, put together from the deltas of its stream."""

from collections.abc import Mapping
from typing import Any

from llmproxy.wire import chunks
from llmproxy.wire.deltas import Deltas
from llmproxy.wire.dialect import Malformed
from llmproxy.wire.tool_calls import ToolCalls

#: texts of a message; the reasoning keeps the name it came under (llama.cpp's, Ollama's)
TEXTS = ("reasoning_content", "reasoning", "content", "refusal")

#: a message that has one of these has no text of its own: its content stays null
_INSTEAD_OF_CONTENT = ("tool_calls", "function_call", "refusal", "audio")


class Choice:
    """One choice under way. ``doubts`` takes note of what another server may put together in another way."""

    __slots__ = (
        "_doubts",
        "_index",
        "_logprobs",
        "_members",
        "_message",
        "_parts",
        "_tool_calls",
        "finish_reason",
        "pieces",
    )

    def __init__(self, index: int, doubts: list[str]):
        #: deltas that said something
        self.pieces = 0
        self.finish_reason: object = None
        self._index = index
        self._doubts = doubts
        self._members = Deltas(doubts, grown=chunks.GROWN)
        self._logprobs = chunks.Logprobs(doubts)
        self._message = Deltas(
            doubts,
            joined=frozenset(TEXTS),
            grown=frozenset({"annotations"}),
            settled=frozenset({"role"}),
            pieces=True,
        )
        self._parts = {
            "function_call": Deltas(doubts, joined=frozenset({"arguments"}), settled=frozenset({"name"}), pieces=True),
            "audio": Deltas(doubts, joined=frozenset({"data", "transcript"}), settled=frozenset({"id"}), pieces=True),
        }
        self._tool_calls = ToolCalls(doubts)

    def add(self, choice: Mapping[str, Any]) -> None:
        """Takes the choice's part of one chunk. Raises ``Malformed``."""
        members = {name: value for name, value in choice.items() if name not in ("index", "delta")}
        if isinstance(members.get("logprobs"), dict):
            self._logprobs.add(members.pop("logprobs"))
        if members.get("message") is not None:
            self._doubts.append("a message came beside the deltas")
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        self._members.add(chunks.finished(members))
        delta = choice.get("delta") or {}
        if not isinstance(delta, dict):
            raise Malformed("a delta is not an object")
        self._add_delta(delta)

    def _add_delta(self, delta: dict[str, Any]) -> None:
        self.pieces += any(delta.get(name) for name in (*TEXTS, "tool_calls"))
        plain = delta
        for name in ("tool_calls", "function_call", "audio"):
            value = delta.get(name)
            if name == "tool_calls" and isinstance(value, list):
                self._tool_calls.add(value)
                # the name alone, so that an empty list stays one
                plain = plain | {name: []}
            elif name == "tool_calls" and value is not None:
                self._doubts.append("tool calls are no list")
            elif name in self._parts and isinstance(value, dict):
                self._parts[name].add(value)
                plain = {key: known for key, known in plain.items() if key != name}
        self._message.add(plain)

    def result(self, *, numbered: bool = False) -> dict[str, Any]:
        """The choice as the plain answer has it; ``finish_reason`` is null while it is unknown. ``numbered``: with the
        indexes of its tool calls."""
        choice: dict[str, Any] = {"index": self._index, "finish_reason": None, **self._members.result()}
        if self._logprobs:
            choice["logprobs"] = self._logprobs.result()
        return choice | {"message": self._result_message(numbered)}

    def _result_message(self, numbered: bool) -> dict[str, Any]:
        message = self._message.result()
        message |= {name: part.result() for name, part in self._parts.items() if part}
        if self._tool_calls:
            message["tool_calls"] = self._tool_calls.result(numbered=numbered)
        content = message.get("content")
        if content is None and not any(message.get(name) for name in _INSTEAD_OF_CONTENT):
            content = ""
        return message | {"role": message.get("role") or "assistant", "content": content}
