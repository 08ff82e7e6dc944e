"""An offer of another protocol is not taken (RFC 9110 section 7.8), and the request is answered like any other."""

import base64
import json
import re

import pytest

from tests.scripted import CHAT, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Line, Proxy

OFFERS = {
    "java": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n",
    "plain": b"Upgrade: h2c\r\nConnection: upgrade\r\n",
    "several": b"connection:keep-alive,Upgrade\r\nupgrade: h2c, IRC/6.9\r\n",
    "apart": b"Connection: Upgrade\r\nConnection: keep-alive\r\nUpgrade: TLS/1.0\r\n",
    "unknown": b"Connection: upgrade\r\nUpgrade: something/1\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
}
FRAMINGS = ["length", "chunked"]


def request(path: str, body: bytes, offer: bytes, framing: str = "length") -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\n%b" % (path.encode(), offer)
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    pieces = (body[:7], body[7:]) if len(body) > 7 else (body,)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def answers(line: Line, count: int) -> list[bytes]:
    """So many answers that say how long they are, and nothing behind them."""
    data = b""
    found: list[bytes] = []
    while len(found) < count:
        head, end, rest = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if end and length is not None and len(rest) >= int(length[1]):
            found.append(head + end + rest[: int(length[1])])
            data = rest[int(length[1]) :]
        else:
            data += line.socket.recv(65536)
    assert not data
    return found


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("step", [1 << 20, 100, 7, 1])
def test_a_request_with_an_offer_is_answered(
    front: Proxy, upstream: ScriptedUpstream, offer: str, framing: str, step: int
) -> None:
    word = marker()
    body = json.dumps(CHAT.request(word)).encode()
    with front.line() as line:
        for state in (b"MISS", b"HIT", b"HIT"):
            data = request(CHAT.path, body, OFFERS[offer], framing)
            for at in range(0, len(data), step):
                line.send(data[at : at + step])
            (answer,) = answers(line, 1)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b"x-cache: " + state in answer
    assert [visit.json["messages"][0]["content"] for visit in upstream.visits(word)] == [word]


@pytest.mark.parametrize("offer", [name for name in OFFERS if name != "websocket"])
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("body", [b"\x00\r\n\r\nGET / HTTP/1.1\r\n\r\n", b""])
def test_a_passed_request_with_an_offer_has_its_body(front: Proxy, offer: str, framing: str, body: bytes) -> None:
    with front.line() as line:
        line.send(request("/v1/things", body, OFFERS[offer] + b"Connection: close\r\n", framing))
        answer = line.rest()
    document = json.loads(answer[answer.index(b"{") : answer.rindex(b"}") + 1])
    assert base64.b64decode(document["body"]) == body
    assert not [name for name, _ in document["headers"] if name.lower() == "upgrade"]


def test_what_is_in_a_body_is_never_a_request(front: Proxy, upstream: ScriptedUpstream) -> None:
    word = marker()
    inner = f"GET /v1/{word} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    for framing in FRAMINGS:
        with front.line() as line:
            data = request(CHAT.path, inner, OFFERS["plain"], framing)
            head = data.index(b"\r\n\r\n") + 4
            line.send(data[:head])
            line.send(data[head:])
            (answer,) = answers(line, 1)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert line.ask("GET", "/health").status == 200
    assert not [visit for visit in upstream.visits(word) if visit.method == "GET"]


def test_offers_in_a_pipeline_are_answered_in_order(front: Proxy) -> None:
    words = [marker() for _ in range(12)]
    data = b"".join(
        request(CHAT.path, json.dumps(CHAT.request(word)).encode(), list(OFFERS.values())[at % 3], FRAMINGS[at % 2])
        + b"GET /health HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % OFFERS["java"]
        for at, word in enumerate(words)
    )
    with front.line() as line:
        line.send(data)
        found = answers(line, 24)
    assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in found)
    numbers = [int(re.findall(rb'"chatcmpl-(\d+)"', answer)[0]) for answer in found[::2]]
    assert numbers == sorted(numbers), "the upstream numbers its answers"
    assert len(set(numbers)) == 12
    assert not any(b"chatcmpl" in answer for answer in found[1::2])


def test_a_websocket_on_a_passed_path_is_still_refused(front: Proxy) -> None:
    with front.line() as line:
        line.send(b"GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\n" + OFFERS["websocket"] + b"\r\n")
        (answer,) = answers(line, 1)
    assert answer.startswith(b"HTTP/1.1 501 ")


@pytest.mark.parametrize("sent", [b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n\x16\x03\x01 no http"])
def test_nothing_is_read_behind_a_tunnel_that_is_not_there(front: Proxy, sent: bytes) -> None:
    with front.line() as line:
        line.send(sent + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = line.rest()
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501 "))
    assert answer.count(b"HTTP/1.1 ") == 1
