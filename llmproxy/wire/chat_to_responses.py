"""The Responses stream that stands for a chat completions stream, for servers that have chat only."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from llmproxy.wire import sse
from llmproxy.wire.dialect import Document
from llmproxy.wire.documents import peek, read_leniently
from llmproxy.wire.responses_repair import Repair
from llmproxy.wire.responses_to_chat import arguments_text

#: texts of a delta, in the order in which they are told, and the events that carry them; servers differ in the
#: name of what was thought
_TEXTS = {
    "reasoning_content": ("rs", "response.reasoning_text.delta"),
    "reasoning": ("rs", "response.reasoning_text.delta"),
    "content": ("msg", "response.output_text.delta"),
    "refusal": ("msg", "response.refusal.delta"),
}

#: finish reasons of a whole answer
_COMPLETE = frozenset({"stop", "tool_calls", "function_call", "eos", "eos_token", "end_turn", "stop_sequence"})
#: why a Response is incomplete, by the finish reason of chat; any other word is given on as it is
_INCOMPLETE = {"length": "max_output_tokens", "max_tokens": "max_output_tokens"}
#: finish reasons that say that the answer is none
_FAILED = frozenset({"abort", "aborted", "cancelled", "error"})


class ChatTranslation:
    """Takes one frame of a chat stream, gives the frames of the Responses stream; one instance reads one stream.

    The first choice counts: a Response has one. ``request`` is the Responses request, ``clock`` gives Unix seconds.
    Words of the model become events as they arrive; ids are made here, because those of chat may repeat.
    """

    def __init__(self, request: Document, clock: Callable[[], float] = time.time):
        self._repair = Repair(request, clock)
        self._clock = clock
        self._stem = ""
        self._items = 0
        #: the kind and id of the item that a text goes into
        self._open: tuple[str, str] | None = None
        #: call ids by what the server told them apart by
        self._calls: dict[Any, str] = {}
        self._call_id = ""
        #: what came so far of each call's arguments
        self._arguments: dict[str, str] = {}
        self._finish_reason: str | None = None
        self._usage: Document | None = None
        self._model = ""

    def __call__(self, frame: bytes) -> list[bytes]:
        data = sse.data(frame)
        if data.strip() == b"[DONE]":
            return self._end()
        if data.strip() == b"null":
            # no chunk: llama.cpp
            return []
        chunk = read_leniently(data)
        if chunk is None:
            return self._repair.event({"type": "error", "message": "The upstream sent an event that is not JSON."})
        if chunk.get("error") is not None:
            return self._repair.event({"type": "error", "error": chunk["error"]})
        return [frame for event in self._events(chunk) for frame in self._repair.event(event)]

    def _events(self, chunk: Document) -> Iterator[Document]:
        if not self._stem:
            self._stem = f"{int(self._clock() * 1e6):x}"
            yield {"type": "response.created", "response": {"id": f"resp_{self._stem}"}}
        if isinstance(model := chunk.get("model"), str):
            self._model = model
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = usage
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("index", 0) == 0:
                yield from self._choice(choice)

    def _choice(self, choice: Document) -> Iterator[Document]:
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            yield from self._texts(delta, choice.get("logprobs"))
            calls = delta.get("tool_calls")
            for call in calls if isinstance(calls, list) else ():
                if isinstance(call, dict):
                    yield from self._call(call)
        if isinstance(reason := choice.get("finish_reason"), str) and reason:
            self._finish_reason = reason

    def _texts(self, delta: Document, logprobs: Any) -> Iterator[Document]:
        delta = _flat(delta)
        for name, (prefix, type) in _TEXTS.items():
            text = delta.get(name)
            if not isinstance(text, str) or not text:
                continue
            if name == "reasoning" and delta.get("reasoning_content") == text:
                # told under both names
                continue
            if self._open is None or self._open[0] != prefix:
                self._open = (prefix, self._next_id(prefix))
            event: Document = {"type": type, "item_id": self._open[1], "delta": text}
            if name == "content" and isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
                event["logprobs"] = logprobs["content"]
            yield event

    def _call(self, call: Document) -> Iterator[Document]:
        """One piece of a tool call. A new id begins a new call, whatever index it comes under, and so does a name that
        comes with arguments where those of the call before are whole."""
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        id, index, name = call.get("id"), call.get("index"), function.get("name")
        told = id if isinstance(id, str) and id else None
        known = self._calls.get(index) if index is not None else self._call_id
        # without an index and an id only the name tells where a call begins
        begins = told != known if told is not None else index is None and bool(name)
        arguments = arguments_text(given) if (given := function.get("arguments")) not in (None, "") else ""
        again = bool(name and arguments and known) and peek(self._arguments.get(known or "", "").encode()) is not None
        if not known or begins or again:
            known = told if told and told not in self._calls.values() else f"call_{self._stem}_{self._items}"
            self._next_id("fc")
            self._open = None
            item = {"type": "function_call", "call_id": known, "name": name or "", "arguments": ""}
            yield {"type": "response.output_item.added", "item": item}
        self._calls[index] = self._call_id = known
        if arguments:
            self._arguments[known] = self._arguments.get(known, "") + arguments
            yield {"type": "response.function_call_arguments.delta", "item_id": known, "delta": arguments}

    def _next_id(self, prefix: str) -> str:
        self._items += 1
        return f"{prefix}_{self._stem}_{self._items - 1}"

    def _end(self) -> list[bytes]:
        reason = self._finish_reason
        if reason is None or reason in _FAILED:
            why = "without a finish reason" if reason is None else f"with the finish reason {reason!r}"
            return self._repair.event({"type": "error", "message": f"The model server ended its answer {why}."})
        response: Document = {"model": self._model, "usage": _usage(self._usage)}
        if reason in _COMPLETE:
            return self._repair.event({"type": "response.completed", "response": response | {"status": "completed"}})
        response |= {"status": "incomplete", "incomplete_details": {"reason": _INCOMPLETE.get(reason, reason)}}
        return self._repair.event({"type": "response.incomplete", "response": response})


def _flat(delta: Document) -> Document:
    """A delta whose content is a text, where it came as a list of parts: what was thought is told apart."""
    content = delta.get("content")
    if not isinstance(content, list):
        return delta
    thought = "".join(_part_text(part) for part in content if _is_thought(part))
    said = "".join(_part_text(part) for part in content if not _is_thought(part))
    return delta | {"content": said} | ({"reasoning_content": thought} if thought else {})


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("thinking", "reasoning")


def _part_text(part: Any) -> str:
    """The text of a part of a content. Mistral's thoughts hold parts of their own."""
    if isinstance(part, list):
        return "".join(map(_part_text, part))
    if not isinstance(part, dict):
        return part if isinstance(part, str) else ""
    return _part_text(next((part[name] for name in ("text", "thinking", "reasoning") if part.get(name)), ""))


def _usage(usage: Document | None) -> Document | None:
    """Chat's usage in the names of Responses."""
    if usage is None:
        return None
    taken, given = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    return {
        "input_tokens": taken,
        "input_tokens_details": {"cached_tokens": 0, **_detail(usage, "prompt_tokens_details", "cached_tokens")},
        "output_tokens": given,
        "output_tokens_details": {
            "reasoning_tokens": 0,
            **_detail(usage, "completion_tokens_details", "reasoning_tokens"),
        },
        "total_tokens": usage.get("total_tokens") or taken + given,
    }


def _detail(usage: Document, holder: str, name: str) -> Document:
    details = usage.get(holder)
    count = details.get(name) if isinstance(details, dict) else None
    return {name: count} if isinstance(count, int) else {}
