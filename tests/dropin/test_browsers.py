"""Web pages: none may reach the proxy unless its origin is listed, not by CORS, DNS rebinding or a form."""

import json
from collections.abc import Iterator

import pytest

from tests.conftest import MakeProxy
from tests.scripted import CHAT, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Line, Proxy

LISTED = "https://chat.example"
JSON = ("content-type", "application/json")


@pytest.fixture
def line(front: Proxy) -> Iterator[Line]:
    with front.line() as connection:
        yield connection


@pytest.fixture
def open_line(proxy: MakeProxy, upstream: ScriptedUpstream) -> Iterator[Line]:
    """A connection to a proxy that lets one origin in, and answers to one name beside loopback's."""
    own = proxy(upstream.url, cors_origins=LISTED, allowed_hosts="gpu-box")
    with own.line() as connection:
        yield connection


def refused(line: Line, method: str, target: str, headers: list[tuple[str, str]]) -> None:
    heard = line.ask(method, target, headers)
    assert heard.status == 403, heard.body
    assert json.loads(heard.body)["error"]["message"]
    assert not heard.all("access-control-allow-origin")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4141", "127.0.0.1.evil.example", "10.0.0.7", ""])
@pytest.mark.parametrize("target", ["/v1/models", "/admin/cache/flush", "/api/history", "/anything"])
def test_a_foreign_host_is_refused(line: Line, host: str, target: str) -> None:
    refused(line, "POST" if "flush" in target else "GET", target, [("host", host)])


@pytest.mark.parametrize("host", ["localhost", "localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}", "127.0.0.5"])
def test_loopback_names_are_let_in(line: Line, host: str) -> None:
    assert line.ask("GET", "/v1/models", [("host", host.format(port=line.port))]).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [("origin", "https://evil.example")],
        [("origin", "null")],
        [("origin", "http://localhost.evil.example")],
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
    ],
)
@pytest.mark.parametrize("target", ["/v1/chat/completions", "/admin/cache/flush", "/anything"])
def test_a_foreign_page_is_refused(
    line: Line, upstream: ScriptedUpstream, target: str, headers: list[tuple[str, str]]
) -> None:
    word = marker()
    refused(line, "POST", f"{target}?{word}", [*headers, ("content-type", "text/plain")])
    assert upstream.visits(word) == []


def test_no_page_is_let_in_by_default(line: Line) -> None:
    headers = [("origin", LISTED), ("access-control-request-method", "POST")]
    heard = line.ask("OPTIONS", CHAT.path, headers)
    assert heard.status in {400, 403}
    assert not heard.all("access-control-allow-origin")


def test_a_preflight_of_a_listed_origin_is_answered_here(open_line: Line, upstream: ScriptedUpstream) -> None:
    word = marker()
    wanted = "authorization, content-type, x-stainless-read-timeout"
    headers = [
        ("origin", LISTED),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", wanted),
    ]
    heard = open_line.ask("OPTIONS", f"{CHAT.path}?{word}", headers)
    assert heard.status in {200, 204}
    assert heard.all("access-control-allow-origin") == [LISTED]
    assert "POST" in (heard.first("access-control-allow-methods") or "")
    allowed = (heard.first("access-control-allow-headers") or "").lower()
    assert all(name in allowed for name in wanted.split(", "))
    assert upstream.visits(word) == []


def test_a_listed_origin_reads_answers_and_their_headers(open_line: Line) -> None:
    body = json.dumps(CHAT.request(marker())).encode()
    for _ in range(3):
        heard = open_line.ask("POST", CHAT.path, [JSON, ("origin", LISTED), ("sec-fetch-site", "cross-site")], body)
        assert heard.status == 200
        assert heard.all("access-control-allow-origin") == [LISTED]
        exposed = (heard.first("access-control-expose-headers") or "").lower()
        assert {"x-request-id", "x-cache", "retry-after"} <= {name.strip() for name in exposed.split(",")}


def test_an_unlisted_origin_is_refused_even_for_a_hit(open_line: Line) -> None:
    body = json.dumps(CHAT.request(marker())).encode()
    for _ in range(3):
        assert open_line.ask("POST", CHAT.path, [JSON], body).status == 200
    heard = open_line.ask("POST", CHAT.path, [JSON, ("origin", "https://evil.example")], body)
    assert heard.status == 403
    assert open_line.ask("POST", CHAT.path, [JSON, ("host", "evil.example")], body).status == 403


def test_the_upstreams_own_cors_headers_never_get_out(open_line: Line) -> None:
    heard = open_line.ask("GET", "/play/headers", [("origin", LISTED)])
    assert heard.all("access-control-allow-origin") == [LISTED]
    assert heard.all("access-control-allow-credentials") in ([], ["true"])


def test_an_allowed_host_is_let_in(open_line: Line) -> None:
    assert open_line.ask("GET", "/v1/models", [("host", "gpu-box:4141")]).status == 200
    assert open_line.ask("GET", "/v1/models", [("host", "other-box")]).status == 403


def test_the_proxys_own_page_is_let_in(line: Line) -> None:
    own = f"http://127.0.0.1:{line.port}"
    assert line.ask("GET", "/v1/models", [("origin", own), ("sec-fetch-site", "same-origin")]).status == 200
