"""What a browser gets at ``/``, and that programs get what the model server has there."""

from collections.abc import Iterator

import pytest

from tests.conftest import MakeProxy
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Heard, Line, Proxy

BROWSER = [("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")]


@pytest.fixture
def line(front: Proxy) -> Iterator[Line]:
    with front.line() as line:
        yield line


def is_page(heard: Heard) -> bool:
    return heard.first("content-type") == "text/html; charset=utf-8" and b"llmproxy" in heard.body


def test_a_browser_gets_a_page_with_links_and_what_to_paste(front: Proxy, line: Line) -> None:
    heard = line.ask("GET", "/", BROWSER)
    assert heard.status == 200
    assert is_page(heard)
    assert f"export OPENAI_BASE_URL=http://127.0.0.1:{front.port}/v1".encode() in heard.body
    for link in ("ui", "health", "?upstream"):
        assert f'href="{link}"'.encode() in heard.body
    assert "script" not in str(heard.first("content-security-policy"))


def test_the_links_lead_somewhere(line: Line) -> None:
    for path in ("/ui", "/ui/icon.svg", "/v1/models", "/ready", "/health", "/metrics"):
        assert line.ask("GET", path, BROWSER).status == 200, path


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", "/", []),
        ("GET", "/", [("accept", "*/*")]),
        ("GET", "/?upstream", BROWSER),
        ("POST", "/", BROWSER),
    ],
)
def test_everything_else_is_the_model_servers(
    upstream: ScriptedUpstream, line: Line, method: str, target: str, headers: list[tuple[str, str]]
) -> None:
    heard = line.ask(method, target, headers)
    assert not is_page(heard)
    assert b'"target"' in heard.body


def test_a_name_of_the_host_cannot_write_into_the_page(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own = proxy(upstream.url, allowed_hosts="*")
    with own.line() as line:
        heard = line.ask("GET", "/", [*BROWSER, ("host", 'a"<b>')])
    assert b"<b>" not in heard.body


def test_the_page_of_requests_can_be_the_first(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own = proxy(upstream.url, root="ui")
    with own.line() as line:
        heard = line.ask("GET", "/", BROWSER)
        assert (heard.status, heard.first("location")) == (307, "ui")
        assert line.ask("GET", "/ui", BROWSER).status == 200
        assert not is_page(line.ask("GET", "/"))


def test_the_model_servers_page_can_be_the_first(proxy: MakeProxy, upstream: ScriptedUpstream) -> None:
    own = proxy(upstream.url, root="upstream")
    with own.line() as line:
        assert not is_page(line.ask("GET", "/", BROWSER))
