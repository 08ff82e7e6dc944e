"""What the tests of Responses ask, and how they wait for what comes of it."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import openai
from openai.types.responses import Response

from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS


def client_of(proxy: Proxy, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{proxy.url}/v1", api_key=key, max_retries=0, timeout=WAIT_SECONDS)


def over(client: openai.OpenAI, id: str) -> Response:
    """The Response once it is neither queued nor in progress."""
    return until(client, id, lambda response: response.status not in ("queued", "in_progress"))


def until(client: openai.OpenAI, id: str, holds: Callable[[Response], bool]) -> Response:
    """The Response as soon as ``holds`` is true of it. Raises ``TimeoutError`` if it does not come to that."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds(response := client.responses.retrieve(id)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{id} is still {response.status}")
        time.sleep(0.02)
    return response


def numbers(events: Iterable[Any]) -> list[int]:
    return [event.sequence_number for event in events]


def said(events: Iterable[Any]) -> str:
    """The text that a stream's events amount to."""
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")
