"""Embeddings share calls under the same rules as everything else."""

import asyncio

import httpx
import pytest

from tests.conftest import MakeProxy
from tests.faults.outcome import joined
from tests.scripted import Endpoint, marker
from tests.scripted_upstream import ScriptedUpstream

EMBEDDINGS = Endpoint("embeddings", "/v1/embeddings", lambda text: {"input": [text]}, str, str, both=False)


async def test_a_leaders_own_refusal_is_not_its_followers(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name} status=401]"

    async def ask(key: str) -> httpx.Response:
        body = EMBEDDINGS.request(prompt)
        return await http.post(EMBEDDINGS.path, json=body, headers={"authorization": key})

    leader = asyncio.create_task(ask("Bearer bad"))
    await gate.arrived.reached()
    follower = asyncio.create_task(ask("Bearer good"))
    await joined(http, EMBEDDINGS, 2)
    gate.open()
    assert (await leader).status_code == (await follower).status_code == 401
    assert [visit.header("authorization") for visit in upstream.visits(prompt)] == ["Bearer bad", "Bearer good"]


async def test_no_cache_joins_nobody(http: httpx.AsyncClient, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    body = EMBEDDINGS.request(prompt := f"{marker()} [script:gate={gate.name}]")
    leader = asyncio.create_task(http.post(EMBEDDINGS.path, json=body))
    await gate.arrived.reached()
    other = asyncio.create_task(http.post(EMBEDDINGS.path, json=body, headers={"cache-control": "no-cache"}))
    await joined(http, EMBEDDINGS, 2)
    gate.open()
    assert (await leader).headers["x-cache"] == (await other).headers["x-cache"] == "MISS"
    assert len(upstream.visits(prompt)) == 2


async def test_a_stale_vector_is_better_than_an_error(proxy: MakeProxy) -> None:
    with ScriptedUpstream() as upstream:
        own = proxy(upstream.url)
        body = EMBEDDINGS.request(marker())
        async with httpx.AsyncClient(base_url=own.url, timeout=60, trust_env=False) as http:
            first = await http.post(EMBEDDINGS.path, json=body, headers={"x-llmproxy-ttl": "0.01"})
            upstream.down()
            while (answer := await http.post(EMBEDDINGS.path, json=body)).status_code == 200:
                pass
            assert answer.status_code == 502
            saved = await http.post(EMBEDDINGS.path, json=body, headers={"cache-control": "stale-if-error=600"})
            assert saved.headers["x-cache"] == "STALE"
            assert saved.json()["data"] == first.json()["data"]


@pytest.mark.parametrize("count", [1, 2, 10])
async def test_what_was_begun_before_a_flush_is_not_kept(
    http: httpx.AsyncClient, upstream: ScriptedUpstream, count: int
) -> None:
    gate = upstream.gate()
    word = marker()
    body = {"model": "scripted", "input": [f"{word} [script:gate={gate.name}]", *map(str, range(1, count))]}
    asking = asyncio.create_task(http.post(EMBEDDINGS.path, json=body))
    await gate.arrived.reached()
    await http.post("/admin/cache/flush", json={"all": True})
    gate.open()
    assert (await asking).status_code == 200
    again = await http.post(EMBEDDINGS.path, json=body, headers={"cache-control": "only-if-cached"})
    assert again.status_code == 504


async def test_what_was_known_before_a_flush_is_not_put_into_an_answer_after_it(
    http: httpx.AsyncClient, upstream: ScriptedUpstream
) -> None:
    gate = upstream.gate()
    word = marker()
    known, new = f"{word} known", f"{word} [script:gate={gate.name}]"
    body = {"model": "scripted", "input": [known, new]}
    await http.post(EMBEDDINGS.path, json=body | {"input": [known]})
    asking = asyncio.create_task(http.post(EMBEDDINGS.path, json=body))
    await gate.arrived.reached()
    await http.post("/admin/cache/flush", json={"all": True})
    gate.open()
    assert (await asking).status_code == 200
    assert [visit.json["input"] for visit in upstream.visits(word)] == [[known], [new], [known, new]]


async def test_an_answer_never_mixes_the_vectors_of_two_models(proxy: MakeProxy) -> None:
    with ScriptedUpstream("ollama") as upstream:
        gate = upstream.gate()
        word = marker()
        known, new = f"{word} known", f"{word} [script:gate={gate.name}]"
        body = {"model": "scripted", "input": [known, new]}
        async with httpx.AsyncClient(base_url=proxy(upstream.url).url, timeout=60, trust_env=False) as http:
            await http.post(EMBEDDINGS.path, json=body | {"input": [known]})
            asking = asyncio.create_task(http.post(EMBEDDINGS.path, json=body))
            await gate.arrived.reached()
            upstream.weights = "second"
            gate.open()
            assert (await asking).status_code == 200
            assert [visit.json["input"] for visit in upstream.visits(word)] == [[known], [new], [known, new]]


async def test_what_a_server_tells_only_of_a_loaded_model_costs_no_hit(proxy: MakeProxy) -> None:
    with ScriptedUpstream("ollama") as upstream:
        gate = upstream.gate()
        word = f"{marker()} [script:gate={gate.name}]"
        body = {"model": "scripted", "input": [word, "b"]}
        async with httpx.AsyncClient(base_url=proxy(upstream.url).url, timeout=60, trust_env=False) as http:
            asking = asyncio.create_task(http.post(EMBEDDINGS.path, json=body))
            await gate.arrived.reached()
            upstream.pages["/api/ps"] = {"models": [{"name": "scripted", "context_length": 4096}]}
            gate.open()
            assert (await asking).status_code == 200
            assert (await http.post(EMBEDDINGS.path, json=body)).headers["x-cache"] == "HIT"


async def test_an_ollama_prints_its_numbers_in_their_shortest_form(proxy: MakeProxy) -> None:
    with ScriptedUpstream("ollama") as upstream:
        word = marker()
        upstream.answer_with(word, lambda _: b'{"data":[{"embedding":"zczMPQrXIzw=","index":0}]}')
        async with httpx.AsyncClient(base_url=proxy(upstream.url).url, timeout=60, trust_env=False) as http:
            body = {"model": "scripted", "input": word}
            await http.post(EMBEDDINGS.path, json=body | {"encoding_format": "base64"})
            hit = await http.post(EMBEDDINGS.path, json=body)
            assert hit.headers["x-cache"] == "HIT"
            assert hit.text == '{"data":[{"embedding":[0.1,0.01],"index":0}]}'
