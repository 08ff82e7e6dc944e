"""A prompt as a chat completion: the request's body, and what its answer says."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from llmproxy.jobs.tasks.order import Order
from llmproxy.upstream.upstreams import Upstreams
from llmproxy.wire.errors import BadRequest

#: what answers prompts: a cached endpoint
PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Said:
    """An answer in the words of tasks. ``usage`` as the model server gave it."""

    response: str | None
    model: str | None
    usage: dict[str, Any] | None


def asking(order: Order, model: str) -> Callable[[str], bytes]:
    """What makes the body of the chat completion of one of an order's prompts. ``model`` "" is left out."""
    before = [{"role": "system", "content": order.instruction}] if order.instruction else []
    options: dict[str, Any] = {"max_tokens": order.max_tokens, "temperature": order.temperature}
    given = {name: value for name, value in options.items() if value is not None}
    named = {"model": model} if model else {}

    def body(prompt: str) -> bytes:
        return orjson.dumps({**named, "messages": [*before, {"role": "user", "content": prompt}], **given})

    return body


def said(body: bytes) -> Said:
    """What a chat completion says. What is not there, or is of another type, is None."""
    document = read(body)
    choices = document.get("choices")
    first = _members(choices[0]) if isinstance(choices, list) and choices else {}
    content, model = _members(first.get("message")).get("content"), document.get("model")
    return Said(
        content if isinstance(content, str) else None,
        model if isinstance(model, str) else None,
        _members(document.get("usage")) or None,
    )


def read(body: bytes) -> dict[str, Any]:
    """An answer's document, empty where it is none."""
    try:
        return _members(orjson.loads(body))
    except orjson.JSONDecodeError:
        return {}


def model_for(order: Order, upstreams: Upstreams) -> str:
    """The order's model, else the first for text that the model servers list, "" while none has been seen yet.

    Raises ``BadRequest`` where they are there and list none.
    """
    if order.model or (listed := upstreams.first_model):
        return order.model or listed
    if upstreams.ready()[0]:
        raise BadRequest("No 'model' is named, and the model server lists none for text to choose from.", param="model")
    return ""


def _members(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
