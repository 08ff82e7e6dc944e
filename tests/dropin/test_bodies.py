"""Request bodies of cached endpoints: what is understood, and how the rest is refused."""

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator

import pytest
import zstandard

from tests.conftest import MakeProxy
from tests.scripted import CHAT, Json, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.scripted_upstream.refusals import SHAPES
from tests.server import Heard, Line, Proxy

JSON = ("content-type", "application/json")


@pytest.fixture
def line(front: Proxy) -> Iterator[Line]:
    with front.line() as connection:
        yield connection


def error(heard: Heard, status: int) -> Json:
    """The error of an answer, which must be the whole envelope and nothing of a framework's."""
    assert heard.status == status, heard.body
    assert heard.first("content-type") == "application/json"
    assert heard.first("x-request-id")
    document = json.loads(heard.body)
    assert document.keys() == {"error"}
    found = document["error"]
    assert isinstance(found, dict)
    assert found.keys() == {"message", "type", "param", "code"}
    assert found["message"]
    return found


#: what no key can be made of, whatever the endpoint; some servers take some of it
UNREADABLE = {
    "empty": b"",
    "not json": b"{",
    "trailing": b'{"messages": []} x',
    "nan": b'{"messages": [], "temperature": NaN}',
    "infinity": b'{"messages": [], "temperature": -Infinity}',
    "lone surrogate": b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "nested lone surrogate": b'{"messages": [], "metadata": {"\\udc00": 1}}',
    "byte-order mark": b'\xef\xbb\xbf{"messages": []}',
    "deep": b'{"messages": ' + b"[" * 600 + b"]" * 600 + b"}",
    "deeper": b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "deep excused": b'{"messages": [], "metadata": ' + b"[" * 600 + b"]" * 600 + b"}",
    "array": b"[]",
    "text": b'"hello"',
    "number": b"1",
    "null": b"null",
    "not utf-8": b'{"messages": [], "user": "\xff"}',
    "cut utf-8": '{"messages": [], "user": "é'.encode()[:-1],
    "number for a model": b'{"messages": [], "model": 5}',
    "list for a model": b'{"messages": [], "model": []}',
}
#: the same of endpoints that stream
NO_STREAM = {
    "text for a stream": b'{"messages": [], "stream": "true"}',
    "number for a stream": b'{"messages": [], "stream": 1}',
    "list for stream options": b'{"messages": [], "stream": true, "stream_options": []}',
    "text for usage": b'{"messages": [], "stream": true, "stream_options": {"include_usage": "yes"}}',
}
STREAMED = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/api/chat", "/api/generate")
PATHS = (*STREAMED, "/v1/embeddings", "/v1/rerank", "/api/embed", "/responses", "/chat/completions")


def judged_by_the_upstream(line: Line, upstream: ScriptedUpstream, path: str, body: bytes) -> None:
    """What reached the upstream is what the client sent, and the answer is the upstream's own, bypassing the cache."""
    word = marker()
    headers = [JSON, ("x-of-its-own", word), ("content-length", str(len(body)))]
    heard = line.ask("POST", f"{path}?{word}", headers, body)
    (visit,) = upstream.visits(word)
    assert visit.size == len(body)
    assert visit.digest.digest() == hashlib.sha256(body).digest()
    assert visit.header("content-length") == str(len(body))
    assert visit.header("x-of-its-own") == word
    if heard.status != 200:
        assert (heard.status, heard.body) == (400, SHAPES["llamacpp"](400)[1])
        assert heard.first("content-type") == SHAPES["llamacpp"](400)[0]
    assert heard.first("x-cache") == "BYPASS"
    assert heard.first("cache-status") == "llmproxy; fwd=bypass; detail=unreadable"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", UNREADABLE)
def test_a_body_that_cannot_be_read_is_the_upstreams_to_judge(
    line: Line, upstream: ScriptedUpstream, path: str, name: str
) -> None:
    judged_by_the_upstream(line, upstream, path, UNREADABLE[name])


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize("name", NO_STREAM)
def test_a_stream_that_is_asked_for_oddly_is_the_upstreams_to_judge(
    line: Line, upstream: ScriptedUpstream, path: str, name: str
) -> None:
    judged_by_the_upstream(line, upstream, path, NO_STREAM[name])


def test_what_cannot_be_read_does_not_go_up_where_that_is_forbidden(line: Line, upstream: ScriptedUpstream) -> None:
    word = marker()
    heard = line.ask("POST", f"{CHAT.path}?{word}", [JSON, ("cache-control", "only-if-cached")], b"{")
    assert error(heard, 504)["code"] == "only_if_cached"
    assert upstream.visits(word) == []


def test_what_cannot_be_read_was_decoded(line: Line, upstream: ScriptedUpstream) -> None:
    word = marker()
    headers = [JSON, ("content-encoding", "gzip")]
    assert line.ask("POST", f"{CHAT.path}?{word}", headers, gzip.compress(b'{"n": NaN}')).status == 200
    (visit,) = upstream.visits(word)
    assert visit.body == b'{"n": NaN}'
    assert (visit.header("content-encoding"), visit.header("content-length")) == (None, "10")


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b'{"prompt": 1}'])
def test_a_bad_body_for_what_is_the_proxys_own_is_a_400(line: Line, body: bytes) -> None:
    for path in ("/api/completions", "/api/completions/batch", "/v1/batches"):
        assert error(line.ask("POST", path, [JSON], body), 400)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/json; charset=utf-8", "application/x-www-form-urlencoded"]
)
def test_the_content_type_does_not_matter(line: Line, content_type: str | None) -> None:
    body = json.dumps(CHAT.request(marker())).encode()
    assert line.ask("POST", CHAT.path, [("content-type", content_type)] if content_type else [], body).status == 200


def test_numbers_beyond_64_bits_are_kept(line: Line, upstream: ScriptedUpstream) -> None:
    word = marker()
    body = json.dumps(CHAT.request(word)).encode()[:-1] + b', "seed": 12345678901234567890123}'
    assert line.ask("POST", CHAT.path, [JSON], body).status == 200
    assert upstream.visits(word)[0].json["seed"] == 12345678901234567890123


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
    ],
)
def test_compressed_bodies_are_understood(line: Line, upstream: ScriptedUpstream, coding: str, encode: object) -> None:
    assert callable(encode)
    word = marker()
    plain = json.dumps(CHAT.request(word)).encode()
    first = line.ask("POST", CHAT.path, [JSON, ("content-encoding", coding)], encode(plain))
    assert first.status == 200
    assert first.first("x-cache") == "MISS"
    visit = upstream.visits(word)[0]
    assert visit.json["messages"][0]["content"] == word
    assert visit.header("content-encoding") is None
    assert line.ask("POST", CHAT.path, [JSON], plain).first("x-cache") == "HIT"


def halves(body: bytes, encode: Callable[[bytes], bytes]) -> bytes:
    """The body in two coded parts, one upon the other."""
    middle = len(body) // 2
    return encode(body[:middle]) + encode(body[middle:])


@pytest.mark.parametrize(("coding", "encode"), [("gzip", gzip.compress), ("zstd", zstandard.ZstdCompressor().compress)])
def test_members_that_follow_upon_another_are_one_body(
    line: Line, upstream: ScriptedUpstream, coding: str, encode: Callable[[bytes], bytes]
) -> None:
    word = marker()
    plain = json.dumps(CHAT.request(word)).encode()
    assert line.ask("POST", CHAT.path, [JSON, ("content-encoding", coding)], halves(plain, encode)).status == 200
    assert upstream.visits(word)[0].json == json.loads(plain)


@pytest.mark.parametrize(
    ("coding", "encode"),
    [("gzip", gzip.compress), ("zstd", zstandard.ZstdCompressor().compress), ("deflate", zlib.compress)],
)
@pytest.mark.parametrize("path", [CHAT.path, "/v1/embeddings", "/api/completions", "/v1/responses"])
def test_coded_bodies_that_are_cut_off_or_go_on_are_a_400(
    line: Line, coding: str, encode: Callable[[bytes], bytes], path: str
) -> None:
    whole = encode(json.dumps({"model": "m", "input": "x", "prompt": "x", "messages": []}).encode())
    for body in (whole[:-1], whole[: len(whole) // 2], whole[:1], whole + b"x", whole + b"{}"):
        error(line.ask("POST", path, [JSON, ("content-encoding", coding)], body), 400)


def test_what_is_received_of_a_coded_body_counts_too(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own = proxy(upstream.url, max_body_bytes=10_000)
    with own.line() as line:
        nothing = gzip.compress(b"") * 600
        error(line.ask("POST", CHAT.path, [JSON, ("content-encoding", "gzip")], nothing), 413)


def test_an_unknown_coding_is_a_415(line: Line) -> None:
    error(line.ask("POST", CHAT.path, [JSON, ("content-encoding", "lzma")], b"{}"), 415)


def test_a_body_that_is_not_what_its_coding_says_is_a_400(line: Line) -> None:
    error(line.ask("POST", CHAT.path, [JSON, ("content-encoding", "gzip")], b"not gzip"), 400)


def test_too_large_is_a_413(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own = proxy(upstream.url, max_body_bytes=10_000)
    with own.line() as line:
        error(line.ask("POST", CHAT.path, [JSON], b" " * 10_001), 413)
    with own.line() as line:
        bomb = gzip.compress(b" " * 10_000_000)
        error(line.ask("POST", CHAT.path, [JSON, ("content-encoding", "gzip")], bomb), 413)
    with own.line() as line:
        assert line.ask("POST", CHAT.path, [JSON], json.dumps(CHAT.request(marker())).encode()).status == 200


def test_too_large_without_a_content_length_is_a_413(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own = proxy(upstream.url, max_body_bytes=10_000)
    with own.line() as line:
        line.send(
            f"POST {CHAT.path} HTTP/1.1\r\nhost: 127.0.0.1:{own.port}\r\ntransfer-encoding: chunked\r\n"
            "connection: close\r\n\r\n".encode()
        )
        line.send(b"2ee0\r\n" + b" " * 12_000 + b"\r\n0\r\n\r\n")
        assert b" 413 " in line.rest().splitlines()[0]


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/metrics", "/health", "/api/history", "/admin/cache/flush"])
def test_a_wrong_method_on_a_path_of_ours_is_a_405(line: Line, method: str, path: str) -> None:
    if (method == "GET" and path != "/admin/cache/flush") or (method, path) == ("DELETE", "/api/history"):
        return
    heard = line.ask(method, path)
    assert heard.status == 405
    assert heard.first("allow")
    assert heard.first("content-type") in {"application/json", "application/problem+json"}
    assert "error" in json.loads(heard.body)


def test_an_unknown_admin_path_is_a_404_of_ours(line: Line, upstream: ScriptedUpstream) -> None:
    word = marker()
    heard = line.ask("GET", f"/admin/{word}")
    assert heard.status == 404
    assert "error" in json.loads(heard.body)
    assert upstream.visits(word) == []


def test_an_unknown_model_is_a_404(line: Line) -> None:
    found = error(line.ask("GET", "/v1/models/no%2Fsuch:model"), 404)
    assert found["code"] == "model_not_found"


@pytest.mark.parametrize("target", ["/v1/models/scripted", "/v1/models/scripted?beta=true"])
def test_one_model_is_taken_from_the_list(line: Line, target: str) -> None:
    heard = line.ask("GET", target)
    assert heard.status == 200
    assert json.loads(heard.body)["id"] == "scripted"


def test_the_bare_form_is_cached_too(line: Line) -> None:
    """``base_url`` without ``/v1``: the same operation, the same entry."""
    body = json.dumps(CHAT.request(marker())).encode()
    assert line.ask("POST", "/v1/chat/completions", [JSON], body).first("x-cache") == "MISS"
    assert line.ask("POST", "/chat/completions", [JSON], body).first("x-cache") == "HIT"


def test_a_slash_at_the_end_is_neither_added_nor_taken_away(line: Line, upstream: ScriptedUpstream) -> None:
    word = marker()
    heard = line.ask("POST", "/v1/chat/completions/", [JSON], json.dumps(CHAT.request(word)).encode())
    assert heard.status == 200
    assert upstream.visits(word)[0].target == b"/v1/chat/completions/"


@pytest.fixture(scope="module")
def second() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as scripted:
        scripted.pages["/v1/models"] = {"object": "list", "data": [{"id": "elsewhere", "object": "model"}]}
        yield scripted


@pytest.fixture(scope="module")
def two(
    upstream: ScriptedUpstream, second: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    with Proxy(upstream.url, second.url, database=tmp_path_factory.mktemp("two") / "llmproxy.db") as proxy:
        yield proxy


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [], "stream": "true", "model": "elsewhere"}',
        b'{"messages": [], "stream_options": [], "model": "elsewhere"}',
        b'{"temperature": NaN, "messages": [], "model": "elsewhere"}',
        b'{"messages": ["\\ud800"], "model": "elsewhere"}',
        b'{"messages": [], "model": "elsewhere"} and more',
        b'\xef\xbb\xbf{"messages": [], "model": "elsewhere"}',
        b'{"messages": ' + b"[" * 600 + b"]" * 600 + b', "model": "elsewhere"}',
    ],
)
def test_what_cannot_be_kept_goes_to_the_server_of_its_model(
    two: Proxy, upstream: ScriptedUpstream, second: ScriptedUpstream, body: bytes
) -> None:
    word = marker()
    with two.line() as line:
        assert line.ask("POST", f"{CHAT.path}?{word}", [JSON], body).first("x-cache") == "BYPASS"
    assert [visit.size for visit in second.visits(word)] == [len(body)]
    assert upstream.visits(word) == []
