"""The quick way gives what the ordinary way gives, and steps aside whenever it is not sure."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

#: what differs from one answer to the next
_VARYING = re.compile(rb"(?im)^(date|server-timing|x-request-id|age|cache-status): .*\r\n")
_LENGTH = re.compile(rb"content-length: \d+\r\n")


class Client:
    """A connection that sends bytes as they are and reads answers as they are."""

    def __init__(self, proxy: Proxy) -> None:
        self._socket = socket.create_connection(("127.0.0.1", proxy.port), 30)

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read(self) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._socket.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: (\d+)", head)
        assert found is not None, head
        while len(body) < int(found[1]):
            body += self._socket.recv(65536)
        assert len(body) == int(found[1]), "nothing follows the answer"
        return head + b"\r\n\r\n" + body

    def ask(self, data: bytes) -> bytes:
        self.send(data)
        return self.read()


def fill(proxy: Proxy, data: bytes) -> None:
    """Asks once, on a connection of its own, whatever form the answer has."""
    client = Client(proxy)
    client.send(data.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
    while client._socket.recv(65536):
        pass
    client.close()


def request(body: dict[str, object], *headers: str, path: str = "/v1/chat/completions") -> bytes:
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *headers]
    lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def chat(prompt: str, **more: object) -> dict[str, object]:
    return {"model": "scripted", "messages": [{"role": "user", "content": prompt}], **more}


def hits(proxy: Proxy) -> int:
    with proxy.line() as line:
        document = json.loads(line.ask("GET", "/api/cache/stats").body)
    return int(document["since_start"]["hits"])


@pytest.fixture(scope="module")
def slow(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The same program without the quick way."""
    database = tmp_path_factory.mktemp("slow") / "llmproxy.db"
    with Proxy(upstream.url, database=database, fast_path=False) as proxy:
        yield proxy


@pytest.fixture
def client(front: Proxy) -> Iterator[Client]:
    client = Client(front)
    yield client
    client.close()


BODIES = [
    pytest.param({}, id="plain"),
    pytest.param({"stream": True}, id="stream"),
    pytest.param({"stream": True, "stream_options": {"include_usage": True}}, id="stream-usage"),
]
HEADERS = [
    pytest.param((), id="bare"),
    pytest.param(("X-LLMProxy-Namespace: hot", "X-LLMProxy-Tags: a,b"), id="namespace"),
    pytest.param(("Authorization: Bearer secret", "User-Agent: OpenAI/Python"), id="sdk"),
]


@pytest.mark.parametrize("more", BODIES)
@pytest.mark.parametrize("headers", HEADERS)
def test_both_ways_give_the_same_bytes(
    front: Proxy, slow: Proxy, more: dict[str, object], headers: tuple[str, ...]
) -> None:
    data = request(chat(marker(), **more), *headers)
    answers = []
    for proxy in (front, slow):
        fill(proxy, data)
        client = Client(proxy)
        heard = [client.ask(data) for _ in range(4)]
        client.close()
        answers.append([_VARYING.sub(b"", answer) for answer in heard])
    # the upstream numbers its answers, so that they differ in length; the other headers do not
    shapes = [[_LENGTH.sub(b"", answer.partition(b"\r\n\r\n")[0]) for answer in heard] for heard in answers]
    assert shapes[0] == shapes[1]
    for heard in answers:
        assert len(set(heard)) == 1, "the quick answer is the ordinary one, byte for byte"


def test_every_hit_is_counted_and_recorded(front: Proxy, client: Client) -> None:
    data = request(chat(marker()))
    client.ask(data)
    before = hits(front)
    ids = {re.search(rb"x-request-id: (\S+)", client.ask(data))[1] for _ in range(10)}  # type: ignore[index]
    assert len(ids) == 10, "each has an id of its own"
    assert hits(front) == before + 10
    with front.line() as line:
        rows = json.loads(line.ask("GET", "/api/history?limit=10").body)["data"]
    assert {row["request_id"].encode() for row in rows} == ids
    assert {row["cache"] for row in rows} == {"hit"}


def test_the_quick_way_is_taken(front: Proxy, client: Client) -> None:
    """Only the ordinary way has phases."""
    data = request(chat(marker()))
    for _ in range(3):
        client.ask(data)
    before = keyed(front)
    for _ in range(5):
        client.ask(data)
    assert keyed(front) == before


def keyed(proxy: Proxy) -> str:
    with proxy.line() as line:
        page = line.ask("GET", "/metrics").body.decode()
    return next(row for row in page.splitlines() if row.startswith('llmproxy_phase_seconds_count{phase="key"}'))


def test_the_clients_own_id_is_kept(client: Client) -> None:
    data = request(chat(marker()), "X-Request-Id: mine-1")
    assert all(b"x-request-id: mine-1\r\n" in client.ask(data) for _ in range(4))


def test_an_id_that_cannot_be_taken_is_not_repeated(client: Client) -> None:
    data = request(chat(marker()), "X-Request-Id: not mine")
    ids = [re.search(rb"x-request-id: (\S+)", client.ask(data))[1] for _ in range(5)]  # type: ignore[index]
    assert len(set(ids)) == 5


def test_head_and_body_may_come_apart_in_any_way(client: Client) -> None:
    data = request(chat(marker()))
    client.ask(data)
    whole = client.ask(data).partition(b"\r\n\r\n")[2]
    head = data.index(b"\r\n\r\n") + 4
    for cut in (head, head + 1, head - 2, 1, len(data) - 1):
        client.send(data[:cut])
        client.send(data[cut:])
        assert client.read().partition(b"\r\n\r\n")[2] == whole
    for byte in data:
        client.send(bytes([byte]))
    assert client.read().partition(b"\r\n\r\n")[2] == whole


def test_a_known_head_with_another_body_is_another_request(client: Client) -> None:
    one, other = marker(), marker()
    one, other = one.ljust(40, "a"), other.ljust(40, "b")
    first, second = request(chat(one)), request(chat(other))
    assert len(first) == len(second)
    for _ in range(3):
        client.ask(first)
    head = second.index(b"\r\n\r\n") + 4
    client.send(second[:head])
    client.send(second[head:])
    assert b"x-cache: MISS" in client.read()


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    known, unknown = request(chat(marker())), request(chat(marker()))
    known_answer = [client.ask(known) for _ in range(3)][-1]
    client.send(unknown + known + known)
    data = b""
    while data.count(b"HTTP/1.1 200") < 3 or not data.endswith(known_answer.partition(b"\r\n\r\n")[2]):
        data += client._socket.recv(65536)
    order = re.findall(rb"x-cache: (\w+)", data)
    assert order == [b"MISS", b"HIT", b"HIT"]


def test_a_request_that_follows_too_early_is_never_taken_for_the_one_before(client: Client) -> None:
    first, second = request(chat(marker())), request(chat(marker()))
    client.ask(second)
    bodies = {data: client.ask(data).partition(b"\r\n\r\n")[2] for data in (first, second)}
    for _ in range(3):
        client.send(first + second)
        data = b""
        while data.count(b"HTTP/1.1 200") < 2 or not data.endswith(bodies[second]):
            data += client._socket.recv(65536)
        assert bodies[first] in data
        assert client.ask(first).endswith(bodies[first])
        assert client.ask(second).endswith(bodies[second])


def test_a_flushed_answer_is_not_given_again(front: Proxy, client: Client) -> None:
    data = request(chat(marker()))
    for _ in range(3):
        client.ask(data)
    with front.line() as line:
        line.ask("POST", "/admin/cache/flush", body=b'{"all": true}')
    assert b"x-cache: MISS" in client.ask(data)


def test_a_short_life_ends_on_the_quick_way_too(client: Client) -> None:
    data = request(chat(marker()), "X-LLMProxy-TTL: 0.3")
    assert b"x-cache: MISS" in client.ask(data)
    seen: set[bytes] = set()
    while seen != {b"HIT", b"MISS"}:
        seen |= set(re.findall(rb"x-cache: (\w+)", client.ask(data)))


@pytest.mark.parametrize(
    "header",
    [
        "Connection: close",
        "Connection:close",
        "connection:  Close",
        "Connection:\tclose",
        "Connection: TE, close",
        "Connection: keep-alive,close",
        "Connection: close, keep-alive",
        "Connection: keep-alive\r\nConnection: close",
        "Connection: keep-alive,\r\n close",
        "Proxy-Connection: close",
    ],
)
@pytest.mark.parametrize("more", [{}, {"stream": True}], ids=["plain", "stream"])
def test_a_connection_that_is_to_be_closed_is_closed(
    front: Proxy, slow: Proxy, header: str, more: dict[str, object]
) -> None:
    data = request(chat(marker(), **more), *header.split("\r\n"))
    ways = []
    for proxy in (front, slow):
        answers = []
        for _ in range(4):
            with proxy.line() as line:
                line.send(data)
                answers.append(line.rest())
        # how often it was asked for does not change how it is answered
        ways.append([re.search(rb"(?im)^(connection: .*?)\r$", answer) is not None for answer in answers])
        assert all(answer.startswith(b"HTTP/1.1 ") for answer in answers)
        assert len({_VARYING.sub(b"", answer) for answer in answers[1:]}) == 1
    assert ways[0] == ways[1]


@pytest.mark.parametrize("header", ["X-Note: by HTTP/1.1", "Connection: keep-alive", "Content-Encoding: identity"])
def test_an_older_version_of_http_is_closed_too(front: Proxy, header: str) -> None:
    data = request(chat(marker()), header).replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)
    for _ in range(4):
        with front.line() as line:
            line.send(data)
            assert line.rest().startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "header",
    [
        "Transfer-Encoding:chunked",
        "transfer-encoding:  chunked",
        "Expect:100-continue",
        "EXPECT:\t100-continue",
        "Origin:https://elsewhere.example",
        "origin: \thttps://elsewhere.example",
        "Upgrade:h2c",
        "Upgrade: h2c\r\nConnection:Upgrade",
    ],
)
def test_both_ways_agree_on_headers_of_any_spacing(front: Proxy, slow: Proxy, header: str) -> None:
    body = json.dumps(chat(marker())).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: 127.0.0.1", *header.split("\r\n"), "Connection:  close"]
    head = "\r\n".join(lines).encode()
    if b"chunked" in head:
        data = head + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        data = head + b"\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    statuses = []
    for proxy in (front, slow):
        fill(proxy, request(json.loads(body)))
        for _ in range(4):
            with proxy.line() as line:
                line.send(data)
                statuses.append(re.findall(rb"HTTP/1.1 (\d+)", line.rest()))
    assert len({tuple(status) for status in statuses}) == 1


@pytest.mark.parametrize("header", ["Cache-Control: no-cache", "Cache-Control: no-store", "Connection: close"])
def test_what_must_go_another_way_does(front: Proxy, header: str) -> None:
    prompt = marker()
    filling = Client(front)
    filling.ask(request(chat(prompt)))
    filling.close()
    for _ in range(3):
        client = Client(front)
        answer = client.ask(request(chat(prompt), header))
        client.close()
        assert (b"x-cache: HIT" in answer) == header.startswith("Connection")


def test_it_holds_with_keys_and_their_scopes(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    made = proxy(upstream.url, api_keys="ann:one,bob:two")
    client = Client(made)
    ann = request(chat("same prompt for both"), "Authorization: Bearer one")
    bob = request(chat("same prompt for both"), "Authorization: Bearer two")
    for _ in range(3):
        client.ask(ann)
    assert b"x-cache: HIT" in client.ask(ann)
    assert b"x-cache: MISS" in client.ask(bob)
    assert b" 401 " in client.ask(request(chat("same prompt for both"), "Authorization: Bearer six"))
    assert b" 401 " in client.ask(request(chat("same prompt for both")))
    client.close()


def test_a_restart_begins_with_an_empty_table(upstream: ScriptedUpstream, proxy: MakeProxy, tmp_path: Path) -> None:
    made = proxy(upstream.url)
    data = request(chat(marker()))
    client = Client(made)
    client.ask(data)
    client.close()
    made.stop()
    made.start()
    client = Client(made)
    assert b"detail=sql" in client.ask(data)
    assert b"detail=memory" in client.ask(data)
    client.close()
