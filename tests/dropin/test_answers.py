"""What a fetched answer keeps of the upstream's: its headers, and its text whatever its coding."""

import json
from collections.abc import Iterator

import pytest

from tests.conftest import MakeProxy
from tests.scripted import CHAT, STREAMING, Endpoint, marker, named
from tests.scripted_upstream import ScriptedUpstream
from tests.scripted_upstream.codings import CODINGS
from tests.server import Line, Proxy

JSON = ("content-type", "application/json")
KNOWN = ("identity", "gzip", "x-gzip", "members", "deflate", "raw-deflate", "zstd")


@pytest.fixture
def line(front: Proxy) -> Iterator[Line]:
    with front.line() as connection:
        yield connection


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("coding", KNOWN)
@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
def test_an_answer_that_comes_compressed_is_kept_like_any(
    line: Line, upstream: ScriptedUpstream, endpoint: Endpoint, coding: str, stream: bool
) -> None:
    prompt = f"{marker()} [script:coding={coding}]"
    body = json.dumps(endpoint.request(prompt, stream=stream)).encode()
    bodies = []
    for cache in ("MISS", "HIT"):
        heard = line.ask("POST", endpoint.path, [JSON, ("accept-encoding", "gzip")], body)
        assert (heard.status, heard.first("x-cache")) == (200, cache)
        assert heard.all("content-encoding") == []
        bodies.append(heard.body)
    assert bodies[0] == bodies[1]
    said = endpoint.streamed_text(bodies[0]) if stream else endpoint.text(json.loads(bodies[0]))
    assert said.startswith(f"answer-{upstream.visits(prompt)[0].number} zero one")
    assert len(upstream.visits(prompt)) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_coding_that_is_not_known_is_delivered_and_not_kept(
    line: Line, upstream: ScriptedUpstream, stream: bool
) -> None:
    prompt = f"{marker()} [script:coding=unknown]"
    body = json.dumps(CHAT.request(prompt, stream=stream)).encode()
    for number in range(2):
        heard = line.ask("POST", CHAT.path, [JSON], body)
        assert (heard.status, heard.first("x-cache")) == (200, "MISS")
        assert heard.all("content-encoding") == ["rot13"]
        said = f"answer-{upstream.visits(prompt)[number].number}".encode()
        assert said in CODINGS["unknown"][1](heard.body)


@pytest.mark.parametrize("coding", ["cut", "wrong"])
def test_what_is_not_what_its_coding_says_is_an_error(line: Line, upstream: ScriptedUpstream, coding: str) -> None:
    prompt = f"{marker()} [script:coding={coding}]"
    body = json.dumps(CHAT.request(prompt)).encode()
    for count in (1, 2):
        heard = line.ask("POST", CHAT.path, [JSON], body)
        assert heard.status == 502
        assert len(upstream.visits(prompt)) == count
        assert b"decompress" not in heard.body, "what a library calls it is for the log"


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_an_error_that_comes_compressed(line: Line, coding: str) -> None:
    prompt = f"{marker()} [script:coding={coding} status=429]"
    heard = line.ask("POST", CHAT.path, [JSON], json.dumps(CHAT.request(prompt)).encode())
    assert heard.status == 429
    assert json.loads(heard.body)["error"]["message"] == "refused with 429"
    assert heard.all("content-encoding") == []


def test_a_small_answer_that_becomes_a_large_one_is_bounded(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own = proxy(upstream.url, cache_entry_bytes=100_000)
    prompt = f"{marker()} [script:coding=gzip size=2000000]"
    body = json.dumps(CHAT.request(prompt)).encode()
    with own.line() as line:
        for _ in range(2):
            heard = line.ask("POST", CHAT.path, [JSON], body)
            assert (heard.status, heard.first("x-cache")) == (200, "MISS")
            assert len(json.loads(heard.body)["choices"][0]["message"]["content"]) > 1_900_000


GIVEN = {
    "x-ratelimit-remaining-requests": "99",
    "anthropic-ratelimit-requests-remaining": "7",
    "openai-processing-ms": "12",
    "request-id": "req_up",
    "set-cookie": "a=1",
    "x-of-a-gateway": "1",
}
#: said by the proxy in its own words, or only true of the upstream's own body
NOT_GIVEN = {
    "etag": "abc",
    "content-disposition": "inline",
    "expires": "0",
    "cache-control": "no-store",
    "x-cache": "EDGE",
    "access-control-allow-origin": "*",
    "age": "77",
}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("endpoint", STREAMING, ids=named)
def test_who_made_the_call_gets_its_headers(line: Line, endpoint: Endpoint, stream: bool) -> None:
    for name, value in (GIVEN | NOT_GIVEN).items():
        body = json.dumps(endpoint.request(f"{marker()} [script:header={name}:{value}]", stream=stream)).encode()
        heard = line.ask("POST", endpoint.path, [JSON], body)
        assert (heard.status, heard.first("x-cache")) == (200, "MISS")
        assert heard.all(name) == ([value] if name in GIVEN else heard.all(name)[:1]), name
        assert name in GIVEN or value not in heard.all(name), name
        heard = line.ask("POST", endpoint.path, [JSON], body)
        assert heard.first("x-cache") == "HIT"
        assert value not in heard.all(name), name


@pytest.mark.parametrize(
    ("path", "member"), [("/v1/embeddings", "input"), ("/api/embed", "input"), ("/v1/rerank", "query")]
)
def test_who_made_the_call_gets_its_headers_where_nothing_streams(line: Line, path: str, member: str) -> None:
    told = {"model": "scripted", "documents": ["x"], member: f"{marker()} [script:header=x-ratelimit-limit-tokens:5]"}
    for cache, given in (("MISS", ["5"]), ("HIT", [])):
        heard = line.ask("POST", path, [JSON], json.dumps(told).encode())
        assert (heard.first("x-cache"), heard.all("x-ratelimit-limit-tokens")) == (cache, given)


def test_what_is_stored_is_said_once(line: Line) -> None:
    body = json.dumps(CHAT.request(f"{marker()} [script:header=openai-version:2020-10-01]")).encode()
    for cache in ("MISS", "HIT"):
        heard = line.ask("POST", CHAT.path, [JSON], body)
        assert heard.first("x-cache") == cache
        assert heard.all("openai-version") == ["2020-10-01"]


def test_who_joins_gets_nothing_that_is_the_leaders(front: Proxy, upstream: ScriptedUpstream) -> None:
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name} header=set-cookie:leaders=1]"
    body = json.dumps(CHAT.request(prompt)).encode()
    with front.line() as leader, front.line() as follower:
        leader.request("POST", CHAT.path, [JSON], body)
        gate.arrived.wait()
        follower.request("POST", CHAT.path, [JSON], body)
        gate.open()
        led, followed = leader.answer(), follower.answer()
    assert led.all("set-cookie") == ["leaders=1"]
    assert followed.all("set-cookie") == []
    assert followed.body == led.body
