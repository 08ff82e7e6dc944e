"""Batches through the official client."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
from openai.types import Batch

from tests.api.batches.made import CHAT, Json, jsonl, read
from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS

ENDED = frozenset({"completed", "failed", "expired", "cancelled"})


def client_of(proxy: Proxy, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{proxy.url}/v1", api_key=key, max_retries=0)


def created(client: openai.OpenAI, *lines: Json | str, endpoint: str = CHAT, **more: Any) -> Batch:
    """A batch of these lines, as it is when it is accepted."""
    file = client.files.create(file=("in.jsonl", jsonl(*lines)), purpose="batch")
    wanted: Any = endpoint
    return client.batches.create(input_file_id=file.id, endpoint=wanted, completion_window="24h", **more)


def until(client: openai.OpenAI, id: str, holds: Callable[[Batch], bool]) -> Batch:
    """The batch as soon as ``holds`` is true of it. Raises ``TimeoutError`` if it does not come to that."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        batch = client.batches.retrieve(id)
        if holds(batch):
            return batch
        time.sleep(0.02)
    raise TimeoutError(f"batch {id} is {client.batches.retrieve(id)}")


def ended(client: openai.OpenAI, id: str) -> Batch:
    return until(client, id, lambda batch: batch.status in ENDED)


def output(client: openai.OpenAI, batch: Batch) -> dict[str, Json]:
    """The lines of the output file by their ``custom_id``; {} where there is none."""
    return read(client.files.content(batch.output_file_id).content) if batch.output_file_id else {}


def errors(client: openai.OpenAI, batch: Batch) -> dict[str, Json]:
    """The same of the error file."""
    return read(client.files.content(batch.error_file_id).content) if batch.error_file_id else {}


def plain(proxy: Proxy, key: str = "none") -> httpx.Client:
    """A client that adds nothing of its own."""
    return httpx.Client(base_url=proxy.url, timeout=60, trust_env=False, headers={"authorization": f"Bearer {key}"})
