"""A model's name is not its weights: whose answer is kept under what, and when a hit may rest on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.conftest import MakeProxy
from tests.faults.outcome import ask
from tests.scripted import CHAT, OLLAMA_CHAT, OLLAMA_GENERATE, RESPONSES, Endpoint, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS

#: what is known stands for as long as the test runs, if nothing makes it doubtful
FOREVER = 1000


@asynccontextmanager
async def client(own: Proxy) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=own.url, timeout=60, trust_env=False) as http:
        yield http


async def asked(http: httpx.AsyncClient, endpoint: Endpoint, prompt: str, **more: Any) -> str:
    """How the cache took part in the answer."""
    return (await ask(http, endpoint, endpoint.request(prompt, **more))).cache


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("POST", "/api/pull"),
        ("POST", "/api/blobs/sha256:00"),
        ("DELETE", "/api/delete"),
    ],
)
async def test_what_passes_through_and_changes_a_model_is_noticed_at_once(
    proxy: MakeProxy, method: str, path: str
) -> None:
    with ScriptedUpstream("ollama") as upstream:
        async with client(proxy(upstream.url, identity_seconds=FOREVER)) as http:
            prompt = marker()
            assert await asked(http, OLLAMA_CHAT, prompt) == "MISS"
            assert [await asked(http, OLLAMA_CHAT, prompt) for _ in range(3)] == ["HIT"] * 3
            upstream.weights = "second"
            assert (await http.request(method, path, json={"model": "scripted"})).status_code == 200
            assert await asked(http, OLLAMA_CHAT, prompt) == "MISS"
            upstream.weights = "first"
            assert (await http.request(method, path, json={"model": "scripted"})).status_code == 200
            assert await asked(http, OLLAMA_CHAT, prompt) == "HIT"


@pytest.mark.parametrize("path", ["/lora-adapters", "/props"])
async def test_the_scales_of_adapters_are_part_of_a_model(proxy: MakeProxy, path: str) -> None:
    def scaled(scale: float) -> list[dict[str, object]]:
        return [{"id": 0, "path": "/a.gguf", "scale": scale}]

    with ScriptedUpstream("llamacpp") as upstream:
        upstream.pages["/lora-adapters"] = scaled(1.0)
        async with client(proxy(upstream.url, identity_seconds=FOREVER)) as http:
            prompt = marker()
            assert [await asked(http, CHAT, prompt) for _ in range(2)] == ["MISS", "HIT"]
            upstream.pages["/lora-adapters"] = scaled(0.0)
            await http.post(path, json=[{"id": 0, "scale": 0.0}])
            assert await asked(http, CHAT, prompt) == "MISS"
            upstream.pages["/lora-adapters"] = scaled(1.0)
            await http.post(path, json=[{"id": 0, "scale": 1.0}])
            assert await asked(http, CHAT, prompt) == "HIT"


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (CHAT.path, {"stream": False}),
        (CHAT.path, {"stream": True}),
        (RESPONSES.path, {"stream": True}),
        (OLLAMA_GENERATE.path, {"stream": False}),
        (OLLAMA_GENERATE.path, {"stream": True}),
        ("/v1/embeddings", {}),
        ("/v1/rerank", {"documents": ["a", "b"]}),
    ],
)
async def test_what_a_model_made_anew_answers_is_not_kept_under_the_one_before(
    proxy: MakeProxy, path: str, more: dict[str, object]
) -> None:
    def about(word: str) -> dict[str, object]:
        said = {"messages": [{"role": "user", "content": word}], "prompt": word, "input": word, "query": word}
        return {"model": "scripted", "store": False, **said, **more}

    with ScriptedUpstream("ollama") as upstream:
        async with client(proxy(upstream.url, identity_seconds=FOREVER)) as http:
            await http.post(path, json=about(marker()))
            upstream.weights = "second"
            body, tags = about(marker()), len(upstream.visits("/api/tags"))
            assert (await http.post(path, json=body)).headers["x-cache"] == "MISS"
            await upstream.journal.reached("/api/tags", tags + 1)
            upstream.weights = "first"
            await http.get("/v1/models")
            assert (await http.post(path, json=body)).headers["x-cache"] == "MISS"


async def test_a_context_length_that_changes_is_another_model_and_loading_one_is_not(proxy: MakeProxy) -> None:
    def loaded(context: int) -> dict[str, object]:
        return {"models": [{"name": "scripted", "context_length": context}]}

    with ScriptedUpstream("ollama") as upstream:
        upstream.pages["/api/ps"] = {"models": []}
        gate = upstream.gate()
        async with client(proxy(upstream.url, identity_seconds=FOREVER)) as http:
            prompt = f"{marker()} [script:gate={gate.name}]"
            first = asyncio.create_task(ask(http, CHAT, CHAT.request(prompt)))
            await gate.arrived.reached()
            upstream.pages["/api/ps"] = loaded(4096)
            gate.open()
            assert (await first).cache == "MISS"
            assert await asked(http, CHAT, prompt) == "HIT", "it was loaded for this very answer"
            upstream.pages["/api/ps"] = {"models": []}
            await http.get("/v1/models")
            assert await asked(http, CHAT, prompt) == "HIT", "it is unloaded again"
            upstream.pages["/api/ps"] = loaded(2048)
            await http.get("/v1/models")
            assert await asked(http, CHAT, prompt) == "MISS"


async def test_every_spelling_of_a_name_notices_a_new_model(proxy: MakeProxy) -> None:
    spellings = ("SCRIPTED", " scripted ", "library/scripted", "https://registry.ollama.ai/library/Scripted:LATEST")
    with ScriptedUpstream("ollama") as upstream:
        async with client(proxy(upstream.url, identity_seconds=FOREVER)) as http:
            prompt = marker()
            for model in spellings:
                assert [await asked(http, CHAT, prompt, model=model) for _ in range(2)] == ["MISS", "HIT"]
            upstream.weights = "second"
            await http.get("/v1/models")
            for model in spellings:
                assert await asked(http, CHAT, prompt, model=model) == "MISS"


async def test_a_name_that_ollama_does_not_have_has_no_place_in_the_cache(proxy: MakeProxy) -> None:
    with ScriptedUpstream("ollama") as upstream:
        async with client(proxy(upstream.url)) as http:
            for model in ("other", ""):
                for _ in range(2):
                    outcome = await ask(http, CHAT, CHAT.request(marker(), model=model))
                    assert outcome.cache == "BYPASS"
                    assert "detail=identity-unknown" in outcome.headers["cache-status"]


@pytest.mark.parametrize(
    ("path", "body", "form"),
    [
        ("/v1/chat/completions", {"Model": "scripted", "messages": []}, "application/json"),
        ("/v1/chat/completions", {"model": "scripted", "Messages": [], "Stream": True}, "text/event-stream"),
        ("/api/chat", {"MODEL": "scripted", "Messages": [{"role": "user", "content": "x"}]}, "application/x-ndjson"),
    ],
)
async def test_members_in_another_case_are_the_servers_to_read(
    proxy: MakeProxy, path: str, body: dict[str, object], form: str
) -> None:
    with ScriptedUpstream("ollama") as upstream:
        async with client(proxy(upstream.url)) as http:
            word = marker()
            # the scripted server reads the names of members as they are written: it is told what a real one takes
            sent = body | {name.lower(): value for name, value in body.items()} | {"user": word}
            for _ in range(2):
                answer = await http.post(path, json=sent)
                assert answer.headers["x-cache"] == "BYPASS"
                assert "detail=field-case" in answer.headers["cache-status"]
                assert answer.headers["content-type"].startswith(form)
            assert len(upstream.visits(word)) == 2
            assert all(body.items() <= visit.json.items() for visit in upstream.visits(word))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_server_that_does_not_say_what_it_is_delays_no_answer(proxy: MakeProxy, stream: bool) -> None:
    with ScriptedUpstream("ollama") as upstream:
        async with client(proxy(upstream.url, identity_seconds=FOREVER)) as http:
            prompt = marker()
            gate = upstream.hesitation = upstream.gate()
            outcome = await ask(http, CHAT, CHAT.request(prompt, stream=stream))
            assert (outcome.status, outcome.cache) == (200, "MISS"), "all of it, while the question hangs"
            gate.open()
            upstream.hesitation = None
            async with asyncio.timeout(WAIT_SECONDS):
                while (await ask(http, CHAT, CHAT.request(prompt, stream=stream))).cache != "HIT":
                    pass


async def test_a_server_with_a_key_is_known_by_that_of_the_caller(proxy: MakeProxy) -> None:
    with ScriptedUpstream("llamacpp", lacks=frozenset({"/v1/models/scripted"})) as upstream:
        upstream.key = "right"
        own = proxy(upstream.url, identity_seconds=FOREVER)
        right, wrong = {"authorization": "Bearer right"}, {"authorization": "Bearer wrong"}
        async with client(own) as http:
            prompt = CHAT.request(marker())
            assert [(await ask(http, CHAT, prompt, right)).cache for _ in range(2)] == ["MISS", "HIT"]
            assert [model["id"] for model in (await http.get("/v1/models", headers=right)).json()["data"]] == [
                "scripted"
            ]
            assert (await http.get("/v1/models/scripted", headers=right)).json()["id"] == "scripted"
            for path in ("/v1/models", "/v1/models/scripted"):
                assert (await http.get(path, headers=wrong)).status_code == 401
            upstream.weights = "second"
            await http.get("/v1/models", headers=right)
            assert (await ask(http, CHAT, prompt, right)).cache == "MISS"
        assert "right" not in own.log
        assert "wrong" not in own.log
