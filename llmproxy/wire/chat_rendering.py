"""One choice of a plain chat answer, taken apart into the deltas of a stream."""

from collections.abc import Iterator
from typing import Any

from llmproxy.wire.chat_assembly import TEXTS
from llmproxy.wire.dialect import Malformed
from llmproxy.wire.tool_calls import LONG


def deltas(index: int, choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The choice's part of each chunk: role, texts (reasoning first), tool calls, the rest, finish.

    Raises ``Malformed`` when the choice has no message.
    """
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Malformed("a choice has no message")
    rest = {name: value for name, value in choice.items() if name not in ("index", "message", "finish_reason")}
    for delta in _message_deltas(message):
        part: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": None}
        if "logprobs" in rest and ("role" not in delta) and (delta.keys() & {"content", "refusal"}):
            part["logprobs"] = rest.pop("logprobs")
        yield part
    yield {"index": index, "delta": {}, **rest, "finish_reason": choice.get("finish_reason")}


def _message_deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    # a text's name goes with the role when it is null or empty: null and "" are told apart by SDKs, absent too
    opening = {name: message[name] for name in TEXTS if name in message and not message[name]}
    yield {"role": message.get("role", "assistant"), "content": None, **opening}
    texts = [name for name in TEXTS if isinstance(message.get(name), str) and message[name]]
    for name in texts:
        yield {name: message[name]}
    sent = {"role", *opening, *texts}
    calls = message.get("tool_calls")
    if isinstance(calls, list) and calls:
        sent.add("tool_calls")
        for place, call in enumerate(calls):
            yield from _tool_call_deltas(place, call)
    rest = {name: value for name, value in message.items() if name not in sent}
    if rest:
        yield rest


def _tool_call_deltas(place: int, call: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(call, dict):
        raise Malformed("a tool call is not an object")
    header = {"index": place, **call}
    if header["index"] != place:
        raise Malformed("the indexes of tool calls are not in order")
    long: dict[str, Any] = {}
    for kind, name in LONG.items():
        body = call.get(kind)
        if isinstance(body, dict) and isinstance(body.get(name), str):
            header[kind] = body | {name: ""}
            long[kind] = {name: body[name]}
    yield {"tool_calls": [header]}
    if long:
        yield {"tool_calls": [{"index": place, **long}]}
