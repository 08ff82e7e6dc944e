"""Which URLs a request may have told of its job's end."""

from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from llmproxy.config.settings import Settings
from llmproxy.jobs.webhook_urls import refusal, webhook_url_for
from llmproxy.wire.errors import BadRequest

HOSTS = ("hooks.example.com", "ci.example.com:8443", "127.0.0.1:9000", "::1", "[fe80::1]:81", "xn--bcher-kva.example")


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/told",
        "http://hooks.example.com",
        "https://hooks.example.com:443/",
        "HTTPS://Hooks.EXAMPLE.com./told?key=a%20b",
        "https://hooks.example.com?key=a",
        "https://ci.example.com:8443/a/b",
        "http://127.0.0.1:9000/",
        "http://[::1]/",
        "http://[0:0:0:0:0:0:0:1]:80/",
        "http://[FE80::1]:81/",
        "https://xn--bcher-kva.example/",
    ],
)
def test_allowed(url: str) -> None:
    assert refusal(url, HOSTS) == ""


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/",
        "https://hooks.example.com.evil.example/",
        "https://evil-hooks.example.com/",
        "https://hooks.example.com:8443/",
        "http://hooks.example.com:443/",
        "https://ci.example.com/",
        "http://127.0.0.1/",
        "http://127.1:9000/",
        "http://2130706433:9000/",
        "http://0x7f000001:9000/",
        "http://[::ffff:127.0.0.1]:9000/",
        "http://[::]/",
        "http://hooks.example.com../",
    ],
)
def test_another_host(url: str) -> None:
    assert "which is not one of those in LLMPROXY_WEBHOOK_HOSTS" in refusal(url, HOSTS)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "//hooks.example.com/",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https:hooks.example.com/",
        "https:///hooks.example.com/",
        "https://user@hooks.example.com/",
        "https://user:secret@hooks.example.com/",
        "https://hooks.example.com@evil.example/",
        "https://evil.example#@hooks.example.com/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com\\@evil.example/",
        "https://evil.example\\.hooks.example.com/",
        "https://hooks.example.com /",
        " https://hooks.example.com/",
        "https://hooks.example.com/\n",
        "https://hooks.example.com/\r\nx-evil: 1",
        "https://hooks.example.com/é",
        "https://ｈooks.example.com/",
        "https://hooks。example.com/",
        "https://bücher.example/",
        "https://hooks.example.com:/",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:65536/",
        "https://hooks.example.com:443443/",
        "https://hooks.example.com:-1/",
        "https://hooks%2eexample.com/",
        "https://./",
        "http://[::1/",
        "http://[::1%25eth0]/",
        "http://[1.2.3.4]/",
        "http://[:::]/",
        "https://hooks.example.com/" + "a" * 2048,
    ],
)
def test_no_proper_url(url: str) -> None:
    assert refusal(url, HOSTS)
    assert "LLMPROXY_WEBHOOK_HOSTS" not in refusal(url, HOSTS)


@pytest.mark.parametrize("host", ["", "*", "http://hooks.example.com", "a b", "hooks.example.com:0", "user@host", ":"])
def test_an_entry_that_is_no_host_allows_nothing(host: str) -> None:
    for url in ("https://hooks.example.com/", "https://host/", "http://a/"):
        assert refusal(url, (host,))


PIECES = st.sampled_from(
    ["good.example", "evil.example", "@", ":", "/", "\\", "?", "#", "[", "]", "::1", "80", ".", "%2e", " ", "\t", "é"]
)


URLS = st.tuples(st.lists(PIECES, max_size=1), st.just(["good.example"]), st.lists(PIECES, max_size=4)).map(
    lambda parts: "http://" + "".join(piece for part in parts for piece in part)
)


@settings(max_examples=400, deadline=None)
@given(URLS)
@example("http://good.example\\@evil.example")
@example("http://good.example:80@evil.example")
def test_every_parser_sees_the_host_that_was_allowed(url: str) -> None:
    if refusal(url, ("good.example",)):
        return
    for host in (urlsplit(url).hostname, httpx.URL(url).host, URL(url).host):
        assert (host or "").rstrip(".") == "good.example"
    assert (urlsplit(url).port or 80, httpx.URL(url).port or 80, URL(url).port) == (80, 80, 80)
    assert not httpx.URL(url).userinfo


def test_what_is_told_of_a_job() -> None:
    own = Settings(webhook_url="http://10.0.0.1/all", webhook_hosts=("hooks.example.com",))
    assert webhook_url_for("", Settings()) == ""
    assert webhook_url_for("", own) == "http://10.0.0.1/all"
    assert webhook_url_for("https://hooks.example.com/mine", own) == "https://hooks.example.com/mine"
    # the operator's own URL opens nothing to others
    for url in ("http://10.0.0.1/all", "https://hooks.example.com/mine"):
        with pytest.raises(BadRequest, match="LLMPROXY_WEBHOOK_HOSTS"):
            webhook_url_for(url, Settings(webhook_url="http://10.0.0.1/all"))
