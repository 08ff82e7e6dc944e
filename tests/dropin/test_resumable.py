"""Streams that llama.cpp keeps for a client who names them."""

import json
from collections.abc import Iterator

import pytest

from tests.scripted import CHAT, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

JSON = ("content-type", "application/json")
NAMED = ("x-conversation-id", "a")


@pytest.fixture(scope="module")
def llamacpp() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream("llamacpp") as upstream:
        yield upstream


@pytest.fixture(scope="module")
def own(llamacpp: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(llamacpp.url, database=tmp_path_factory.mktemp("resumable") / "llmproxy.db") as proxy:
        yield proxy


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/v1/completions", "/v1/responses"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_named_stream_is_the_servers(own: Proxy, llamacpp: ScriptedUpstream, path: str, stream: bool) -> None:
    word = marker()
    body = {"model": "scripted", "stream": stream, "prompt": word, "input": word}
    sent = json.dumps(body | {"messages": [{"role": "user", "content": word}]}).encode()
    with own.line() as line:
        for count in (1, 2):
            heard = line.ask("POST", path, [JSON, NAMED], sent)
            assert heard.status == 200
            assert heard.first("cache-status") == "llmproxy; fwd=bypass; detail=side-effect"
            visits = llamacpp.visits(word)
            assert len(visits) == count
            assert visits[-1].header("x-conversation-id") == "a"
            assert visits[-1].body == sent


def test_who_comes_back_for_it_reaches_the_server(own: Proxy) -> None:
    with own.line() as line:
        for method in ("GET", "DELETE"):
            document = json.loads(line.ask(method, "/v1/stream?conv_id=a&from=7", [NAMED]).body)
            assert (document["method"], document["target"]) == (method, "/v1/stream?conv_id=a&from=7")


def test_a_server_that_keeps_no_streams_is_not_told(front: Proxy, upstream: ScriptedUpstream) -> None:
    word = marker()
    with front.line() as line:
        for cache in ("MISS", "HIT"):
            body = json.dumps(CHAT.request(word)).encode()
            assert line.ask("POST", CHAT.path, [JSON, NAMED], body).first("x-cache") == cache
    assert upstream.visits(word)[0].header("x-conversation-id") is None
