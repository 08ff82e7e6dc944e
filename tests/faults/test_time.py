"""Upstreams that are slow, silent or away: the four timeouts, and pings for those who wait."""

import asyncio

import httpx
import pytest

from tests.conftest import MakeProxy
from tests.faults.outcome import ask, failed, refused
from tests.scripted import CHAT, OLLAMA_CHAT, RESPONSES, STREAMING, Endpoint, marker, named
from tests.scripted_upstream import ScriptedUpstream
from tests.timeouts import WAIT_SECONDS


def client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=60, trust_env=False)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_no_first_byte_is_a_504(upstream: ScriptedUpstream, proxy: MakeProxy, stream: bool) -> None:
    own = proxy(upstream.url, first_byte_timeout=0.3)
    async with client(own.url) as http:
        for endpoint in (CHAT, RESPONSES):
            prompt = f"{marker()} [script:silent]"
            outcome = await ask(http, endpoint, endpoint.request(prompt, stream=stream))
            assert outcome.status == 504
            assert refused(outcome)["code"] == "upstream_timeout"
            await upstream.visits(prompt)[0].left.reached()


async def test_silence_inside_a_stream_is_an_error(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, idle_timeout=0.3)
    async with client(own.url) as http:
        for endpoint in STREAMING:
            prompt = f"{marker()} [script:silence after=4]"
            outcome = await ask(http, endpoint, endpoint.request(prompt, stream=True))
            assert failed(endpoint, outcome)
            await upstream.visits(prompt)[0].left.reached()


async def test_the_total_time_ends_a_call(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, total_timeout=0.4)
    async with client(own.url) as http:
        outcome = await ask(http, CHAT, CHAT.request(f"{marker()} [script:silence after=4]", stream=True))
        assert failed(CHAT, outcome)


async def test_an_upstream_that_is_away_is_a_502_and_may_come_back(proxy: MakeProxy) -> None:
    with ScriptedUpstream() as upstream:
        own = proxy(upstream.url)
        upstream.down()
        async with client(own.url) as http:
            prompt = marker()
            for stream in (False, True):
                outcome = await ask(http, CHAT, CHAT.request(prompt, stream=stream))
                assert outcome.status == 502
                assert refused(outcome)["code"] == "upstream_unreachable"
            assert (await http.get("/v1/uploads")).status_code == 502
            assert (await http.get("/health")).status_code == 200
            assert (await http.get("/ready")).status_code == 503
            upstream.up()
            async with asyncio.timeout(WAIT_SECONDS):
                while (outcome := await ask(http, CHAT, CHAT.request(prompt))).status != 200:
                    assert outcome.status == 502
            assert outcome.cache == "MISS"


async def test_a_pooled_connection_that_died_is_replaced(proxy: MakeProxy) -> None:
    with ScriptedUpstream() as upstream:
        own = proxy(upstream.url)
        async with client(own.url) as http:
            for _ in range(3):
                outcome = await ask(http, CHAT, CHAT.request(marker()))
                assert outcome.status == 200
                upstream.down()
                upstream.up()


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES], ids=named)
async def test_a_waiting_stream_gets_pings_once_its_head_is_out(
    upstream: ScriptedUpstream, proxy: MakeProxy, endpoint: Endpoint
) -> None:
    own = proxy(upstream.url, ping_seconds=0.1, head_seconds=0.1)
    gate = upstream.gate()
    request = endpoint.request(f"{marker()} [script:gate={gate.name}]", stream=True)
    async with client(own.url) as http, http.stream("POST", endpoint.path, json=request) as response:
        assert response.status_code == 200
        pieces = response.aiter_bytes()
        body = await anext(pieces)
        assert body.startswith(b":")
        gate.open()
        body += b"".join([piece async for piece in pieces])
    assert endpoint.streamed_text(body).startswith("answer-")


async def test_pings_do_not_enter_what_is_kept(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, ping_seconds=0.1, head_seconds=0.1)
    gate = upstream.gate()
    request = CHAT.request(f"{marker()} [script:gate={gate.name} gate-after=4]", stream=True)
    async with client(own.url) as http:
        async with http.stream("POST", CHAT.path, json=request) as response:
            pieces = response.aiter_bytes()
            body = b""
            while b"\n:" not in body:
                body += await anext(pieces)
            gate.open()
            body += b"".join([piece async for piece in pieces])
        hit = await ask(http, CHAT, request)
    assert hit.cache == "HIT"
    assert b"\n:" not in hit.body
    assert CHAT.streamed_text(hit.body) == CHAT.streamed_text(body)


@pytest.mark.parametrize("status", [400, 503])
async def test_the_status_of_an_upstream_that_answers_in_time_is_kept(
    upstream: ScriptedUpstream, proxy: MakeProxy, status: int
) -> None:
    """Pings must not end the chance of a proper status too early: the head waits for ``head_seconds``."""
    own = proxy(upstream.url, ping_seconds=0.05)
    gate = upstream.gate()
    request = CHAT.request(f"{marker()} [script:gate={gate.name} status={status}]", stream=True)
    async with client(own.url) as http:
        caller = asyncio.create_task(ask(http, CHAT, request))
        await gate.arrived.reached()
        gate.open()
        assert (await caller).status == status


async def test_an_error_after_the_head_is_told_inside_the_stream(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, ping_seconds=0.1, head_seconds=0.1)
    for endpoint in (CHAT, RESPONSES, OLLAMA_CHAT):
        gate = upstream.gate()
        request = endpoint.request(f"{marker()} [script:gate={gate.name} status=400]", stream=True)
        async with client(own.url) as http:
            caller = asyncio.create_task(ask(http, endpoint, request))
            await gate.arrived.reached()
            async with http.stream("POST", endpoint.path, json=request) as response:
                gate.open()
                await response.aread()
            assert failed(endpoint, await caller)
