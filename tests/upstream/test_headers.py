"""Which headers pass."""

import pytest

from llmproxy.upstream.headers import Peer, answer_headers, end_to_end, forwarded, kept_headers, relayed
from llmproxy.wire.errors import BadRequest
from tests.upstream.configured import configured

OPEN = configured()
EVER = [(b"accept-encoding", b"identity"), (b"via", b"1.1 llmproxy")]


def test_what_the_model_server_may_want_passes_in_order() -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"authorization", b"Bearer mine"),
        (b"openai-beta", b"a"),
        (b"openai-beta", b"b"),
        (b"idempotency-key", b"7"),
        (b"user-agent", b"OpenAI/Python"),
    ]
    assert forwarded(headers, OPEN) == headers + EVER


@pytest.mark.parametrize(
    "name",
    [
        "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding",
        "upgrade accept-encoding age cache-control cookie expect forwarded host origin x-conversation-id",
        "x-forwarded-for x-forwarded-host x-forwarded-proto x-llmproxy-namespace x-llmproxy-anything",
        "content-length content-encoding x-real-ip",
    ],
)
def test_what_is_not_for_the_model_server_is_dropped(name: str) -> None:
    assert forwarded([(word.encode(), b"x") for word in name.split()], OPEN) == EVER


def test_headers_that_connection_names_are_dropped() -> None:
    headers = [(b"connection", b"close, X-Hop"), (b"x-hop", b"1"), (b"connection", b"x-two"), (b"x-two", b"2")]
    assert forwarded(headers, OPEN) == EVER


def test_what_is_passed_keeps_what_is_between_client_and_server() -> None:
    headers = [
        (b"content-length", b"7"),
        (b"content-encoding", b"gzip"),
        (b"accept-encoding", b"gzip, br"),
        (b"cache-control", b"max-age=0"),
        (b"if-none-match", b'"a"'),
        (b"range", b"bytes=0-1"),
        (b"x-conversation-id", b"c"),
    ]
    assert forwarded(headers, OPEN, passed=True) == [*headers, (b"via", b"1.1 llmproxy")]


def test_no_coding_is_asked_for_where_the_client_asks_for_none() -> None:
    assert forwarded([], OPEN, passed=True) == [(b"via", b"1.1 llmproxy")]


@pytest.mark.parametrize("name", ["cookie", "host", "origin", "expect", "te", "x-llmproxy-ttl", "x-forwarded-for"])
def test_what_is_passed_has_nothing_of_the_connection_or_the_proxy(name: str) -> None:
    assert forwarded([(name.encode(), b"x")], OPEN, passed=True) == [(b"via", b"1.1 llmproxy")]


def test_the_way_so_far_is_kept() -> None:
    assert (b"via", b"1.1 a, 1.0 b (x), 1.1 llmproxy") in forwarded([(b"via", b"1.1 a"), (b"via", b"1.0 b (x)")], OPEN)


@pytest.mark.parametrize("via", [b"1.1 llmproxy", b"1.1 a, 1.1 llmproxy (x),1.1 b", b"HTTP/2 llmproxy"])
def test_a_request_that_was_here_before_is_refused(via: bytes) -> None:
    with pytest.raises(BadRequest, match="LLMPROXY_UPSTREAM"):
        forwarded([(b"via", b"1.1 x"), (b"via", via)], OPEN)


def test_a_via_without_a_name_is_no_loop() -> None:
    assert (b"via", b"llmproxy, 1.1 llmproxy") in forwarded([(b"via", b"llmproxy,")], OPEN)


CREDENTIALS = [(b"authorization", b"Bearer mine"), (b"x-api-key", b"mine"), (b"api-key", b"mine")]


def test_the_callers_credentials_are_the_model_servers_where_the_proxy_has_none() -> None:
    assert forwarded(CREDENTIALS, OPEN) == CREDENTIALS + EVER


def test_keys_of_the_proxy_stay_here() -> None:
    assert forwarded(CREDENTIALS, configured(api_keys=("mine",))) == EVER


def test_the_upstreams_key_takes_their_place() -> None:
    own = configured(upstream_api_key="sk-up", api_keys=("mine",))
    assert forwarded(CREDENTIALS, own) == [*EVER, (b"authorization", b"Bearer sk-up")]


def test_where_the_request_came_from_is_said_by_us_alone() -> None:
    headers = [(b"host", b"llm.lan:4141"), (b"x-forwarded-for", b"6.6.6.6")]
    assert forwarded(headers, OPEN, Peer("10.0.0.7", "https"))[-3:] == [
        (b"x-forwarded-for", b"10.0.0.7"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"llm.lan:4141"),
    ]


def test_an_answers_names_are_lower_case_and_its_hops_are_dropped() -> None:
    headers = [
        (b"X-A", b"1"),
        (b"Connection", b"X-Hop"),
        (b"X-Hop", b"1"),
        (b"Keep-Alive", b"timeout=5"),
        (b"x-a", b"2"),
    ]
    assert end_to_end(headers) == [(b"x-a", b"1"), (b"x-a", b"2")]


def test_the_upstreams_cors_server_and_date_do_not_pass() -> None:
    headers = [
        (b"server", b"llama.cpp"),
        (b"date", b"now"),
        (b"access-control-allow-origin", b""),
        (b"access-control-allow-credentials", b"true"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"content-length", b"3"),
    ]
    assert relayed(headers) == headers[4:]


def test_an_answer_of_the_proxys_keeps_what_does_not_describe_the_upstreams_body() -> None:
    kept = [
        (b"x-ratelimit-remaining-requests", b"9"),
        (b"openai-processing-ms", b"12"),
        (b"request-id", b"r"),
        (b"set-cookie", b"a"),
        (b"cache-status", b"Edge; hit"),
    ]
    body = "content-type content-length content-encoding etag last-modified cache-control age expires x-cache server"
    assert answer_headers([*((name.encode(), b"1") for name in body.split()), *kept]) == kept


def test_hardly_anything_is_stored() -> None:
    headers = [(b"openai-version", b"1"), (b"set-cookie", b"a"), (b"x-request-id", b"r"), (b"content-type", b"a/b")]
    assert kept_headers(headers) == [(b"openai-version", b"1")]
