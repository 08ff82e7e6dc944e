"""What an answer repeats of its request although it had no say in it. A shared answer must repeat each caller's own."""

from collections.abc import Mapping
from typing import Any

from llmproxy.wire.documents import Document

#: member -> its value where the request has none. Part of no key, and possibly telling: who asked, and their labels.
ECHOED: Mapping[str, Any] = {"metadata": {}, "user": None, "safety_identifier": None, "prompt_cache_key": None}

#: what makes a shared answer one that its caller can ask for again: set also where the upstream's has no such member
OWN = frozenset({"id", "store", "background", "previous_response_id"})

_ABSENT = object()


def echo_of(request: Document) -> dict[str, Any]:
    """What an answer to ``request`` repeats."""
    return {name: other if (value := request.get(name)) is None else value for name, other in ECHOED.items()}


def echoing(document: Document, echo: Mapping[str, Any]) -> Document:
    """``document`` with this echo in place of the one it has; the same object where that changes nothing.

    An error in the place of an answer repeats nothing.
    """
    if document.get("error") is not None and not ("output" in document or "choices" in document):
        return document
    changed = {
        name: value
        for name, value in echo.items()
        if (name in OWN or name in document) and document.get(name, _ABSENT) != value
    }
    return {**document, **changed} if changed else document


def echoing_event(event: Document, echo: Mapping[str, Any]) -> Document:
    """One event of a stream likewise: a chunk of a chat is a piece of its answer, one of a Response may hold it all."""
    if "choices" in event or ("id" in event and "type" not in event):
        return echoing(event, echo)
    response = event.get("response")
    if not isinstance(response, dict) or (echoed := echoing(response, echo)) is response:
        return event
    return {**event, "response": echoed}
