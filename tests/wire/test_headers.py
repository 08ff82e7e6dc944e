"""Header fields that can be sent, secrets, Retry-After."""

import pytest

from llmproxy.wire.headers import (
    bearer_tokens,
    content_type,
    credentials,
    fingerprint,
    media_type,
    retry_after,
    retry_after_seconds,
    sendable,
)

#: 1970-01-01T00:01:40Z
NOW = 100.0


def test_what_cannot_be_sent_is_left_out() -> None:
    fields = [(b"x-a", b"1"), (b"", b"2"), (b"x b", b"3"), (b"x-c", b"4\r\n"), (b"x-d", b"\x7f"), (b"x-e", b"\t\xe4 5")]
    assert sendable(fields) == [(b"x-a", b"1"), (b"x-e", b"\t\xe4 5")]


def test_secrets_are_found_in_every_header_that_holds_one() -> None:
    headers = [
        (b"authorization", b"Bearer  one "),
        (b"x-api-key", b"two"),
        (b"api-key", b"one"),
        (b"x-goog-api-key", b" "),
        (b"cookie", b"three"),
        (b"authorization", b"Basic four"),
    ]
    assert credentials(headers) == [b"one", b"two", b"Basic four"]


def test_only_bearer_tokens_are_tokens() -> None:
    headers = [(b"authorization", b"bearer one"), (b"authorization", b"Basic two"), (b"x-api-key", b"three")]
    assert bearer_tokens(headers) == [b"one", b""]


def test_several_secrets_are_another_caller_than_each_and_have_no_order() -> None:
    assert fingerprint([b"a", b"b"]) == fingerprint([b"b", b"a"])
    assert len({fingerprint([b"a", b"b"]), fingerprint([b"a"]), fingerprint([b"b"]), fingerprint([])}) == 4


def test_what_is_written_is_read() -> None:
    assert retry_after(7) == (b"retry-after", b"7")
    assert retry_after_seconds([retry_after(7)], NOW) == 7.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1.5", 1.5),
        (b"0.5", 0.5),
        (b" 3 ", 3.0),
        (b"0", 0.0),
        (b"99999999999999999999", 1e20),
        (b"Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        (b"Thu, 01 Jan 1970 00:02:00 -0000", 20.0),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        (b"Thu, 01 Jan 99999 00:00:00 GMT", 0.0),
        (b"soon", 0.0),
        (b"-5", 0.0),
        (b"inf", 0.0),
        (b"nan", 0.0),
        (b"\xb2", 0.0),
        (b"", 0.0),
    ],
)
def test_retry_after(value: bytes, seconds: float) -> None:
    assert retry_after_seconds([(b"retry-after", value)], NOW) == seconds


@pytest.mark.parametrize(("milliseconds", "seconds"), [(b"1500", 1.5), (b"soon", 7.0), (b"0", 7.0), (b"", 7.0)])
def test_milliseconds_come_first(milliseconds: bytes, seconds: float) -> None:
    assert retry_after_seconds([(b"retry-after", b"7"), (b"retry-after-ms", milliseconds)], NOW) == seconds


def test_nothing_is_asked_for() -> None:
    assert retry_after_seconds([(b"x-retry", b"7")], NOW) == 0.0


def test_the_content_type() -> None:
    assert (
        content_type([(b"accept", b"*/*"), (b"content-type", b"text/plain"), (b"content-type", b"b")]) == b"text/plain"
    )
    assert content_type([(b"accept", b"*/*")]) == b""


@pytest.mark.parametrize("value", [b"text/plain", b"Text/PLAIN; charset=utf-8", b" text/plain ;x=;y", b"text/plain;"])
def test_the_media_type_is_the_content_type_without_parameters(value: bytes) -> None:
    assert media_type(value) == b"text/plain"
    assert media_type(b"") == b""
