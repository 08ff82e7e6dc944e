"""Members of an answer that repeat the request without having influenced it: a shared answer repeats each caller's
own."""

from collections.abc import Mapping
from typing import Any

from llmproxy.wire.documents import Document

#: member -> its value if the request has none. These are in no key, and may reveal who asked, and their labels.
ECHOED: Mapping[str, Any] = {"metadata": {}, "user": None, "safety_identifier": None, "prompt_cache_key": None}

#: members by which a caller can ask for a shared answer again: set also if the upstream's answer lacks them
OWN = frozenset({"id", "store", "background", "previous_response_id"})

_ABSENT = object()


def echo_of(request: Document) -> dict[str, Any]:
    """The members that an answer to ``request`` repeats."""
    return {name: other if (value := request.get(name)) is None else value for name, other in ECHOED.items()}


def with_echo(document: Document, echo: Mapping[str, Any]) -> Document:
    """``document`` with this echo in place of its own; the same object if that changes nothing.

    An error in place of an answer repeats nothing.
    """
    if document.get("error") is not None and not ("output" in document or "choices" in document):
        return document
    changed = {
        name: value
        for name, value in echo.items()
        if (name in OWN or name in document) and document.get(name, _ABSENT) != value
    }
    return {**document, **changed} if changed else document


def event_with_echo(event: Document, echo: Mapping[str, Any]) -> Document:
    """The same for one event of a stream: a chunk of a chat, or an event that holds a Response."""
    if "choices" in event or ("id" in event and "type" not in event):
        return with_echo(event, echo)
    response = event.get("response")
    if not isinstance(response, dict) or (echoed := with_echo(response, echo)) is response:
        return event
    return {**event, "response": echoed}
