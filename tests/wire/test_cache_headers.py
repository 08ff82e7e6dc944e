"""Request headers as directives."""

import math

import pytest

from llmproxy.wire.cache_headers import PLAIN, Directives, parse_directives
from llmproxy.wire.errors import BadRequest


def read(**headers: str) -> Directives:
    return parse_directives([(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()])


def test_a_request_that_says_nothing_is_plain() -> None:
    assert read(accept="*/*", authorization="Bearer x") is PLAIN


@pytest.mark.parametrize(
    ("value", "directives"),
    [
        ("no-cache", Directives(no_cache=True)),
        ("No-Store", Directives(no_store=True)),
        ("only-if-cached", Directives(only_if_cached=True)),
        ("max-age=60", Directives(max_age=60)),
        ('max-age="60"', Directives(max_age=60)),
        ("min-fresh=5, max-stale=7", Directives(min_fresh=5, max_stale=7)),
        ("max-stale", Directives(max_stale=math.inf)),
        ("stale-if-error=30", Directives(stale_if_error=30)),
        ("max-age=soon, private, foo=bar", Directives()),
    ],
)
def test_cache_control(value: str, directives: Directives) -> None:
    assert read(cache_control=value) == directives


def test_repeated_headers_add_up() -> None:
    lines = [(b"cache-control", b"no-cache"), (b"cache-control", b"max-age=1")]
    assert parse_directives(lines) == Directives(no_cache=True, max_age=1)


def test_the_proxys_own_headers() -> None:
    directives = read(
        x_llmproxy_ttl="1.5",
        x_llmproxy_namespace="evals",
        x_llmproxy_tags="a, b,a",
        x_llmproxy_session="s",
        x_llmproxy_user="u",
        x_llmproxy_replay="paced",
        x_llmproxy_single_flight="off",
    )
    assert directives == Directives(
        ttl=1.5, namespace="evals", tags=("a", "b"), session="s", user="u", paced=True, single_flight=False
    )
    assert directives.opts_in


@pytest.mark.parametrize("value", ["soon", "-1", "0", "nan", "inf", ""])
def test_a_lifetime_must_be_a_positive_number(value: str) -> None:
    with pytest.raises(BadRequest, match="X-LLMProxy-TTL"):
        read(x_llmproxy_ttl=value)


def test_malformed_headers_of_ours_are_refused() -> None:
    with pytest.raises(BadRequest):
        read(x_llmproxy_namespace="n" * 129)
    with pytest.raises(BadRequest):
        read(x_llmproxy_namespace="a\x01b")
    with pytest.raises(BadRequest):
        read(x_llmproxy_tags=",".join(map(str, range(33))))
    with pytest.raises(BadRequest):
        read(x_llmproxy_replay="slowly")
    with pytest.raises(BadRequest):
        read(x_llmproxy_single_flight="maybe")


def test_an_unknown_header_of_ours_is_ignored() -> None:
    assert read(x_llmproxy_inputs="hit=1") == PLAIN


def test_digits_of_other_scripts_are_no_numbers() -> None:
    assert parse_directives([(b"cache-control", "max-age=²".encode("latin-1"))]) == PLAIN


def test_names_that_are_not_utf_8_are_told_apart() -> None:
    one, other = ("café".encode("latin-1"), "cafè".encode("latin-1"))
    assert parse_directives([(b"x-llmproxy-namespace", one)]) != parse_directives([(b"x-llmproxy-namespace", other)])


def test_tags_in_several_lines_are_one_list() -> None:
    assert parse_directives([(b"x-llmproxy-tags", b"a, b"), (b"x-llmproxy-tags", b"b,c")]).tags == ("a", "b", "c")


def test_identical_requests_share_a_call_unless_they_say_otherwise() -> None:
    assert PLAIN.single_flight is True
    assert parse_directives([(b"x-llmproxy-single-flight", b"on")]).single_flight is True
    assert parse_directives([(b"x-llmproxy-single-flight", b"off")]).single_flight is False
