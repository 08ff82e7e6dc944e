"""Responses for servers that have chat completions only: the request translated, and the stream translated back.

Features that chat does not have (hosted tools, stored prompts, conversations, file ids) are refused by name. Members
that neither API knows are passed on: they are the server's own. Pure.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from llmproxy.upstream.responses_repair import Repair
from llmproxy.wire.documents import Document, peek, read_leniently
from llmproxy.wire.errors import BadRequest
from llmproxy.wire.formats.responses_request import items_of
from llmproxy.wire.framing import sse_data

#: members of a Responses request that are translated, or mean nothing to a chat endpoint
_TRANSLATED = frozenset(
    {
        "background",
        "background_options",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "truncation",
    }
)

#: state of the server that a chat server does not have
_UNAVAILABLE = ("conversation", "previous_response_id", "prompt")

_LOGPROBS = "message.output_text.logprobs"


def chat_request(body: Document) -> Document:
    """The streamed chat completions request for ``body``, a Responses request. ``body`` is not changed.

    Raises ``BadRequest`` for what chat completions cannot express.
    """
    for name in _UNAVAILABLE:
        if body.get(name) is not None:
            raise BadRequest(f"'{name}' is not available: the model server has no Responses of its own.", param=name)
    chat = {name: value for name, value in body.items() if name not in _TRANSLATED and name not in _UNAVAILABLE}
    chat["messages"] = _messages(body)
    chat |= {"stream": True, "stream_options": {"include_usage": True}}
    if body.get("max_output_tokens") is not None:
        chat["max_tokens"] = body["max_output_tokens"]
    reasoning = body.get("reasoning")
    if isinstance(reasoning, dict) and reasoning.get("effort") is not None:
        chat["reasoning_effort"] = reasoning["effort"]
    return chat | _text(body.get("text")) | _tools(body) | _logprobs(body)


def response_format(text: Any) -> Document | None:
    """``text.format`` of a Responses request in the terms of chat completions; None for plain text."""
    form = text.get("format") if isinstance(text, dict) else None
    if not isinstance(form, dict):
        return None
    if form.get("type") == "json_object":
        return {"type": "json_object"}
    if form.get("type") != "json_schema":
        return None
    return {
        "type": "json_schema",
        "json_schema": {name: form[name] for name in ("name", "description", "schema", "strict") if name in form},
    }


def _text(text: Any) -> Document:
    members: Document = {}
    if (form := response_format(text)) is not None:
        members["response_format"] = form
    if isinstance(text, dict) and text.get("verbosity") is not None:
        members["verbosity"] = text["verbosity"]
    return members


def _logprobs(body: Document) -> Document:
    include, most = body.get("include"), body.get("top_logprobs")
    wanted = isinstance(include, list) and _LOGPROBS in include
    if not wanted and not most:
        return {}
    return {"logprobs": True} | ({"top_logprobs": most} if most else {})


def _tools(body: Document) -> Document:
    members: Document = {}
    tools = body.get("tools")
    if isinstance(tools, list) and tools:
        members["tools"] = [_tool(tool, place) for place, tool in enumerate(tools)]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        members["tool_choice"] = _choice(choice)
    elif choice is not None:
        members["tool_choice"] = choice
    return members


def _tool(tool: Any, place: int) -> Document:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind != "function":
        raise BadRequest(
            f"Tools of type {str(kind)[:100]!r} are not available: the model server has no Responses of its own, and "
            "chat completions know functions only.",
            param=f"tools[{place}]",
        )
    function = {name: value for name, value in tool.items() if name != "type" and value is not None}
    return {"type": "function", "function": function}


def _choice(choice: Document) -> Any:
    if choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if choice.get("type") == "allowed_tools":
        tools = choice.get("tools")
        named = tools if isinstance(tools, list) else []
        return {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": choice.get("mode", "auto"),
                "tools": [_choice(tool) if isinstance(tool, dict) else tool for tool in named],
            },
        }
    raise BadRequest(
        f"A tool choice of type {str(choice.get('type'))[:100]!r} is not available here.", param="tool_choice"
    )


def _messages(body: Document) -> list[Document]:
    items = items_of(body.get("input"))
    if items is None:
        raise BadRequest("'input' must be a string or an array of objects.", param="input")
    conversation = _Conversation()
    if body.get("instructions") is not None:
        conversation.messages.append({"role": "system", "content": body["instructions"]})
    for place, item in enumerate(items):
        conversation.add(item, f"input[{place}]")
    return conversation.messages


class _Conversation:
    """The messages so far. An assistant's reasoning, text and calls of one turn become one message."""

    def __init__(self) -> None:
        self.messages: list[Document] = []
        #: the assistant's message that further items of its turn go into
        self._turn: Document | None = None
        #: reasoning that belongs to the next message
        self._thoughts = ""

    def add(self, item: Document, param: str) -> None:
        kind = item.get("type") or "message"
        if kind == "message":
            self._message(item, param)
        elif kind == "reasoning":
            self._thoughts += _thoughts(item)
        elif kind == "function_call":
            self._call(item)
        elif kind == "function_call_output":
            output = item.get("output")
            content = output if isinstance(output, str) else _content(output, f"{param}.output")
            self._append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
        else:
            raise BadRequest(
                f"Items of type {str(kind)[:100]!r} are not available: the model server has no Responses of its own.",
                param=param,
            )

    def _message(self, item: Document, param: str) -> None:
        role = item.get("role")
        if role != "assistant":
            self._append({"role": role, "content": _content(item.get("content"), f"{param}.content")})
            return
        self._append(_assistant(item.get("content"), f"{param}.content"))
        self._turn = self.messages[-1]

    def _append(self, message: Document) -> None:
        self.messages.append(message)
        self._turn = None
        if message["role"] != "assistant":
            self._thoughts = ""

    def _call(self, item: Document) -> None:
        turn = self._turn
        if turn is None:
            self._append({"role": "assistant", "content": None})
            turn = self._turn = self.messages[-1]
        if self._thoughts:
            # models that call tools while they think need their thoughts back; elsewhere they are left out
            turn["reasoning_content"] = self._thoughts
            self._thoughts = ""
        function = {"name": item.get("name"), "arguments": item.get("arguments", "")}
        turn.setdefault("tool_calls", []).append({"id": item.get("call_id"), "type": "function", "function": function})


def _assistant(content: Any, param: str) -> Document:
    """An assistant's message, with its parts joined to one text."""
    if not isinstance(content, list):
        return {"role": "assistant", "content": content}
    texts = {"text": "", "refusal": ""}
    for place, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        name = "refusal" if kind == "refusal" else "text"
        if kind not in ("output_text", "input_text", "text", "refusal") or not isinstance(part.get(name), str):
            raise _part_unknown(kind, f"{param}[{place}]")
        texts[name] += part[name]
    message: Document = {"role": "assistant", "content": texts["text"]}
    return message | {"refusal": texts["refusal"]} if texts["refusal"] else message


def _content(content: Any, param: str) -> Any:
    """A message's content; a single text is a string, which every chat template accepts."""
    if not isinstance(content, list):
        return content
    parts = [_part(part, f"{param}[{place}]") for place, part in enumerate(content)]
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(part: Any, param: str) -> Document:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image" and part.get("image_url") is not None:
        detail = {"detail": part["detail"]} if part.get("detail") is not None else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    if kind == "input_audio" and part.get("input_audio") is not None:
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    if kind == "input_file" and part.get("file_data") is not None:
        return {"type": "file", "file": {name: part[name] for name in ("filename", "file_data") if name in part}}
    raise _part_unknown(kind, param)


def _part_unknown(kind: object, param: str) -> BadRequest:
    return BadRequest(
        f"Content of type {str(kind)[:100]!r} is not available in this form: the model server has no Responses of its "
        "own, and chat completions take text, images by URL, audio and files by their data.",
        param=param,
    )


def _thoughts(item: Document) -> str:
    """The text of a reasoning item: its content, else its summary."""
    for name in ("content", "summary"):
        parts = item.get(name)
        texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        if thoughts := "".join(text for text in texts if isinstance(text, str)):
            return thoughts
    return ""


def arguments_text(arguments: Any) -> str:
    """A call's arguments as JSON text; some servers send the object itself."""
    return arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()


#: texts of a delta, in the order of their events, and these events; servers differ in the name of the reasoning
_TEXTS = {
    "reasoning_content": ("rs", "response.reasoning_text.delta"),
    "reasoning": ("rs", "response.reasoning_text.delta"),
    "content": ("msg", "response.output_text.delta"),
    "refusal": ("msg", "response.refusal.delta"),
}

#: finish reasons of a whole answer
_COMPLETE = frozenset({"stop", "tool_calls", "function_call", "eos", "eos_token", "end_turn", "stop_sequence"})
#: why a Response is incomplete, by the finish reason of chat; any other reason is passed on unchanged
_INCOMPLETE = {"length": "max_output_tokens", "max_tokens": "max_output_tokens"}
#: finish reasons of a failed answer
_FAILED = frozenset({"abort", "aborted", "cancelled", "error"})


class ChatTranslation:
    """Takes one frame of a chat stream, returns the frames of the Responses stream; one instance reads one stream.

    Only the first choice counts: a Response has one. ``request`` is the Responses request, ``clock`` gives Unix
    seconds. Texts become events as they arrive; ids are made here, because those of chat may repeat.
    """

    def __init__(self, request: Document, clock: Callable[[], float] = time.time):
        self._repair = Repair(request, clock)
        self._clock = clock
        self._stem = ""
        self._items = 0
        #: the kind and id of the item that a text goes into
        self._open: tuple[str, str] | None = None
        #: call ids by the server's index
        self._calls: dict[Any, str] = {}
        self._call_id = ""
        #: each call's arguments so far
        self._arguments: dict[str, str] = {}
        self._finish_reason: str | None = None
        self._usage: Document | None = None
        self._model = ""

    def __call__(self, frame: bytes) -> list[bytes]:
        data = sse_data(frame)
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
                # some servers send it under both names
                continue
            if self._open is None or self._open[0] != prefix:
                self._open = (prefix, self._next_id(prefix))
            event: Document = {"type": type, "item_id": self._open[1], "delta": text}
            if name == "content" and isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
                event["logprobs"] = logprobs["content"]
            yield event

    def _call(self, call: Document) -> Iterator[Document]:
        """One piece of a tool call.

        A new id begins a new call, whatever its index; so does a name with arguments if the previous call's arguments
        are whole.
        """
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        id, index, name = call.get("id"), call.get("index"), function.get("name")
        given_id = id if isinstance(id, str) and id else None
        call_id = self._calls.get(index) if index is not None else self._call_id
        # without an index and an id only the name tells where a call begins
        begins = given_id != call_id if given_id is not None else index is None and bool(name)
        arguments = arguments_text(value) if (value := function.get("arguments")) not in (None, "") else ""
        repeats = (
            bool(name and arguments and call_id) and peek(self._arguments.get(call_id or "", "").encode()) is not None
        )
        if not call_id or begins or repeats:
            call_id = (
                given_id if given_id and given_id not in self._calls.values() else f"call_{self._stem}_{self._items}"
            )
            self._next_id("fc")
            self._open = None
            item = {"type": "function_call", "call_id": call_id, "name": name or "", "arguments": ""}
            yield {"type": "response.output_item.added", "item": item}
        self._calls[index] = self._call_id = call_id
        if arguments:
            self._arguments[call_id] = self._arguments.get(call_id, "") + arguments
            yield {"type": "response.function_call_arguments.delta", "item_id": call_id, "delta": arguments}

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
    """A delta whose content is a text; of a list of parts, the reasoning goes to a member of its own."""
    content = delta.get("content")
    if not isinstance(content, list):
        return delta
    thought = "".join(_part_text(part) for part in content if _is_thought(part))
    text = "".join(_part_text(part) for part in content if not _is_thought(part))
    return delta | {"content": text} | ({"reasoning_content": thought} if thought else {})


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("thinking", "reasoning")


def _part_text(part: Any) -> str:
    """The text of a part of a content. Mistral's reasoning parts have parts of their own."""
    if isinstance(part, list):
        return "".join(map(_part_text, part))
    if not isinstance(part, dict):
        return part if isinstance(part, str) else ""
    return _part_text(next((part[name] for name in ("text", "thinking", "reasoning") if part.get(name)), ""))


def _usage(usage: Document | None) -> Document | None:
    """Chat's usage in the names of Responses."""
    if usage is None:
        return None
    prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0, **_detail(usage, "prompt_tokens_details", "cached_tokens")},
        "output_tokens": completion,
        "output_tokens_details": {
            "reasoning_tokens": 0,
            **_detail(usage, "completion_tokens_details", "reasoning_tokens"),
        },
        "total_tokens": usage.get("total_tokens") or prompt + completion,
    }


def _detail(usage: Document, holder: str, name: str) -> Document:
    details = usage.get(holder)
    count = details.get(name) if isinstance(details, dict) else None
    return {name: count} if isinstance(count, int) else {}
