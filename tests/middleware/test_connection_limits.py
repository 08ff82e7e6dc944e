"""No client takes more of the server than its share: of memory, of time, of connections."""

import json
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import product

import h11
import psutil
import pytest

from tests.conftest import MakeProxy
from tests.scripted import CHAT, Json, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Line, Proxy
from tests.timeouts import WAIT_SECONDS

START = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
#: of the server ``hasty``
BODY_SECONDS = 1
#: how many clients never read
DEAF = 32


@pytest.fixture(scope="module")
def hasty(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A server with little patience."""
    with Proxy(
        upstream.url,
        database=tmp_path_factory.mktemp("hasty") / "llmproxy.db",
        request_header_timeout=0.5,
        request_body_timeout=BODY_SECONDS,
        response_write_timeout=1,
        keep_alive_timeout=2,
        cache_entry_bytes=64 << 20,
    ) as proxy:
        yield proxy


def told(answer: bytes, status: int) -> None:
    """One answer with that status and an error of the usual form, and nothing else before the connection's end."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"\r\nconnection: close" in head
    assert json.loads(body)["error"]["message"]


def flood(line: Line, piece: bytes, most: int = 64 * 1024 * 1024) -> None:
    """Sends the piece again and again until the server answers or closes the connection."""
    line.socket.setblocking(False)
    sent = 0
    while sent < most:
        readable, writable, _ = select.select([line.socket], [line.socket], [], WAIT_SECONDS)
        if readable:
            return
        assert writable, "it neither reads nor answers"
        with suppress(BlockingIOError):
            sent += line.socket.send(piece)
    pytest.fail("it was not stopped")


LINE = b"X-Note: " + b"a" * 1000 + b"\r\n"


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(START + LINE * 70, id="many headers"),
        pytest.param(START + b"X: " + b"a" * 70_000, id="a long header"),
        pytest.param(b"GET /" + b"a" * 70_000, id="a long URL"),
        pytest.param(START + b"a" * 70_000, id="a long name"),
        pytest.param(START + LINE * 70 + b"Content-Length: 2\r\n\r\n{}", id="a whole request"),
        pytest.param(START + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + LINE * 500, id="trailers"),
        pytest.param(START + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 500_000, id="a chunk extension"),
        pytest.param(START + b"Upgrade: h2c\r\nConnection: upgrade\r\n" + LINE * 70, id="with an upgrade"),
    ],
)
def test_a_head_has_a_largest_size(front: Proxy, start: bytes) -> None:
    with front.line() as line:
        line.send(start)
        told(line.rest(), 431)
    # piece by piece it is the same
    with front.line() as line:
        for at in range(0, len(start), 10_000):
            line.send(start[at : at + 10_000])
        told(line.rest(), 431)


@pytest.mark.parametrize(
    "start", [START, START + b"X: ", b"GET /", START + b"Transfer-Encoding: chunked\r\n\r\n1;", b""]
)
def test_who_does_not_stop_is_stopped(front: Proxy, start: bytes) -> None:
    with front.line() as line:
        line.send(start)
        flood(line, b"\r\n" * 10_000 if not start else LINE * 20)
    assert front.resident < 1 << 30


def test_a_head_of_an_ordinary_size_is_taken(front: Proxy) -> None:
    with front.line() as line:
        headers = [("x-note", "a" * 1000)] * 60
        assert line.ask("GET", "/health", headers).status == 200
        assert line.ask("GET", "/health", headers).status == 200, "it is counted for each request"


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n", START, START + b"Content-Le"])
def test_half_a_head_is_waited_for_for_a_while(hasty: Proxy, sent: bytes) -> None:
    with hasty.line() as line:
        line.send(sent)
        told(line.rest(), 408)


def test_half_a_head_behind_a_request_too(hasty: Proxy) -> None:
    with hasty.line() as line:
        line.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT")
        answers = line.rest()
    assert answers.startswith(b"HTTP/1.1 200 ")
    told(answers[answers.index(b"HTTP/1.1 408") :], 408)


def test_half_a_body_is_waited_for_for_a_while(hasty: Proxy, subtests: pytest.Subtests) -> None:
    paths = ("/v1/chat/completions", "/v1/things", "/v1/files", "/api/completions", "/v1/responses")
    halves = (
        b"Content-Length: 9\r\n\r\n-",
        b"Content-Length: 9\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\n-\r\n",
    )
    with ExitStack() as opened:
        # all of them wait at the same time
        lines = {(path, half): opened.enter_context(hasty.line()) for path, half in product(paths, halves)}
        for (path, half), line in lines.items():
            line.send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n".encode())
            line.send(b"Content-Type: multipart/form-data; boundary=x\r\n" + half)
        for (path, half), line in lines.items():
            with subtests.test(path=path, half=half):
                told(line.rest(), 408)


@pytest.mark.parametrize("first", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_silent_connection_is_closed_without_a_word(hasty: Proxy, first: bytes) -> None:
    with hasty.line() as line:
        line.send(first)
        assert line.rest().count(b"HTTP/1.1") == bool(first)


def test_a_silent_connection_is_closed_on_the_quick_way_too(hasty: Proxy) -> None:
    body = json.dumps(CHAT.request(marker())).encode()
    data = START + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with hasty.line() as line:
        for _ in range(4):
            line.send(data)
            while not line.socket.recv(65536).endswith(b"}"):
                pass
        line.send(data[: len(data) - len(body)])
        told(line.rest(), 408)


def test_slow_but_alive_is_not_too_slow(hasty: Proxy, upstream: ScriptedUpstream) -> None:
    """The body takes longer than any pause in it may."""
    word = marker()
    body = json.dumps(CHAT.request(word)).encode()
    pieces = [body[at : at + len(body) // 8 + 1] for at in range(0, len(body), len(body) // 8 + 1)]
    with hasty.line() as line:
        line.send(START + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        line.socket.settimeout(BODY_SECONDS / 4)
        for piece in pieces:
            line.send(piece)
            with pytest.raises(TimeoutError):
                line.socket.recv(1)
            if piece is pieces[-2]:
                break
        line.socket.settimeout(30)
        line.send(pieces[-1])
        assert line.rest().startswith(b"HTTP/1.1 200 ")
    assert upstream.visits(word)


def test_a_long_answer_is_no_idle_connection(hasty: Proxy, upstream: ScriptedUpstream) -> None:
    word = marker()
    with hasty.line() as line, hasty.line() as silent:
        gate = upstream.gate()
        line.request("POST", CHAT.path, body=json.dumps(CHAT.request(f"{word} [script:gate={gate.name}]")).encode())
        gate.arrived.wait()
        assert silent.rest() == b"", "it came later, and its time is over"
        gate.open()
        assert line.answer().status == 200
        assert line.ask("GET", "/health").status == 200, "and it may be used again"


@pytest.mark.parametrize(
    "form",
    [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}],
    ids=["plain", "stream", "usage"],
)
@pytest.mark.parametrize("known", [True, False])
def test_who_never_reads_is_cut_off(hasty: Proxy, form: Json, known: bool) -> None:
    """Large answers go to who reads them, and not to memory for who does not."""
    body = json.dumps(CHAT.request(f"{marker()} [script:size=8000000]") | form).encode()
    with hasty.line() as line:
        if known:
            assert len(line.ask("POST", CHAT.path, body=body).body) > 7_000_000
            assert line.ask("POST", CHAT.path, body=body).first("x-cache") == "HIT"
    before = hasty.resident
    with ExitStack() as opened:
        ports = set()
        for _ in range(DEAF):
            line = opened.enter_context(Line(hasty.port))
            line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.request("POST", CHAT.path, body=body)
            ports.add(line.socket.getsockname()[1])
        server = psutil.Process(hasty.process.pid)
        most = 0
        while {each.raddr[-1] for each in server.net_connections("tcp") if each.status != "LISTEN"} & ports:
            most = max(most, hasty.resident)
    # the answer itself is there a few times: on its way, put together, and in the cache
    assert most - before < DEAF * 8_000_000 / 2


def test_where_connections_are_scarce_the_oldest_idle_ones_go(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, descriptors=160)
    silent = [own.line() for _ in range(120)]
    half = [own.line() for _ in range(20)]
    for line in half:
        line.send(START)
    for _ in range(150):
        with own.line() as line:
            assert line.ask("POST", CHAT.path, body=json.dumps(CHAT.request(marker())).encode()).status == 200
    assert silent[0].rest() == b""
    used = own.line()
    assert used.ask("GET", "/health").status == 200
    for line in (*silent, *half, used):
        line.close()


@pytest.mark.parametrize("start", [START, START + b"Content-Length: 9\r\n\r\n{"])
def test_who_stopped_in_the_middle_makes_room_for_who_comes_after(
    upstream: ScriptedUpstream, proxy: MakeProxy, start: bytes
) -> None:
    own = proxy(upstream.url, descriptors=160)
    with ExitStack() as opened:
        for _ in range(200):
            # beyond what there is room for, the newest go
            with suppress(ConnectionError):
                opened.enter_context(own.line()).send(start)
        body = json.dumps(CHAT.request(marker())).encode()
        # a client who has stopped counts as such after some seconds; who comes before is turned away
        answered = False
        while not answered:
            with suppress(ConnectionError, h11.RemoteProtocolError), own.line() as line:
                answered = line.ask("POST", CHAT.path, body=body).status == 200


def test_who_leaves_with_requests_in_a_row_keeps_no_model_server_busy(upstream: ScriptedUpstream, front: Proxy) -> None:
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name}]"
    body = json.dumps(CHAT.request(prompt)).encode()
    with front.line() as line:
        line.send(
            START
            + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        )
        gate.arrived.wait()
    upstream.visits(prompt)[0].left.wait()
