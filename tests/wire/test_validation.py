"""Query parameters and Idempotency-Key, read strictly."""

from datetime import UTC, datetime
from typing import Any

import pytest

from llmproxy.wire.errors import BadRequest
from llmproxy.wire.validation import (
    idempotency_key,
    query_choice,
    query_flag,
    query_limit,
    query_newest_first,
    query_number,
    query_time,
)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("7", 7), ("007", 7), ("9999999999", 9_999_999_999)])
def test_a_number(text: str, number: int) -> None:
    assert query_number({"after": text}, "after", -1, 0) == number


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", "1e3", " 1", "1 ", "0x1", "٣", "²", "10000000000", "nan"])
def test_no_number(text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        query_number({"after": text}, "after", -1, 0)
    assert (caught.value.param, caught.value.error_code) == ("after", "invalid_value")
    assert caught.value.message == "'after' must be a number of at least 0."


def test_an_absent_number_may_be_outside_of_its_bounds() -> None:
    assert query_number({}, "after", -1, 0, 5) == -1


@pytest.mark.parametrize(("text", "allowed"), [("0", False), ("1", True), ("100", True), ("101", False)])
def test_both_bounds_belong_to_a_number(text: str, allowed: bool) -> None:
    if allowed:
        assert query_limit({"limit": text}) == int(text)
    else:
        with pytest.raises(BadRequest, match="'limit' must be a number from 1 to 100"):
            query_limit({"limit": text})


def test_a_page_has_twenty_unless_it_is_said() -> None:
    assert (query_limit({}), query_limit({}, 50, 500)) == (20, 50)
    assert query_limit({"limit": "500"}, 50, 500) == 500


@pytest.mark.parametrize(
    ("query", "default", "newest_first"),
    [({}, "asc", False), ({}, "desc", True), ({"order": "asc"}, "desc", False), ({"order": "desc"}, "asc", True)],
)
def test_order(query: dict[str, str], default: str, newest_first: bool) -> None:
    assert query_newest_first(query, default) is newest_first


@pytest.mark.parametrize("text", ["", "ASC", "newest"])
def test_no_order(text: str) -> None:
    with pytest.raises(BadRequest, match="'order' must be one of asc, desc"):
        query_newest_first({"order": text}, "asc")


def test_a_word() -> None:
    assert query_choice({}, "kind", ("a", "b")) is None
    assert query_choice({"kind": "b"}, "kind", ("a", "b")) == "b"
    with pytest.raises(BadRequest, match="'kind' must be one of a, b"):
        query_choice({"kind": "c"}, "kind", ("a", "b"))


@pytest.mark.parametrize(
    ("text", "flag"), [("true", True), ("1", True), ("True", True), ("false", False), ("0", False)]
)
def test_a_flag(text: str, flag: bool) -> None:
    assert query_flag({"stream": text}, "stream") is flag
    assert query_flag({}, "stream") is False


def test_no_flag() -> None:
    with pytest.raises(BadRequest, match="'stream' must be true or false"):
        query_flag({"stream": "yes"}, "stream")


NOON = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("0", 0.0),
        ("-1.5", -1.5),
        ("2026-01-31T12:00:00Z", NOON),
        ("2026-01-31T12:00:00", NOON),
        ("2026-01-31T13:00:00+01:00", NOON),
        ("2026-01-31T13:00:00 01:00", NOON),
        ("2026-01-31T13:00:00 0100", NOON),
        ("2026-01-31", NOON - 12 * 3600),
    ],
)
def test_a_time(text: str, moment: float) -> None:
    assert query_time({"since": text}, "since") == moment
    assert query_time({}, "since") is None


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "1e9"])
def test_no_time(text: str) -> None:
    with pytest.raises(BadRequest, match="'since' must be Unix seconds") as caught:
        query_time({"since": text}, "since")
    assert caught.value.param == "since"


@pytest.mark.parametrize("key", [b"a", b"!~", b"x" * 255])
def test_an_idempotency_key(key: bytes) -> None:
    assert idempotency_key([(b"accept", b"*/*"), (b"idempotency-key", key)]) == key.decode()


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"a b", b"\x7f", b"\xc3\xa4", b"a\n"])
def test_no_idempotency_key(key: bytes) -> None:
    with pytest.raises(BadRequest, match="1 to 255 visible ASCII characters") as caught:
        idempotency_key([(b"idempotency-key", key)])
    assert caught.value.param == "Idempotency-Key"


def test_no_idempotency_key_is_needed() -> None:
    nothing: list[Any] = []
    assert idempotency_key(nothing) is None
