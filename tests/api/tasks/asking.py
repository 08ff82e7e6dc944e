"""Tasks as a client of theirs sees them, over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

from tests.timeouts import WAIT_SECONDS

Json = dict[str, Any]


async def background(http: httpx.AsyncClient, prompt: str, **more: Any) -> str:
    """Starts a task for one prompt. Returns its id."""
    answer = await http.post("/api/completions", json={"prompt": prompt, "background": True, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["task_id"])


async def batch(http: httpx.AsyncClient, prompts: list[str], **more: Any) -> str:
    """Starts a task for several prompts. Returns its id."""
    answer = await http.post("/api/completions/batch", json={"prompts": prompts, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["task_id"])


async def task(http: httpx.AsyncClient, id: str, **query: int) -> Json:
    answer = await http.get(f"/api/tasks/{id}", params=query)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert isinstance(document, dict)
    return document


async def ended(http: httpx.AsyncClient, id: str) -> Json:
    """The task once it is over: its events say when. Raises ``TimeoutError``."""
    async with asyncio.timeout(WAIT_SECONDS):
        async for _ in events(http, id):
            pass
    return await task(http, id)


async def events(http: httpx.AsyncClient, id: str, last: int | None = None) -> AsyncIterator[tuple[int, str, Json]]:
    """The task's events as (number, name, document), as they come, until the server ends the stream."""
    headers = {} if last is None else {"last-event-id": str(last)}
    async with http.stream("GET", f"/api/tasks/{id}/events", headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"] == "text/event-stream"
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
            elif "data" in fields:
                yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                fields = {}
            else:
                # a comment, or the browser's pause
                fields = {}


def message(answer: httpx.Response, status: int) -> str:
    """What an error in OpenAI's envelope says."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["message"])
