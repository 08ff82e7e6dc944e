"""One choice of a chat answer, put together from the deltas of its stream."""

from collections.abc import Mapping
from typing import Any

from llmproxy.wire.deltas import Deltas
from llmproxy.wire.dialect import Malformed

#: texts of a message; the reasoning keeps the name it came under (llama.cpp's, Ollama's)
TEXTS = ("reasoning_content", "reasoning", "content", "refusal")

_JOINED = frozenset(TEXTS)
#: a message that has one of these has no text of its own: its content stays null
_INSTEAD_OF_CONTENT = ("tool_calls", "function_call", "refusal", "audio")


class Choice:
    """One choice under way."""

    __slots__ = ("_index", "_logprobs", "_members", "_message", "_parts", "_tool_calls")

    def __init__(self, index: int):
        self._index = index
        self._members = Deltas()
        self._logprobs = Deltas()
        self._message = Deltas(joined=_JOINED, settled=frozenset({"role"}))
        self._parts = {
            "function_call": Deltas(joined=frozenset({"arguments"}), settled=frozenset({"name"})),
            "audio": Deltas(joined=frozenset({"data", "transcript"}), settled=frozenset({"id"})),
        }
        self._tool_calls: dict[int, _ToolCall] = {}

    def add(self, choice: Mapping[str, Any]) -> None:
        """Takes the choice's part of one chunk. Raises ``Malformed``."""
        members = {name: value for name, value in choice.items() if name not in ("index", "delta")}
        if isinstance(members.get("logprobs"), dict):
            self._logprobs.add(members.pop("logprobs"))
        self._members.add(members)
        delta = choice.get("delta") or {}
        if not isinstance(delta, dict):
            raise Malformed("a delta is not an object")
        self._add_delta(delta)

    def _add_delta(self, delta: dict[str, Any]) -> None:
        plain = delta
        for name in ("tool_calls", "function_call", "audio"):
            value = delta.get(name)
            if name == "tool_calls" and isinstance(value, list):
                self._add_tool_calls(value)
                # the name alone, so that an empty list stays one
                plain = plain | {name: []}
            elif name in self._parts and isinstance(value, dict):
                self._parts[name].add(value)
                plain = {key: known for key, known in plain.items() if key != name}
        self._message.add(plain)

    def _add_tool_calls(self, calls: list[Any]) -> None:
        for place, call in enumerate(calls):
            if not isinstance(call, dict):
                raise Malformed("a tool call is not an object")
            index = call.get("index", place)
            if not isinstance(index, int):
                raise Malformed("the index of a tool call is not a number")
            self._tool_calls.setdefault(index, _ToolCall()).add(call)

    def result(self) -> dict[str, Any]:
        """The choice as the plain answer has it; ``finish_reason`` is null while it is unknown."""
        choice: dict[str, Any] = {"index": self._index, "finish_reason": None, **self._members.result()}
        if self._logprobs:
            choice["logprobs"] = self._logprobs.result()
        return choice | {"message": self._result_message()}

    def _result_message(self) -> dict[str, Any]:
        message = self._message.result()
        message |= {name: part.result() for name, part in self._parts.items() if part}
        if self._tool_calls:
            message["tool_calls"] = [self._tool_calls[index].result() for index in sorted(self._tool_calls)]
        content = message.get("content")
        if content is None and not any(message.get(name) for name in _INSTEAD_OF_CONTENT):
            content = ""
        return message | {"role": message.get("role") or "assistant", "content": content}


class _ToolCall:
    """One tool call under way. Some servers repeat its id and name in every delta: the first ones count."""

    __slots__ = ("_kinds", "_members")

    def __init__(self) -> None:
        self._members = Deltas(settled=frozenset({"id", "type"}))
        self._kinds = {
            "function": Deltas(joined=frozenset({"arguments"}), settled=frozenset({"name"})),
            "custom": Deltas(joined=frozenset({"input"}), settled=frozenset({"name"})),
        }

    def add(self, call: dict[str, Any]) -> None:
        members = {}
        for name, value in call.items():
            if name in self._kinds and isinstance(value, dict):
                self._kinds[name].add(value)
            elif name != "index":
                members[name] = value
        self._members.add(members)

    def result(self) -> dict[str, Any]:
        return self._members.result() | {name: kind.result() for name, kind in self._kinds.items() if kind}
