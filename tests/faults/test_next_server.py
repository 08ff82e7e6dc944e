"""Two servers have the model and one of them fails before its answer begins: the other one is asked."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.server import Proxy
from tests.upstream.scripted import CHUNKED, Scripted, Visit, chunk, scripted

CHAT = "/v1/chat/completions"
ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}

Play = Callable[[Visit], Awaitable[None]]


async def answers(visit: Visit) -> None:
    await visit.json(ANSWER)


async def hangs_up(visit: Visit) -> None:
    visit.close()


async def speaks_no_http(visit: Visit) -> None:
    await visit.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    visit.close()


async def breaks_off(visit: Visit) -> None:
    await visit.write(CHUNKED, chunk(b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'))
    visit.close()


async def refuses(visit: Visit) -> None:
    await visit.json({"error": {"message": "no memory", "code": 500}}, "500 Internal Server Error")


class Model:
    """A server of no special kind with the model m. ``play`` is what it does with all but questions for its list."""

    def __init__(self) -> None:
        self.play: Play = answers

    async def __call__(self, visit: Visit) -> None:
        if visit.path == "/v1/models":
            await visit.json({"object": "list", "data": [{"id": "m", "object": "model"}]})
        else:
            await self.play(visit)


class Pair:
    """Two servers with the same model, and the proxy in front of them. The first one is asked first."""

    def __init__(self, proxy: Proxy, models: tuple[Model, Model], servers: tuple[Scripted, Scripted]) -> None:
        self.first, self.second = models
        self.servers = servers
        self.http = httpx.AsyncClient(base_url=proxy.url, trust_env=False, timeout=60)

    async def ask(self, path: str = CHAT, **more: Any) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": marker()}], **more}
        return await self.http.post(path, json=body)

    def asked(self, path: str = CHAT) -> tuple[int, int]:
        """How many requests each of them got."""
        first, second = (sum(visit.path == path for visit in server.visits) for server in self.servers)
        return first, second


@pytest.fixture
async def pair(proxy: MakeProxy) -> AsyncIterator[Pair]:
    first, second = Model(), Model()
    async with scripted(first) as one, scripted(second) as two:
        front = proxy(one.url, two.url)
        pair = Pair(front, (first, second), (one, two))
        async with pair.http:
            # both are seen to have the model
            assert (await pair.http.get("/v1/models")).status_code == 200
            yield pair


async def test_a_server_that_is_gone_is_followed_by_the_next_one(pair: Pair) -> None:
    await pair.servers[0].stop()
    for _ in range(2):
        answer = await pair.ask()
        assert (answer.status_code, answer.headers["x-cache"]) == (200, "MISS")
        assert answer.json()["choices"] == ANSWER["choices"]
    assert pair.asked() == (0, 2)
    await pair.servers[0].start()


@pytest.mark.parametrize("play", [hangs_up, speaks_no_http])
@pytest.mark.parametrize("stream", [False, True])
async def test_so_is_one_that_breaks_the_connection(pair: Pair, play: Play, *, stream: bool) -> None:
    pair.first.play = play
    body = {"model": "m", "messages": [{"role": "user", "content": marker()}], "stream": stream}
    first, again = [await pair.http.post(CHAT, json=body) for _ in range(2)]
    assert (first.status_code, first.headers["x-cache"]) == (200, "MISS")
    assert "hello" in first.text
    # who answered is who is noted, and what it answered is kept
    assert again.headers["x-cache"] == "HIT"
    assert pair.asked()[1] == 1


async def test_embeddings_too(pair: Pair) -> None:
    async def vectors(visit: Visit) -> None:
        await visit.json({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]})

    pair.first.play, pair.second.play = hangs_up, vectors
    answer = await pair.ask("/v1/embeddings", input=marker())
    assert (answer.status_code, answer.json()["data"][0]["embedding"]) == (200, [0.5])


async def test_each_is_asked_once_and_no_more(pair: Pair) -> None:
    pair.first.play = pair.second.play = speaks_no_http
    answer = await pair.ask()
    assert answer.status_code == 502
    assert pair.asked() == (1, 1)


async def test_an_answer_that_has_begun_is_not_begun_again(pair: Pair) -> None:
    pair.first.play = breaks_off
    answer = await pair.ask(stream=True)
    assert "broke off" in answer.text
    assert pair.asked() == (1, 0)


async def test_an_error_of_the_servers_own_is_an_answer(pair: Pair) -> None:
    pair.first.play = refuses
    answer = await pair.ask()
    assert (answer.status_code, answer.json()["error"]["message"]) == (500, "no memory")
    assert pair.asked() == (1, 0)


async def test_what_may_have_done_something_is_not_done_twice(pair: Pair) -> None:
    pair.first.play = speaks_no_http
    answer = await pair.ask("/v1/responses", input="x", store=False, conversation="conv_1")
    assert answer.status_code == 502
    assert pair.asked("/v1/responses") == (1, 0)


async def test_what_passes_through_is_repeated_if_it_only_reads(pair: Pair) -> None:
    pair.first.play = speaks_no_http
    path = "/v1/what/ever?model=m"
    assert (await pair.http.get(path)).json() == ANSWER
    assert pair.asked(path) == (1, 1)
    assert (await pair.http.post(path, json={"a": 1})).status_code == 502
    assert pair.asked(path) == (2, 1)


async def test_nothing_was_sent_to_a_server_that_is_gone(pair: Pair) -> None:
    await pair.servers[0].stop()
    answer = await pair.http.post("/v1/what/ever", json={"model": "m"})
    assert answer.json() == ANSWER
    assert pair.asked("/v1/what/ever") == (0, 1)
    await pair.servers[0].start()
