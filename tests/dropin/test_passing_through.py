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
from tests.scripted_upstream.elsewhere import PAGE, pattern
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
        ("x-llmproxy-namespace", "mine"),
    ]
    document = echoed(line.ask("GET", "/x", headers))
    for name, _ in headers[1:]:
        assert received(document, name) == [], name
    assert "x-named" not in ",".join(received(document, "connection"))


def test_the_upstream_sees_its_own_host_and_who_asked(line: Line, upstream: ScriptedUpstream) -> None:
    document = echoed(line.ask("GET", "/x"))
    assert received(document, "host") == [f"127.0.0.1:{upstream.port}"]
    assert any("llmproxy" in value for value in received(document, "via"))
    assert received(document, "x-forwarded-for") == ["127.0.0.1"]
    assert received(document, "x-forwarded-host") == [f"127.0.0.1:{line.port}"]
    assert received(document, "user-agent") == [], "no header is invented"
    assert received(document, "accept") == []
    assert received(document, "accept-encoding") == []


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


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_errors_of_passed_paths_arrive_as_they_are(line: Line, method: str) -> None:
    heard = line.ask(method, "/play/denied")
    assert (heard.status, heard.body) == (403, PAGE)
    assert heard.first("content-type") == "text/html; charset=utf-8"
    assert heard.all("set-cookie") == ["a=1", "b=2"]
    for name, value in {
        "www-authenticate": 'Basic realm="models"',
        "retry-after": "3600",
        "allow": "GET",
        "etag": '"page"',
        "x-of-its-own": "1",
        "content-length": str(len(PAGE)),
        "x-cache": "BYPASS",
    }.items():
        assert heard.all(name) == [value], name


def test_a_text_of_a_passed_path_stays_a_text(line: Line) -> None:
    heard = line.ask("GET", "/play/not-found")
    assert (heard.status, heard.body) == (404, b"404 page not found")
    assert heard.first("content-type") == "text/plain"


def test_the_error_of_a_passed_path_is_noted(line: Line) -> None:
    word = marker()
    request_id = line.ask("GET", f"/play/not-found?{word}").first("x-request-id")
    rows = json.loads(line.ask("GET", "/api/history?limit=50").body)["data"]
    row = next(row for row in rows if row["request_id"] == request_id)
    assert (row["status"], row["error"]) == (404, "404 page not found")


@pytest.mark.parametrize("coding", ["gzip", "gzip, deflate, br, zstd", "br;q=1.0, *;q=0"])
def test_the_clients_accept_encoding_goes_up(line: Line, coding: str) -> None:
    assert received(echoed(line.ask("GET", "/x", [("accept-encoding", coding)])), "accept-encoding") == [coding]


def test_a_page_that_only_comes_compressed(line: Line) -> None:
    heard = line.ask("GET", "/play/only-compressed", [("accept-encoding", "gzip")])
    assert heard.first("content-encoding") == "gzip"
    assert gzip.decompress(heard.body) == PAGE
    assert line.ask("GET", "/play/only-compressed").status == 415


def test_a_compressed_request_body_goes_up_as_it_is(line: Line) -> None:
    body = gzip.compress(b"{}") + b"and more"
    document = echoed(line.ask("POST", "/v1/other", [("content-encoding", "gzip")], body))
    assert base64.b64decode(document["body"]) == body
    assert received(document, "content-encoding") == ["gzip"]
    assert received(document, "content-length") == [str(len(body))]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "GET"])
def test_no_length_is_invented_for_what_has_no_body(line: Line, method: str) -> None:
    document = echoed(line.ask(method, "/x"))
    assert received(document, "content-length") == []
    assert received(document, "transfer-encoding") == []
    assert received(document, "content-type") == []


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_length_of_zero_is_passed_where_it_was_said(line: Line, method: str) -> None:
    document = echoed(line.ask(method, "/x", [("content-length", "0")]))
    assert received(document, "content-length") == ["0"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_body_where_few_have_one(line: Line, method: str) -> None:
    document = echoed(line.ask(method, "/x", body=b"hello"))
    assert base64.b64decode(document["body"]) == b"hello"


def test_conditions_and_ranges_are_between_client_and_server(line: Line) -> None:
    fresh = line.ask("GET", "/play/tagged", [("if-none-match", '"tag"')])
    assert (fresh.status, fresh.body, fresh.first("etag")) == (304, b"", '"tag"')
    part = line.ask("GET", "/play/tagged", [("range", "bytes=2-4")])
    assert (part.status, part.body, part.first("content-range")) == (206, b"234", "bytes 2-4/10")
    whole = line.ask("GET", "/play/tagged", [("cache-control", "max-age=0")])
    assert (whole.status, whole.body, whole.first("etag")) == (200, b"0123456789", '"tag"')


def test_no_content(line: Line) -> None:
    heard = line.ask("DELETE", "/play/nothing")
    assert (heard.status, heard.body, heard.first("x-of-its-own")) == (204, b"", "1")
    assert heard.all("transfer-encoding") == []
    assert line.ask("GET", "/play/binary/100").body == pattern(0, 100), "the connection goes on"


def test_who_names_a_conversation_may_come_back_for_its_stream(line: Line) -> None:
    """llama.cpp keeps such a stream under ``GET`` and ``DELETE /v1/stream``."""
    document = echoed(line.ask("GET", "/v1/stream?conv_id=a&from=7", [("x-conversation-id", "a")]))
    assert document["target"] == "/v1/stream?conv_id=a&from=7"
    assert received(document, "x-conversation-id") == ["a"]


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
