"""Every cached endpoint over the scripted upstream: what is kept, for whom, for how long, and in which rendering."""

from typing import Any

import httpx
import pytest

from tests.conftest import MakeProxy
from tests.scripted import CHAT, MESSAGES, RESPONSES, STREAMING, Endpoint, Json, marker, named
from tests.scripted_upstream import ScriptedUpstream
from tests.scripted_upstream.answers import vector


async def post(http: httpx.AsyncClient, path: str, body: Json, **headers: str) -> httpx.Response:
    named_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return await http.post(path, json=body, headers=named_headers)


def client(url: str, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, headers=headers)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
async def test_a_hit_is_the_same_byte_for_byte(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, stream: bool
) -> None:
    prompt = marker()
    body = endpoint.request(prompt, stream=stream)
    miss, *hits = [await post(http, endpoint.path, body) for _ in range(4)]
    assert miss.headers["x-cache"] == "MISS"
    for hit in hits:
        assert hit.headers["x-cache"] == "HIT"
        assert hit.content == miss.content
        assert hit.headers["content-type"] == miss.headers["content-type"]
        assert "age" in hit.headers
    assert len({answer.headers["x-request-id"] for answer in (miss, *hits)}) == 4
    assert len(upstream.visits(prompt)) == 1


@pytest.mark.parametrize("stream_first", [True, False], ids=["stream first", "plain first"])
@pytest.mark.parametrize("endpoint", [e for e in STREAMING if e.both], ids=named)
async def test_either_form_is_made_from_the_other(
    upstream: ScriptedUpstream, http: httpx.AsyncClient, endpoint: Endpoint, stream_first: bool
) -> None:
    prompt = marker()
    first = await post(http, endpoint.path, endpoint.request(prompt, stream=stream_first))
    second = await post(http, endpoint.path, endpoint.request(prompt, stream=not stream_first))
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("MISS", "HIT")
    stream, plain = (first, second) if stream_first else (second, first)
    assert endpoint.streamed_text(stream.content) == endpoint.text(plain.json())
    assert len(upstream.visits(prompt)) == 1


@pytest.mark.parametrize("endpoint", [e for e in STREAMING if not e.both], ids=named)
async def test_forms_that_cannot_be_made_from_each_other_do_not_mix(
    http: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    prompt = marker()
    for stream in (True, False, True, False):
        answer = await post(http, endpoint.path, endpoint.request(prompt, stream=stream))
        text = endpoint.streamed_text(answer.content) if stream else endpoint.text(answer.json())
        assert text.startswith("answer-")


async def test_ollama_streams_when_nothing_is_said(http: httpx.AsyncClient) -> None:
    body = {"model": "scripted", "prompt": marker()}
    live, replayed = [await post(http, "/api/generate", body) for _ in range(2)]
    assert (live.headers["x-cache"], replayed.headers["x-cache"]) == ("MISS", "HIT")
    assert live.headers["content-type"].startswith("application/x-ndjson")
    assert len(live.content.splitlines()) > 2
    assert replayed.content == live.content


async def test_rerank(upstream: ScriptedUpstream, http: httpx.AsyncClient) -> None:
    body = {"model": "scripted", "query": marker(), "documents": ["a", "b"], "top_n": 2}
    miss, hit = [await post(http, "/v1/rerank", body) for _ in range(2)]
    assert (miss.headers["x-cache"], hit.headers["x-cache"]) == ("MISS", "HIT")
    assert hit.content == miss.content
    assert [result["index"] for result in hit.json()["results"]] == [0, 1]


async def test_sixty_known_inputs_of_a_hundred_send_forty(upstream: ScriptedUpstream, http: httpx.AsyncClient) -> None:
    word = marker()
    inputs = [f"{word} {number}" for number in range(100)]
    known = inputs[::5] + inputs[1::5] + inputs[2::5]
    body = {"model": "scripted", "encoding_format": "float"}
    await post(http, "/v1/embeddings", body | {"input": known})
    mixed = await post(http, "/v1/embeddings", body | {"input": inputs})
    _, visit = upstream.visits(word)
    assert visit.json["input"] == [text for text in inputs if text not in known]
    answer = mixed.json()
    assert mixed.headers["x-cache"] == "MISS"
    assert [item["index"] for item in answer["data"]] == list(range(100))
    assert [item["embedding"] for item in answer["data"]] == [vector(text) for text in inputs]
    assert answer["usage"] == {"prompt_tokens": 200, "total_tokens": 200}
    again = await post(http, "/v1/embeddings", body | {"input": inputs[::-1] + inputs[:1]})
    assert again.headers["x-cache"] == "HIT"
    assert [item["embedding"] for item in again.json()["data"]] == [vector(text) for text in [*inputs[::-1], inputs[0]]]
    assert len(upstream.visits(word)) == 2


async def test_ollama_embed(upstream: ScriptedUpstream, http: httpx.AsyncClient) -> None:
    body = {"model": "scripted", "input": [marker(), "two"]}
    miss, hit = [await post(http, "/api/embed", body) for _ in range(2)]
    assert (miss.headers["x-cache"], hit.headers["x-cache"]) == ("MISS", "HIT")
    assert hit.json()["embeddings"] == [vector(text) for text in body["input"]]


async def test_what_must_happen_every_time_is_not_cached(upstream: ScriptedUpstream, http: httpx.AsyncClient) -> None:
    prompt = marker()
    for count in (1, 2):
        answer = await post(http, CHAT.path, CHAT.request(prompt, t_max_predict_ms=5))
        assert answer.headers["x-cache"] == "BYPASS"
        assert "detail=side-effect" in answer.headers["cache-status"]
        assert len(upstream.visits(prompt)) == count


async def test_the_order_of_top_level_keys_does_not_matter_and_nested_order_does(http: httpx.AsyncClient) -> None:
    properties = {"a": {"type": "string"}, "b": {"type": "string"}}
    body = CHAT.request(marker(), temperature=0, tools=[{"type": "function", "function": {"parameters": properties}}])
    assert (await post(http, CHAT.path, body)).headers["x-cache"] == "MISS"
    turned = dict(reversed(body.items()))
    assert (await post(http, CHAT.path, turned)).headers["x-cache"] == "HIT"
    nested: list[dict[str, Any]] = [
        {"type": "function", "function": {"parameters": dict(reversed(properties.items()))}}
    ]
    assert (await post(http, CHAT.path, body | {"tools": nested})).headers["x-cache"] == "MISS"


async def test_a_query_is_part_of_the_request(http: httpx.AsyncClient) -> None:
    body = CHAT.request(marker())
    for query in ("", "?beta=true", "?beta=false"):
        assert (await post(http, CHAT.path + query, body)).headers["x-cache"] == "MISS"
        assert (await post(http, CHAT.path + query, body)).headers["x-cache"] == "HIT"


async def test_what_is_too_large_is_delivered_and_not_kept(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, cache_entry_bytes=100_000)
    async with client(own.url) as http:
        for endpoint in (CHAT, RESPONSES, MESSAGES):
            for stream in (False, True):
                prompt = f"{marker()} [script:size=300000]"
                for count in (1, 2):
                    answer = await post(http, endpoint.path, endpoint.request(prompt, stream=stream))
                    text = endpoint.streamed_text(answer.content) if stream else endpoint.text(answer.json())
                    assert len(text) > 290_000
                    assert len(upstream.visits(prompt)) == count


async def test_what_may_be_kept_says_nothing_of_what_may_be_answered(proxy: MakeProxy) -> None:
    """A plain answer that is put together from a stream, and embeddings, need the whole of it first."""
    with ScriptedUpstream("llamacpp") as llama:
        own = proxy(llama.url, cache_entry_bytes=1000, idle_timeout=2)
        async with client(own.url) as http:
            answer = await post(http, CHAT.path, CHAT.request(f"{marker()} [script:size=30000]"))
            assert len(CHAT.text(answer.json())) > 29_000
            texts = [f"{marker()}" for _ in range(20)]
            answer = await post(http, "/v1/embeddings", {"model": "scripted", "input": texts})
            assert len(answer.json()["data"]) == 20


async def test_an_entry_past_its_lifetime(proxy: MakeProxy) -> None:
    with ScriptedUpstream() as upstream:
        own = proxy(upstream.url)
        body = CHAT.request(marker())
        async with client(own.url) as http:
            first = await post(http, CHAT.path, body, x_llmproxy_ttl="1")
            while (await post(http, CHAT.path, body, cache_control="only-if-cached")).status_code != 504:
                pass
            stale = await post(http, CHAT.path, body, cache_control="max-stale=3600")
            assert stale.headers["x-cache"] == "STALE"
            assert stale.content == first.content
            assert (await post(http, CHAT.path, body, cache_control="only-if-cached, max-stale")).status_code == 200
            upstream.down()
            assert (await post(http, CHAT.path, body)).status_code == 502
            saved = await post(http, CHAT.path, body, cache_control="stale-if-error=3600")
            assert saved.headers["x-cache"] == "STALE"
            assert saved.content == first.content


async def test_policies(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    requests: list[dict[str, Any]] = [{"temperature": 1}, {"temperature": 0}, {"temperature": 1, "seed": 1}]
    expected = {"deterministic": ["BYPASS", "HIT", "HIT"], "opt-in": ["BYPASS"] * 3, "off": ["BYPASS"] * 3}
    for policy, outcomes in expected.items():
        own = proxy(upstream.url, cache_policy=policy)
        async with client(own.url) as http:
            seen = []
            for more in requests:
                body = CHAT.request(marker(), **more)
                await post(http, CHAT.path, body)
                seen.append((await post(http, CHAT.path, body)).headers["x-cache"])
            assert seen == outcomes, policy


async def test_callers_with_keys_do_not_see_each_other(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, api_keys="ann:key-a, bob:key-b")
    prompt = marker()
    body = CHAT.request(prompt)
    async with client(own.url) as http:
        anonymous = await post(http, CHAT.path, body)
        assert anonymous.status_code == 401
        assert anonymous.json()["error"]["code"] == "invalid_api_key"
        assert (await post(http, CHAT.path, body, authorization="Bearer wrong")).status_code == 401
        seen = [
            (await post(http, CHAT.path, body, authorization=f"Bearer {key}")).headers["x-cache"]
            for key in ("key-a", "key-b", "key-a", "key-b", "key-a", "key-b")
        ]
        assert (await post(http, CHAT.path, body)).status_code == 401
    assert seen == ["MISS", "MISS", "HIT", "HIT", "HIT", "HIT"]
    assert all(visit.header("authorization") is None for visit in upstream.visits(prompt))
    assert "key-a" not in own.log


async def test_every_exchange_leaves_a_row_and_a_count(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url)
    body = CHAT.request(marker(), user="ann")
    async with client(own.url) as http:
        for number in range(5):
            await post(http, CHAT.path, body, x_request_id=f"row-{number}", x_llmproxy_session="s1")
        await post(http, CHAT.path, {"messages": 1} | {"model": "[script:status=400]"}, x_request_id="row-5")
        rows: list[Json] = []
        while len(rows) < 6:
            rows = (await http.get("/api/history?limit=50")).json()["data"]
        page = (await http.get("/metrics")).text
        stats = (await http.get("/api/cache/stats")).json()
    assert [row["request_id"] for row in rows] == [f"row-{number}" for number in reversed(range(6))]
    assert [row["cache"] for row in rows[1:]] == ["hit"] * 4 + ["miss"]
    assert {row["user"] for row in rows[1:]} == {"ann"}
    assert {row["session"] for row in rows} == {"s1", ""}
    assert rows[0]["status"] == 400
    assert 'cache="hit"' in page
    assert stats
