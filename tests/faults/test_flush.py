"""After a flush is answered, nothing that was begun before it is served or kept, by any process that shares the
database."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import sound
from tests.databases import PostgresServer
from tests.faults.outcome import Outcome, ask, joined
from tests.scripted import CHAT, MESSAGES, OLLAMA_CHAT, RESPONSES, Endpoint, marker, named
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS

ONLY = {"cache-control": "only-if-cached"}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two processes on one database."""

    first: Proxy
    second: Proxy


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def pair(
    request: pytest.FixtureRequest, upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    database = tmp_path_factory.mktemp("pair") / "llmproxy.db"
    settings = {}
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        settings = {"database_url": server.create()}
    with ExitStack() as stack:
        first, second = (stack.enter_context(Proxy(upstream.url, database=database, **settings)) for _ in range(2))
        yield Pair(first, second)
    sound(first)
    sound(second)


@asynccontextmanager
async def client(proxy: Proxy) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=proxy.url, timeout=60, trust_env=False) as http:
        yield http


async def flush(http: httpx.AsyncClient, **selector: Any) -> httpx.Response:
    return await http.post("/admin/cache/flush", json=selector)


async def kept(http: httpx.AsyncClient, endpoint: Endpoint, request: dict[str, Any]) -> bool:
    status = (await ask(http, endpoint, request, ONLY)).status
    assert status in (200, 504)
    return status == 200


async def seen(http: httpx.AsyncClient, endpoint: Endpoint, request: dict[str, Any]) -> Outcome:
    """A hit in the other process, which is one as soon as the first one has written it."""
    async with asyncio.timeout(WAIT_SECONDS):
        while (outcome := await ask(http, endpoint, request, ONLY)).status != 200:
            assert outcome.status == 504
    return outcome


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, MESSAGES, OLLAMA_CHAT], ids=named)
async def test_an_answer_under_way_is_delivered_and_not_kept(
    pair: Pair, upstream: ScriptedUpstream, endpoint: Endpoint, elsewhere: bool
) -> None:
    """Plain, at the beginning of a stream, and where only the last frame comes after the flush."""
    async with client(pair.first) as here, client(pair.second) as there:
        for stream, script in ((False, ""), (True, ""), (True, " gate_after=4")):
            gate = upstream.gate()
            request = endpoint.request(f"{marker()} [script:gate={gate.name}{script}]", stream=stream)
            asked = asyncio.create_task(ask(here, endpoint, request))
            await gate.arrived.reached()
            assert (await flush(there if elsewhere else here, all=True)).status_code == 200
            # who asks after it is not given an answer begun before it
            later = asyncio.create_task(ask(here, endpoint, request))
            await joined(here, endpoint, 2)
            assert not asked.done()
            gate.open()
            first, second = await asyncio.gather(asked, later)
            assert (first.status, second.status) == (200, 200)
            assert (first.cache, second.cache) == ("MISS", "MISS")
            assert first.body != second.body
            # and what is kept is the second one
            for http in (here, there):
                assert (await seen(http, endpoint, request)).body == second.body


@pytest.mark.parametrize(
    "selector",
    [
        {"model": "scripted"},
        {"namespace": "n"},
        {"tags": ["red"]},
        {"endpoint": "chat"},
        {"older_than": 0},
        {"older_than": 0.001, "model": "scripted"},
    ],
    ids=str,
)
async def test_each_selector_holds_for_answers_under_way(
    pair: Pair, upstream: ScriptedUpstream, selector: dict[str, Any]
) -> None:
    words = {"x-llmproxy-namespace": "n", "x-llmproxy-tags": "blue,red"}
    async with client(pair.first) as here, client(pair.second) as there:
        gate = upstream.gate()
        request = CHAT.request(f"{marker()} [script:gate={gate.name}]")
        asked = asyncio.create_task(ask(here, CHAT, request, words))
        await gate.arrived.reached()
        assert (await flush(there, model="another")).status_code == 200
        assert (await flush(there, **selector)).status_code == 200
        gate.open()
        assert (await asked).status == 200
        for http in (here, there):
            assert (await ask(http, CHAT, request, words | ONLY)).status == 504


async def test_a_flush_of_something_else_leaves_answers_under_way_alone(pair: Pair, upstream: ScriptedUpstream) -> None:
    async with client(pair.first) as here, client(pair.second) as there:
        gate = upstream.gate()
        request = CHAT.request(f"{marker()} [script:gate={gate.name}]")
        asked = asyncio.create_task(ask(here, CHAT, request))
        await gate.arrived.reached()
        for selector in ({"model": "another"}, {"endpoint": "embeddings"}, {"tags": ["red"]}, {"older_than": 3600}):
            assert (await flush(there, **selector)).status_code == 200
        gate.open()
        await asked
        assert await kept(here, CHAT, request)


@pytest.mark.parametrize("inputs", [1, 2, 10])
async def test_embeddings_under_way_are_not_kept(pair: Pair, upstream: ScriptedUpstream, inputs: int) -> None:
    async with client(pair.first) as here, client(pair.second) as there:
        for flusher in (here, there):
            gate, word = upstream.gate(), marker()
            texts = [f"{word} {number}" for number in range(inputs)]
            request = {"model": "scripted", "input": [f"{texts[0]} [script:gate={gate.name}]", *texts[1:]]}
            asked = asyncio.create_task(here.post("/v1/embeddings", json=request))
            await gate.arrived.reached()
            assert (await flush(flusher, endpoint="embeddings")).status_code == 200
            gate.open()
            assert (await asked).status_code == 200
            for http in (here, there):
                for part in request["input"]:
                    only = await http.post("/v1/embeddings", json={"model": "scripted", "input": part}, headers=ONLY)
                    assert only.status_code == 504


async def test_the_memory_of_another_process_is_empty_when_a_flush_is_answered(pair: Pair) -> None:
    """Hits by the request's bytes too, which are answered before anything is looked up."""
    async with client(pair.first) as here, client(pair.second) as there:
        for _ in range(5):
            request = CHAT.request(marker())
            await ask(here, CHAT, request)
            await seen(there, CHAT, request)
            for _ in range(3):
                assert await kept(there, CHAT, request)
            assert (await flush(here, all=True)).json()["flushed"] >= 1
            assert not await kept(there, CHAT, request)
            assert not await kept(here, CHAT, request)


async def test_a_process_that_stood_still_answers_nothing_old(pair: Pair) -> None:
    """It is not waited for for ever, and yet serves nothing that was flushed while it stood still."""
    async with client(pair.first) as here, client(pair.second) as there:
        async with asyncio.timeout(WAIT_SECONDS):
            # a process that is stopped within a transaction holds the file's lock, and nothing can be flushed
            while not await flushed_beside_a_stopped_one(pair, here, there):
                pass


async def flushed_beside_a_stopped_one(pair: Pair, here: httpx.AsyncClient, there: httpx.AsyncClient) -> bool:
    requests = [CHAT.request(marker()) for _ in range(3)]
    for request in requests:
        await ask(there, CHAT, request)
        assert await kept(there, CHAT, request)
    os.kill(pair.second.process.pid, signal.SIGSTOP)
    try:
        answer = await flush(here, all=True)
        # waits in its socket, to be the first thing that it sees
        waiting = [asyncio.create_task(kept(there, CHAT, request)) for request in requests]
    finally:
        os.kill(pair.second.process.pid, signal.SIGCONT)
    served = await asyncio.gather(*waiting)
    if answer.status_code == 503:
        return False
    assert answer.status_code == 200
    assert not any(served)
    return True


async def test_a_process_that_was_killed_delays_no_flush(
    pair: Pair, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    database = pair.first.database
    settings = {name: value for name, value in pair.first.settings.items() if name == "database_url"}
    third = Proxy(upstream.url, database=database, **settings).start()
    third.kill()
    async with client(pair.first) as here:
        assert (await flush(here, all=True)).status_code == 200
