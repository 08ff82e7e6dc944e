"""Embeddings share calls under the same rules as everything else."""

import asyncio

import httpx

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
        async with httpx.AsyncClient(base_url=own.url, timeout=30, trust_env=False) as http:
            first = await http.post(EMBEDDINGS.path, json=body, headers={"x-llmproxy-ttl": "0.01"})
            upstream.down()
            while (answer := await http.post(EMBEDDINGS.path, json=body)).status_code == 200:
                pass
            assert answer.status_code == 502
            saved = await http.post(EMBEDDINGS.path, json=body, headers={"cache-control": "stale-if-error=600"})
            assert saved.headers["x-cache"] == "STALE"
            assert saved.json()["data"] == first.json()["data"]
