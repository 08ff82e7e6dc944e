"""Clients that leave: the upstream's work ends after the grace time, or goes on where that is wanted."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.conftest import MakeProxy
from tests.faults.outcome import arrived, ask, joined
from tests.scripted import CHAT, OLLAMA_CHAT, RESPONSES, Endpoint, marker, named
from tests.scripted_upstream import ScriptedUpstream


def client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=60, trust_env=False)


async def leave(caller: "asyncio.Task[Any]") -> None:
    caller.cancel()
    await asyncio.wait([caller])


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, OLLAMA_CHAT], ids=named)
async def test_the_upstream_call_ends_after_its_last_listener(
    upstream: ScriptedUpstream, proxy: MakeProxy, endpoint: Endpoint, stream: bool
) -> None:
    own = proxy(upstream.url, disconnect_grace=0.1)
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name}]"
    async with client(own.url) as http:
        caller = asyncio.create_task(ask(http, endpoint, endpoint.request(prompt, stream=stream)))
        await gate.arrived.reached()
        await leave(caller)
        visit = upstream.visits(prompt)[0]
        await visit.left.reached()
        assert not visit.answered.happened


async def test_the_upstream_call_ends_in_the_middle_of_a_stream(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, disconnect_grace=0.1)
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name} gate-after=4]"
    async with client(own.url) as http:
        async with http.stream("POST", CHAT.path, json=CHAT.request(prompt, stream=True)) as response:
            assert await anext(response.aiter_bytes())
            await gate.arrived.reached()
        await upstream.visits(prompt)[0].left.reached()
        again = asyncio.create_task(ask(http, CHAT, CHAT.request(prompt, stream=True)))
        await upstream.journal.reached(prompt, 2)
        gate.open()
        assert (await again).cache == "MISS"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_retry_within_the_grace_joins(upstream: ScriptedUpstream, proxy: MakeProxy, stream: bool) -> None:
    own = proxy(upstream.url, disconnect_grace=30)
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name}]"
    async with client(own.url) as http:
        caller = asyncio.create_task(ask(http, CHAT, CHAT.request(prompt, stream=stream)))
        await gate.arrived.reached()
        await leave(caller)
        await arrived(http, CHAT, 0)
        retry = asyncio.create_task(ask(http, CHAT, CHAT.request(prompt, stream=stream)))
        await joined(http, CHAT, 1)
        gate.open()
        outcome = await retry
    assert outcome.status == 200
    assert outcome.cache == "JOINED"
    assert len(upstream.visits(prompt)) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_finish_keeps_what_nobody_waited_for(upstream: ScriptedUpstream, proxy: MakeProxy, stream: bool) -> None:
    own = proxy(upstream.url, disconnect_grace=0, on_disconnect="finish")
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name}]"
    async with client(own.url) as http:
        caller = asyncio.create_task(ask(http, CHAT, CHAT.request(prompt, stream=stream)))
        await gate.arrived.reached()
        await leave(caller)
        gate.open()
        visit = upstream.visits(prompt)[0]
        await visit.answered.reached()
        outcome = await ask(http, CHAT, CHAT.request(prompt, stream=stream))
    assert outcome.cache in {"HIT", "JOINED"}
    assert len(upstream.visits(prompt)) == 1
    assert not visit.left.happened


async def test_a_passed_through_call_ends_with_its_caller(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, disconnect_grace=30)
    gate = upstream.gate()
    async with client(own.url) as http:
        target = f"/anything?script=[script:gate={gate.name}]"
        caller = asyncio.create_task(http.get(target))
        await gate.arrived.reached()
        await leave(caller)
        await upstream.visits(gate.name)[0].left.reached()


async def test_a_stopping_proxy_never_ends_a_stream_cleanly(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, shutdown_seconds=0.2)
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name} gate-after=4]"
    async with client(own.url) as http:
        caller = asyncio.create_task(ask(http, CHAT, CHAT.request(prompt, stream=True)))
        await gate.arrived.reached()
        await asyncio.to_thread(own.stop)
        outcome = await caller
    assert outcome.broken or b'"error"' in outcome.body
    assert b"[DONE]" not in outcome.body
