"""What the proxy does not understand passes through unharmed, on real sockets."""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator

import pytest

from tests.conftest import MakeProxy
from tests.scripted import Json, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.scripted_upstream.elsewhere import pattern
from tests.server import Heard, Line, Proxy

MiB = 1024 * 1024
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.fixture
def line(front: Proxy) -> Iterator[Line]:
    with front.line() as connection:
        yield connection


def echoed(heard: Heard) -> Json:
    """What the upstream says it received."""
    assert heard.status == 200, heard.body
    document = json.loads(heard.body)
    assert isinstance(document, dict)
    return document


def received(document: Json, name: str) -> list[str]:
    """A header's values as the upstream received them."""
    return [value for given, value in document["headers"] if given.lower() == name]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reaches_the_upstream(line: Line, method: str) -> None:
    body = b"" if method == "GET" else b"\x00 not json"
    document = echoed(line.ask(method, "/v1/things/1", body=body))
    assert document["method"] == method
    assert base64.b64decode(document["body"]) == body


def test_head_has_the_length_of_the_body_and_no_body(line: Line) -> None:
    heard = line.ask("HEAD", "/play/binary/123456")
    assert heard.status == 200
    assert heard.first("content-length") == "123456"
    assert heard.body == b""
    assert line.ask("GET", "/play/binary/100").body == pattern(0, 100), "the connection goes on"


@pytest.mark.parametrize(
    "target",
    [
        "/v1/uploads?include%5B%5D=a&include%5B%5D=b",
        "/v1/uploads?include[]=a&include[]=b&metadata%5Bk%5D=v",
        "/v1/other?beta=true",
        "/v1/other?q=a+b%20c&empty=&bare&&x=%F0%9F%99%82",
        "/v1/org%2Fmod:el%20name/things",
        "/v1/org%2fmod/things",
        "/v1/org/mod/el/things/",
        "//v1//double",
        "/a/./b/../c",
        "/v1/caf%C3%A9/%00",
        "/v1/a;b=c/d,e/(f)/~g/'h'/*/!/$/@",
        "/api/blobs/sha256:0123456789abcdef",
        "/",
    ],
)
def test_the_path_and_query_arrive_byte_for_byte(line: Line, target: str) -> None:
    assert echoed(line.ask("GET", target))["target"] == target


def test_repeated_request_headers_arrive_in_order(line: Line) -> None:
    document = echoed(line.ask("GET", "/x", [("x-many", "one"), ("x-other", "-"), ("x-many", "two")]))
    assert received(document, "x-many") == ["one", "two"]


def test_hop_by_hop_and_private_headers_stop_at_the_proxy(line: Line) -> None:
    headers = [
        ("connection", "keep-alive, x-named"),
        ("x-named", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("trailer", "x-sum"),
        ("proxy-authorization", "Basic x"),
        ("proxy-connection", "keep-alive"),
        ("cookie", "session=1"),
        ("x-conversation-id", "abc"),
        ("x-llmproxy-namespace", "mine"),
    ]
    document = echoed(line.ask("GET", "/x", headers))
    for name, _ in headers[1:]:
        assert received(document, name) == [], name
    assert "x-named" not in ",".join(received(document, "connection"))


def test_the_upstream_sees_its_own_host_and_who_asked(line: Line, upstream: ScriptedUpstream) -> None:
    document = echoed(line.ask("GET", "/x"))
    assert received(document, "host") == [f"127.0.0.1:{upstream.port}"]
    assert received(document, "accept-encoding") == ["identity"]
    assert any("llmproxy" in value for value in received(document, "via"))
    assert received(document, "x-forwarded-for") == ["127.0.0.1"]
    assert received(document, "x-forwarded-host") == [f"127.0.0.1:{line.port}"]
    assert received(document, "user-agent") == [], "no header is invented"
    assert received(document, "accept") == []


def test_the_callers_key_is_forwarded(line: Line) -> None:
    document = echoed(line.ask("GET", "/x", [("authorization", "Bearer secret"), ("openai-organization", "org")]))
    assert received(document, "authorization") == ["Bearer secret"]
    assert received(document, "openai-organization") == ["org"]


def test_a_proxy_in_front_of_itself_is_noticed(line: Line) -> None:
    heard = line.ask("GET", "/x", [("via", "1.1 llmproxy")])
    assert heard.status == 400
    assert json.loads(heard.body)["error"]["message"]


def test_response_headers_of_every_sort(line: Line) -> None:
    heard = line.ask("GET", "/play/headers")
    assert heard.all("x-many") == ["one", "two"]
    assert heard.all("set-cookie") == ["a=1", "b=2"]
    assert heard.first("openai-processing-ms") == "12"
    assert heard.first("x-ratelimit-remaining-requests") == "99"
    for name in ("x-named", "keep-alive", "proxy-authenticate"):
        assert heard.all(name) == [], name
    assert not [name for name, _ in heard.headers if name.startswith("access-control-")]
    assert len(heard.all("date")) == 1
    assert len(heard.all("server")) <= 1
    assert heard.first("server") != "llama.cpp"
    assert len(heard.all("x-request-id")) == 1
    assert heard.first("x-cache") == "BYPASS"
    assert heard.first("cache-status") == "llmproxy; fwd=bypass; detail=pass-through"


def test_a_compressed_answer_is_relayed_as_it_is(line: Line) -> None:
    """Decoding it and keeping its headers is the classic trap."""
    heard = line.ask("GET", "/play/compressed")
    assert heard.first("content-encoding") == "gzip"
    assert gzip.decompress(heard.body) == b'{"compressed": true}'
    assert heard.first("content-length") in {None, str(len(heard.body))}


@pytest.mark.parametrize("size", [0, 1, 65536, 30 * MiB])
def test_binary_downloads(line: Line, size: int) -> None:
    heard = line.ask("GET", f"/play/binary/{size}")
    assert heard.first("content-type") == "application/octet-stream"
    assert heard.first("content-length") == str(size)
    assert heard.body == pattern(0, size)


@pytest.mark.parametrize(
    ("method", "target", "length"),
    [("POST", "/v1/things/1/cancel", "0"), ("POST", "/v1/things/1/cancel", None), ("DELETE", "/v1/things/1", None)],
)
def test_an_empty_body_labelled_json_passes(line: Line, method: str, target: str, length: str | None) -> None:
    headers = [("content-type", "application/json"), *([("content-length", length)] if length else [])]
    document = echoed(line.ask(method, target, headers))
    assert document["method"] == method
    assert document["size"] == 0
    assert received(document, "content-type") == ["application/json"]


def test_a_passed_body_is_not_decoded_and_not_parsed(line: Line) -> None:
    body = b'{"broken json'
    document = echoed(line.ask("POST", "/v1/other", [("content-type", "application/json")], body))
    assert base64.b64decode(document["body"]) == body


def test_a_chunked_request_body_arrives(line: Line) -> None:
    host = f"host: 127.0.0.1:{line.port}\r\n".encode()
    line.send(b"POST /v1/other HTTP/1.1\r\n" + host + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n")
    line.send(b"5\r\nhello\r\n")
    line.send(b"6\r\n world\r\n0\r\n\r\n")
    head, _, body = line.rest().partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    assert b'"size": 11' in body
    assert hashlib.sha256(b"hello world").hexdigest().encode() in body


def test_expect_100_continue_is_answered_here(line: Line, upstream: ScriptedUpstream) -> None:
    word = marker()
    host = f"host: 127.0.0.1:{line.port}\r\n".encode()
    line.send(f"POST /v1/{word} HTTP/1.1\r\n".encode() + host)
    line.send(b"expect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n\r\n")
    assert line.socket.recv(25).startswith(b"HTTP/1.1 100 ")
    line.send(b"hello")
    assert b" 200 " in line.rest()
    assert upstream.visits(word)[0].header("expect") is None
    assert upstream.visits(word)[0].body == b"hello"


def test_a_200_mb_upload_costs_no_memory(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own = proxy(upstream.url)
    boundary = "----form"
    head = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{boundary}\r\n'
        'content-disposition: form-data; name="file"; filename="in.jsonl"\r\ncontent-type: text/plain\r\n\r\n'
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    block = bytes(range(256)) * 4096
    count = 200
    with own.line() as line:
        line.ask("GET", "/v1/uploads")
        before = most = own.resident
        line.send(
            f"POST /v1/uploads HTTP/1.1\r\nhost: 127.0.0.1:{own.port}\r\nconnection: close\r\n"
            f"content-type: multipart/form-data; boundary={boundary}\r\n"
            f"content-length: {len(head) + count * len(block) + len(tail)}\r\n\r\n".encode()
        )
        digest = hashlib.sha256()
        for piece in (head, *[block] * count, tail):
            line.send(piece)
            digest.update(piece)
            most = max(most, own.resident)
        answer = line.rest()
    assert b" 200 " in answer.splitlines()[0]
    assert digest.hexdigest().encode() in answer
    assert f"boundary={boundary}".encode() in answer
    assert most - before < 60 * MiB


def test_errors_of_passed_paths_arrive_in_the_envelope(line: Line) -> None:
    heard = line.ask("GET", "/play/not-found")
    assert heard.status == 404
    assert heard.first("content-type") == "application/json"
    assert json.loads(heard.body)["error"].keys() == {"message", "type", "param", "code"}
    assert heard.first("x-request-id")


@pytest.mark.parametrize("target", ["/v1/realtime?model=m", "/v1/responses", "/anything"])
def test_a_websocket_is_refused_at_once(line: Line, target: str) -> None:
    headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    heard = line.ask("GET", target, headers)
    assert heard.status == 501
    assert json.loads(heard.body)["error"]["message"]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd", "br", "lzma", "nonsense"])
def test_a_coded_request_passes_as_it_is(line: Line, coding: str) -> None:
    """It is neither decoded nor checked: what becomes of it is the upstream's matter, and so is its size."""
    body = gzip.compress(b"0" * 100_000)[:-3]
    document = echoed(line.ask("POST", "/v1/things/1", [("content-encoding", coding)], body))
    assert base64.b64decode(document["body"]) == body
    assert received(document, "content-encoding") == [coding]
    assert received(document, "content-length") == [str(len(body))]
