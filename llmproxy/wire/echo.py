"""What an answer repeats of its request although it had no say in it. A shared answer must repeat each caller's own."""

from collections.abc import Mapping
from typing import Any

from llmproxy.wire.dialect import Document

#: member -> its value where the request has none. Part of no key, and possibly telling: who asked, and their labels.
ECHOED: Mapping[str, Any] = {"metadata": {}, "user": None, "safety_identifier": None, "prompt_cache_key": None}


def echo_of(request: Document) -> dict[str, Any]:
    """What an answer to ``request`` repeats."""
    return {name: other if (value := request.get(name)) is None else value for name, other in ECHOED.items()}


def echoing(document: Document, echo: Mapping[str, Any]) -> Document:
    """``document`` with this echo in place of the one it has; the same object where that changes nothing."""
    changed = {name: value for name, value in echo.items() if name in document and document[name] != value}
    return {**document, **changed} if changed else document
