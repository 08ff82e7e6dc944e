"""Behind nginx and Caddy, each with the configuration that ``deploy`` offers (``deploy/nginx.conf``,
``deploy/Caddyfile``): on a host of its own and below a path of another site."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeProxy
from tests.deploy.reverse_proxies import HOST, SITE, ReverseProxy
from tests.scripted import CHAT, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Line, Proxy

KINDS = ("nginx", "caddy")
#: a host's name, and what stands before the proxy's own paths there
PLACES = ((HOST, ""), (SITE, "/llm"))
JSON = ("content-type", "application/json")
OPERATOR = ("authorization", "Bearer open sesame")


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("behind")
    with Proxy(
        upstream.url, database=folder / "proxy.db", allowed_hosts=f"{HOST},{SITE}", admin_token="open sesame"
    ) as server:
        yield server


@pytest.fixture(scope="module", params=KINDS)
def line(behind: Proxy, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Line]:
    folder = tmp_path_factory.mktemp(request.param)
    with ReverseProxy(request.param, folder, behind.port) as server, Line(server.port) as opened:
        yield opened


def _host(line: Line, name: str) -> tuple[str, str]:
    return ("host", f"{name}:{line.port}")


@pytest.mark.parametrize(("name", "below"), PLACES)
def test_requests_streams_and_hits_come_through(line: Line, name: str, below: str) -> None:
    message = {"role": "user", "content": marker()}
    for stream, cache in ((True, "MISS"), (True, "HIT"), (False, "HIT")):
        body = json.dumps({"model": "scripted", "messages": [message], "stream": stream}).encode()
        heard = line.ask("POST", f"{below}{CHAT.path}", [_host(line, name), JSON], body)
        assert (heard.status, heard.first("x-cache")) == (200, cache), heard.body
        assert (b"data: [DONE]" in heard.body) is stream


@pytest.mark.parametrize(("name", "below"), PLACES)
def test_the_page_is_there_and_may_act(line: Line, name: str, below: str) -> None:
    here = [_host(line, name)]
    assert b'"ui/page.js"' in line.ask("GET", f"{below}/ui", here).body
    assert b'"page.js"' in line.ask("GET", f"{below}/ui/", here).body
    assert line.ask("GET", f"{below}/ui/page.js", here).status == 200
    own = [*here, JSON, OPERATOR, ("origin", f"http://{name}:{line.port}"), ("sec-fetch-site", "same-origin")]
    assert line.ask("POST", f"{below}/admin/cache/flush", own, b'{"all": true, "dry_run": true}').status == 200
    foreign = [*here, JSON, OPERATOR, ("origin", "https://evil.example")]
    assert line.ask("POST", f"{below}/admin/cache/flush", foreign, b'{"all": true, "dry_run": true}').status == 403


@pytest.mark.parametrize(("name", "below"), PLACES)
def test_an_id_with_a_slash_stays_one(line: Line, name: str, below: str) -> None:
    body = json.dumps({"model": "scripted", "messages": [{"role": "user", "content": marker()}]}).encode()
    id = f"mine/{marker()}"
    assert line.ask("POST", f"{below}{CHAT.path}", [_host(line, name), JSON, ("x-request-id", id)], body).status == 200
    heard = line.ask("GET", f"{below}/api/history/{id.replace('/', '%2F')}", [_host(line, name), OPERATOR])
    assert (heard.status, json.loads(heard.body)["request_id"]) == (200, id)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_token_nobody_operates_through_a_reverse_proxy(
    kind: str, proxy: MakeProxy, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """All that it passes on comes from this machine, wherever it was sent."""
    server = proxy(upstream.url, allowed_hosts=f"{HOST},{SITE}")
    with ReverseProxy(kind, tmp_path, server.port) as site, Line(site.port) as line, server.line() as local:
        for name, below in PLACES:
            here = [_host(line, name)]
            for path in ("/api/history", "/api/performance", "/admin/cache/groups", "/api/health"):
                heard = line.ask("GET", f"{below}{path}", here)
                assert heard.status == 403, path
                assert "LLMPROXY_ADMIN_TOKEN" in json.loads(heard.body)["error"]["message"]
                assert local.ask("GET", path).status == 200
            assert line.ask("POST", f"{below}/admin/cache/flush", [*here, JSON], b'{"all": true}').status == 403
            assert line.ask("GET", f"{below}/v1/models", here).status == 200


@pytest.mark.parametrize(
    "sign",
    [
        ("forwarded", "for=192.0.2.1"),
        ("via", "1.1 gateway"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-forwarded-host", "llm.example.com"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "192.0.2.1"),
    ],
)
def test_what_another_server_passed_on_is_not_from_this_machine(front: Proxy, sign: tuple[str, str]) -> None:
    with front.line() as line:
        assert line.ask("GET", "/api/history", [sign]).status == 403
        assert line.ask("GET", "/v1/models", [sign]).status == 200
        assert line.ask("GET", "/api/history").status == 200


def test_a_reverse_proxy_that_does_not_pass_the_name_on(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    """nginx without ``proxy_set_header Host``: the request is addressed to the proxy's own address."""
    refused, allowed, trusted, untrusted = (
        proxy(upstream.url, admin_token="open sesame", **settings)
        for settings in (
            {},
            {"allowed_hosts": HOST},
            {"trusted_proxies": "127.0.0.0/8"},
            {"trusted_proxies": "10.0.0.0/8"},
        )
    )
    page = [
        JSON,
        OPERATOR,
        ("origin", f"https://{HOST}"),
        ("sec-fetch-site", "same-origin"),
        ("x-forwarded-host", HOST),
    ]
    for server, status in ((refused, 403), (allowed, 200), (trusted, 200), (untrusted, 403)):
        with server.line() as line:
            heard = line.ask("POST", "/admin/cache/flush", page, b'{"all": true, "dry_run": true}')
        assert heard.status == status
        if status == 403:
            assert "LLMPROXY_ALLOWED_HOSTS" in json.loads(heard.body)["error"]["message"]
    forged = [*page[:4], ("x-forwarded-host", f"{HOST}, other.example")]
    with trusted.line() as line:
        # the last name is the nearest proxy's own word, those before it the client's
        assert line.ask("POST", "/admin/cache/flush", forged, b'{"all": true, "dry_run": true}').status == 403


def test_a_browser_that_is_refused_reads_why(front: Proxy) -> None:
    for path in ("/ui", "/ui/", "/"):
        with front.line() as line:
            heard = line.ask("GET", path, [("host", "llm.example.com"), ("accept", "text/html,*/*;q=0.8")])
        assert (heard.status, heard.first("content-type")) == (403, "text/html; charset=utf-8")
        assert b"<p>Requests to the host name &#x27;llm.example.com&#x27; are refused" in heard.body
        assert b"LLMPROXY_ALLOWED_HOSTS=llm.example.com" in heard.body
