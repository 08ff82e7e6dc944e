"""Identical requests at once: one upstream call, whoever comes, leaves, reads slowly or asks in another form."""

import asyncio
from collections import Counter
from typing import Any

import h11
import httpx
import pytest

from tests.conftest import MakeProxy
from tests.faults.outcome import Outcome, ask, failed, failed_inside, joined
from tests.scripted import CHAT, OLLAMA_CHAT, RESPONSES, Endpoint, Json, marker, named
from tests.scripted_upstream import Gate, ScriptedUpstream
from tests.server import Line, Proxy
from tests.timeouts import WAIT_SECONDS

MiB = 1024 * 1024


def text_of(endpoint: Endpoint, outcome: Outcome) -> str:
    if outcome.headers["content-type"].startswith("application/json"):
        return endpoint.text(httpx.Response(200, content=outcome.body).json())
    return endpoint.streamed_text(outcome.body)


def crowd(
    http: httpx.AsyncClient, endpoint: Endpoint, prompt: str, count: int, *, first_streams: bool = True
) -> list["asyncio.Task[Outcome]"]:
    """Callers of one request, every other one for a stream."""
    forms = [first_streams ^ (number % 2 == 1) for number in range(count)]
    return [asyncio.create_task(ask(http, endpoint, endpoint.request(prompt, stream=form))) for form in forms]


@pytest.fixture
async def wide(front: Proxy) -> Any:
    """A client that can hold a hundred requests at once."""
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=front.url, timeout=60, limits=limits, trust_env=False) as client:
        yield client


@pytest.mark.parametrize("first_streams", [True, False], ids=["stream first", "plain first"])
@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES], ids=named)
async def test_fifty_callers_of_both_forms_cost_one_call(
    upstream: ScriptedUpstream, wide: httpx.AsyncClient, endpoint: Endpoint, first_streams: bool
) -> None:
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name} words=20]"
    callers = crowd(wide, endpoint, prompt, 1, first_streams=first_streams)
    await gate.arrived.reached()
    callers += crowd(wide, endpoint, prompt, 49, first_streams=not first_streams)
    await joined(wide, endpoint, 50)
    gate.open()
    outcomes = await asyncio.gather(*callers)
    assert len(upstream.visits(prompt)) == 1
    assert {outcome.status for outcome in outcomes} == {200}
    assert len({text_of(endpoint, outcome) for outcome in outcomes}) == 1
    assert Counter(outcome.cache for outcome in outcomes) == {"MISS": 1, "JOINED": 49}
    assert all("collapsed" in o.headers["cache-status"] for o in outcomes if o.cache == "JOINED")


async def leader_and(http: httpx.AsyncClient, endpoint: Endpoint, prompt: str, gate: Gate) -> "asyncio.Task[Outcome]":
    """A streaming caller who has led the flight up to its gate."""
    leader = asyncio.create_task(ask(http, endpoint, endpoint.request(prompt, stream=True)))
    await gate.arrived.reached()
    return leader


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, OLLAMA_CHAT], ids=named)
async def test_the_leader_is_killed_and_the_others_finish(
    upstream: ScriptedUpstream, wide: httpx.AsyncClient, front: Proxy, endpoint: Endpoint
) -> None:
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name} gate-after=4 words=20]"
    leader = await leader_and(wide, endpoint, prompt, gate)
    request = endpoint.request(prompt, stream=True)
    followers = [asyncio.create_task(ask(wide, endpoint, request)) for _ in range(49)]
    await joined(wide, endpoint, 50)
    leader.cancel()
    await asyncio.wait([leader])
    gate.open()
    outcomes = await asyncio.gather(*followers)
    assert len(upstream.visits(prompt)) == 1
    assert {outcome.cache for outcome in outcomes} == {"JOINED"}
    assert len({text_of(endpoint, outcome) for outcome in outcomes}) == 1
    assert not any(outcome.broken for outcome in outcomes)


async def first_text(pieces: Any, endpoint: Endpoint) -> bytes:
    """Reads until the first words of the answer have come."""
    body = b""
    async with asyncio.timeout(WAIT_SECONDS):
        while b"answer-" not in body:
            body += await anext(pieces)
    return body


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, OLLAMA_CHAT], ids=named)
async def test_a_late_joiner_gets_what_there_is_at_once(
    upstream: ScriptedUpstream, wide: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name} gate-after=6 words=20]"
    leader = await leader_and(wide, endpoint, prompt, gate)
    request = endpoint.request(prompt, stream=True)
    async with wide.stream("POST", endpoint.path, json=request) as late:
        pieces = late.aiter_bytes()
        body = await first_text(pieces, endpoint)
        assert late.headers["x-cache"] == "JOINED"
        gate.open()
        body += b"".join([piece async for piece in pieces])
    assert body == (await leader).body
    assert len(upstream.visits(prompt)) == 1


async def test_a_follower_who_does_not_read_slows_nobody_and_costs_bounded_memory(
    upstream: ScriptedUpstream, proxy: MakeProxy
) -> None:
    own = proxy(upstream.url)
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name} gate-after=2 size={24 * MiB}]"
    request = CHAT.request(prompt, stream=True)
    async with httpx.AsyncClient(base_url=own.url, timeout=60, trust_env=False) as http:
        leader = await leader_and(http, CHAT, prompt, gate)
        with own.line() as slow:
            start_reading(slow, request)
            before = own.resident
            gate.open()
            outcome = await leader
            assert len(CHAT.streamed_text(outcome.body)) > 24 * MiB
            assert own.resident - before < 120 * MiB
            rest = await asyncio.to_thread(read_to_end, slow)
    assert rest.endswith(b"data: [DONE]\n\n") or b'"error"' in rest[-2000:] or rest == b"cut"


def start_reading(line: Line, request: Json) -> None:
    body = httpx.Request("POST", "http://x", json=request).content
    line.request("POST", CHAT.path, [("content-type", "application/json")], body)
    assert line.head().status_code == 200


def read_to_end(line: Line) -> bytes:
    """The rest of a stream, ``cut`` when the connection ended first."""

    try:
        return b"".join(iter(line.data, None))
    except (h11.RemoteProtocolError, ConnectionError):
        return b"cut"


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES], ids=named)
async def test_an_upstream_error_reaches_every_caller(
    upstream: ScriptedUpstream, wide: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name} status=400]"
    callers = crowd(wide, endpoint, prompt, 10)
    await gate.arrived.reached()
    await joined(wide, endpoint, 10)
    gate.open()
    outcomes = await asyncio.gather(*callers)
    assert {outcome.status for outcome in outcomes} == {400}
    assert {failed(endpoint, outcome) for outcome in outcomes} == {"refused with 400"}


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES], ids=named)
async def test_a_stream_that_breaks_reaches_every_caller_in_their_own_form(
    upstream: ScriptedUpstream, wide: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    """The plain callers have been sent nothing yet: they get a 502, or the answer of a call of their own."""
    gate = upstream.gate()
    prompt = f"{marker()} [script:error-frame after=5 words=9 gate={gate.name}]"
    leader = await leader_and(wide, endpoint, prompt, gate)
    streams = [asyncio.create_task(ask(wide, endpoint, endpoint.request(prompt, stream=True))) for _ in range(5)]
    plain = [asyncio.create_task(ask(wide, endpoint, endpoint.request(prompt))) for _ in range(5)]
    await joined(wide, endpoint, 11)
    gate.open()
    for outcome in await asyncio.gather(leader, *streams):
        assert "the model fell over" in failed_inside(endpoint, outcome)
    for outcome in await asyncio.gather(*plain):
        assert outcome.status == 502 or text_of(endpoint, outcome).startswith("answer-")


async def test_the_off_switch(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, single_flight="false")
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name}]"
    async with httpx.AsyncClient(base_url=own.url, timeout=60, trust_env=False) as http:
        callers = crowd(http, CHAT, prompt, 5)
        await upstream.journal.reached(gate.name, 5)
        gate.open()
        outcomes = await asyncio.gather(*callers)
    assert {outcome.cache for outcome in outcomes} == {"MISS"}
    assert len({text_of(CHAT, outcome) for outcome in outcomes}) == 5


async def test_other_requests_do_not_join(upstream: ScriptedUpstream, wide: httpx.AsyncClient) -> None:
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name}]"
    variants: list[Json] = [{}, {"temperature": 0}, {"max_tokens": 5}, {"unknown": True}]
    callers = [asyncio.create_task(ask(wide, CHAT, CHAT.request(prompt, **more))) for more in variants]
    await upstream.journal.reached(gate.name, len(variants))
    gate.open()
    assert {outcome.cache for outcome in await asyncio.gather(*callers)} == {"MISS"}
