"""Conversations that are kept on our side: the items that came before, and a request's items as they are shown.

Model servers know no ``previous_response_id``: they get the whole conversation as input items, each time.
"""

from collections.abc import Iterable
from typing import Any

from llmproxy.wire.dialect import Document

#: how ids of items begin, by type
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}

#: members of a reasoning item that carry what was thought
_THOUGHTS = ("content", "summary", "encrypted_content")


def items_of(given: Any) -> list[Document] | None:
    """A request's ``input`` as items, a string as the message that it stands for. None for what is neither."""
    if given is None:
        return []
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    if isinstance(given, list) and all(isinstance(item, dict) for item in given):
        return given
    return None


def history(turns: Iterable[tuple[list[Document], list[Document]]]) -> list[Document]:
    """The items of a conversation's turns, each its input and its output, oldest first.

    Ids of output items are made from their places: the same conversation, held again, is the same request.
    """
    items: list[Document] = []
    for given, output in turns:
        items += given
        for item in output:
            if not _is_empty(item):
                items.append(_said(item, len(items)))
    return items


def _is_empty(item: Document) -> bool:
    """Reasoning of which nothing is left to read; llama.cpp refuses it."""
    return item.get("type") == "reasoning" and not any(item.get(name) for name in _THOUGHTS)


def _said(item: Document, place: int) -> Document:
    """An output item as input: its id and ``annotations`` are required there, ``logprobs`` are of no use."""
    said = dict(item)
    prefix = _PREFIXES.get(str(item.get("type")))
    if prefix is not None:
        said["id"] = f"{prefix}_{place}"
    content = item.get("content")
    if isinstance(content, list):
        said["content"] = [_without_logprobs(part) for part in content]
    return said


def _without_logprobs(part: Any) -> Any:
    return {name: value for name, value in part.items() if name != "logprobs"} if isinstance(part, dict) else part


def shown(items: Iterable[Document], response_id: str) -> list[Document]:
    """A request's items with the members that a list of them must have; an id is made from the Response's and the
    place where the caller gave none."""
    stem = response_id.removeprefix("resp_")
    return [_shown(item, f"{stem}_{place}") for place, item in enumerate(items)]


def _shown(item: Document, name: str) -> Document:
    kind = item.get("type") or "message"
    whole: Document = {"id": f"{_PREFIXES.get(str(kind), 'item')}_in_{name}", "type": kind}
    if kind == "message":
        whole["status"] = "completed"
    whole |= {member: value for member, value in item.items() if value is not None}
    if kind == "message" and isinstance(text := item.get("content"), str):
        part: Document = {"type": "input_text", "text": text}
        if item.get("role") == "assistant":
            part = {"type": "output_text", "text": text, "annotations": []}
        whole["content"] = [part]
    return whole
