"""Requests to Ollama that only load or unload a model: answered by Ollama, every time."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream, Visit

Json = dict[str, Any]
TYPE = "application/json; charset=utf-8"


def answer(visit: Visit) -> bytes:
    reason = "unload" if visit.json.get("keep_alive") == 0 else "load"
    return json.dumps({"done": True, "done_reason": reason, "number": visit.number}).encode()


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/api/generate", {}),
        ("/api/generate", {"prompt": ""}),
        ("/api/generate", {"prompt": None, "stream": True}),
        ("/api/generate", {"keep_alive": 0}),
        ("/api/generate", {"keep_alive": -1, "stream": False}),
        ("/api/generate", {"PROMPT": "", "keep_alive": "5m"}),
        ("/api/generate", {"prompt": "show this", "_debug_render_only": True}),
        ("/api/chat", {}),
        ("/api/chat", {"messages": []}),
        ("/api/chat", {"messages": None, "keep_alive": 0}),
        ("/api/chat", {"Messages": [], "stream": True}),
        ("/api/chat", {"messages": [{"role": "user", "content": "hi"}], "_debug_render_only": True}),
        ("/api/embed", {"input": []}),
        ("/api/embed", {"keep_alive": 0}),
        ("/api/embeddings", {"prompt": ""}),
    ],
    ids=str,
)
async def test_a_load_is_answered_by_the_server_every_time(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, path: str, more: Json
) -> None:
    word = marker()
    upstream.answer_with(word, answer, TYPE)
    body = {"model": word, **more}
    for count in (1, 2):
        heard = await http.post(path, json=body)
        assert heard.status_code == 200, heard.text
        visits = upstream.visits(word)
        assert len(visits) == count
        assert visits[-1].json == body
        assert heard.content == answer(visits[-1])
        assert heard.headers["content-type"] == TYPE
        assert heard.headers["x-cache"] == "BYPASS"
        assert "detail=load" in heard.headers["cache-status"]


async def test_an_unload_does_not_wait_for_a_load(upstream: ScriptedUpstream, http: httpx.AsyncClient) -> None:
    gate = upstream.gate()
    word = f"{marker()} [script:gate={gate.name}]"
    load = asyncio.create_task(http.post("/api/generate", json={"model": word, "stream": False}))
    await gate.arrived.reached()
    again = asyncio.create_task(http.post("/api/generate", json={"model": word, "stream": False}))
    unload = asyncio.create_task(http.post("/api/generate", json={"model": word, "stream": False, "keep_alive": 0}))
    await upstream.journal.reached(word, 3)
    gate.open()
    for heard in await asyncio.gather(load, again, unload):
        assert heard.headers["x-cache"] == "BYPASS"
