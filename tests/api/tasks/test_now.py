"""``POST /api/completions`` that answers at once."""

import json

import httpx
import pytest

from tests.api.tasks.asking import message
from tests.conftest import MakeProxy
from tests.llama import Llama
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Line, Proxy

PATH = "/api/completions"


async def test_the_answer_and_its_repeat(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    prompt = marker()
    first = await http.post(PATH, json={"prompt": prompt})
    again = await http.post(PATH, json={"prompt": prompt})
    fresh, cached = first.json(), again.json()
    assert set(fresh) == {"response", "model", "cached", "processing_time", "request_id", "usage"}
    assert fresh["response"].startswith("answer-")
    assert fresh["model"] == "scripted"
    assert fresh["usage"]["total_tokens"] > fresh["usage"]["completion_tokens"] > 0
    assert fresh["processing_time"] > 0
    assert (fresh["cached"], cached["cached"]) == (False, True)
    for name in ("response", "model", "usage"):
        assert cached[name] == fresh[name]
    assert (first.headers["x-cache"], again.headers["x-cache"]) == ("MISS", "HIT")
    assert again.headers["cache-status"].startswith("llmproxy; hit")
    assert int(again.headers["age"]) >= 0
    assert first.headers["x-request-id"] == fresh["request_id"] != cached["request_id"]
    assert first.headers["content-type"] == "application/json"
    assert len(upstream.visits(prompt)) == 1


async def test_it_is_one_cache_with_chat_completions(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    prompt = marker()
    mine = await http.post(PATH, json={"prompt": prompt, "temperature": 0, "max_tokens": 7})
    (visit,) = upstream.visits(prompt)
    assert visit.target == b"/v1/chat/completions"
    asked = visit.json
    system, user = asked["messages"]
    assert (system["role"], user) == ("system", {"role": "user", "content": prompt})
    assert (asked["temperature"], asked["max_tokens"], asked["model"]) == (0, 7, "scripted")
    chat = await http.post("/v1/chat/completions", json=asked)
    assert chat.headers["x-cache"] == "HIT"
    assert chat.json()["choices"][0]["message"]["content"] == mine.json()["response"]


async def test_instructions_come_from_the_settings(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    instructions = {"pirate": "Speak like a pirate.", "bare": ""}
    own = proxy(upstream.url, instructions=json.dumps(instructions))
    prompt = marker()
    async with httpx.AsyncClient(base_url=own.url, trust_env=False) as client:
        for kind in ("pirate", "bare", "concise"):
            answer = await client.post(PATH, json={"prompt": prompt, "instruction_type": kind})
            assert answer.status_code == 200
        unknown = await client.post(PATH, json={"prompt": prompt, "instruction_type": "parrot"})
    pirate, bare, concise = (visit.json["messages"] for visit in upstream.visits(prompt))
    assert pirate[0] == {"role": "system", "content": "Speak like a pirate."}
    assert bare == [{"role": "user", "content": prompt}]
    assert concise[0]["role"] == "system"
    assert "bare, code, concise, default, pirate" in message(unknown, 400)


async def test_user_and_session_are_in_the_history(http: httpx.AsyncClient) -> None:
    answer = await http.post(PATH, json={"prompt": marker(), "user_id": "ann", "session_id": "s-1"})
    rows = (await http.get("/api/history", params={"limit": 50})).json()["data"]
    (row,) = [row for row in rows if row["request_id"] == answer.json()["request_id"]]
    assert (row["user"], row["session"]) == ("ann", "s-1")


async def test_a_caller_who_leaves_ends_the_generation(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own, gate, prompt = proxy(upstream.url, disconnect_grace=0), upstream.gate(), marker()
    body = json.dumps({"prompt": f"{prompt} [script:gate={gate.name}]"}).encode()
    with Line(own.port) as line:
        line.request("POST", PATH, [("content-type", "application/json")], body)
        await gate.arrived.reached()
    (visit,) = upstream.visits(prompt)
    await visit.left.reached()


@pytest.mark.parametrize(
    ("script", "status"), [("status=400", 400), ("status=500", 500), ("error-member", 502), ("drop", 502)]
)
async def test_what_the_model_server_refuses_is_said(http: httpx.AsyncClient, script: str, status: int) -> None:
    answer = await http.post(PATH, json={"prompt": f"{marker()} [script:{script}]"})
    assert message(answer, status)


async def test_the_vocabulary_of_the_cache_works(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    prompt = marker()
    for _ in range(2):
        answer = await http.post(PATH, json={"prompt": prompt}, headers={"cache-control": "no-store"})
        assert (answer.json()["cached"], answer.headers["x-cache"]) == (False, "BYPASS")
    assert len(upstream.visits(prompt)) == 2
    answer = await http.post(PATH, json={"prompt": marker()}, headers={"cache-control": "only-if-cached"})
    assert message(answer, 504)


async def test_a_real_model_answers(llama_front: Proxy, llama: Llama) -> None:
    async with httpx.AsyncClient(base_url=llama_front.url, trust_env=False, timeout=60) as client:
        body = {"prompt": "Say hello.", "max_tokens": 8, "temperature": 0}
        first, again = [(await client.post(PATH, json=body)).json() for _ in range(2)]
    assert first["response"]
    assert first["usage"]["completion_tokens"] == 8
    assert (first["cached"], again["cached"]) == (False, True)
    assert again["response"] == first["response"]


def _lists(upstream: ScriptedUpstream, capable: dict[str, list[str] | None]) -> None:
    tags = [{"name": name, "digest": name, "capabilities": can} for name, can in capable.items()]
    upstream.pages["/api/tags"] = {"models": tags}
    upstream.pages["/v1/models"] = {"data": [{"id": name} for name in capable]}


async def test_no_model_that_only_embeds_is_picked(proxy: MakeProxy) -> None:
    with ScriptedUpstream("ollama") as upstream:
        _lists(upstream, {"bge:latest": ["embedding"], "old-embed:latest": None, "chat:latest": ["completion"]})
        # one name in two spellings
        upstream.pages["/v1/models"] = {"data": [{"id": name} for name in ("BGE", "old-embed:latest", "chat:latest")]}
        own = proxy(upstream.url)
        async with httpx.AsyncClient(base_url=own.url, trust_env=False) as client:
            answer = await client.post(PATH, json={"prompt": marker()})
            assert answer.json()["model"] == "chat:latest"
            listed = await client.get("/v1/models")
            assert listed.json()["data"][0]["id"] == "BGE"
            assert listed.headers["x-llmproxy-default-model"] == "chat%3Alatest"


async def test_where_every_model_only_embeds_one_must_be_named(proxy: MakeProxy) -> None:
    with ScriptedUpstream("ollama") as upstream:
        _lists(upstream, {"bge:latest": ["embedding"], "nomic-embed-text:latest": None})
        own = proxy(upstream.url)
        async with httpx.AsyncClient(base_url=own.url, trust_env=False) as client:
            answer = await client.post(PATH, json={"prompt": marker()})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
            named = await client.post(PATH, json={"prompt": marker(), "model": "bge:latest"})
            assert named.status_code == 200
