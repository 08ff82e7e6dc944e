"""JSON of answers: strict and lenient, their errors, their tokens."""

import math
from typing import Any

import pytest

from llmproxy.wire.documents import dump, dump_leniently, error_message, is_json, peek, read_leniently, tokens
from llmproxy.wire.exchange import Usage


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"p": 3, "c": 0}, Usage(3, 0)),
        ({"p": 3}, Usage(3, None)),
        ({"p": -1, "c": 2**31}, Usage(None, None)),
        ({"p": 2**31 - 1, "c": 2**64 - 1}, Usage(2**31 - 1, None)),
        ({"p": "3", "c": 1.5}, Usage(None, None)),
        (None, Usage(None, None)),
        ([], Usage(None, None)),
    ],
    ids=["both", "one", "below and above", "most", "other types", "none", "a list"],
)
def test_tokens(usage: object, expected: Usage) -> None:
    assert tokens(usage, "p", "c") == expected


@pytest.mark.parametrize(
    ("data", "document"),
    [
        (b'{"a":1}', {"a": 1}),
        (b' {"a":"\\ud800"}', {"a": "\ud800"}),
        (b'{"a":"\x01\n"}', {"a": "\x01\n"}),
        (b'{"a":"\xff"}', {"a": "\ufffd"}),
        (b'{"a":Infinity}', {"a": math.inf}),
        (b"[NaN]", None),
        (b"[DONE]", None),
        (b'{"a"', None),
        (b'{"a":' + b"[" * 100_000, None),
        (b"", None),
    ],
)
def test_an_object_is_read_as_many_clients_read_it(data: bytes, document: Any) -> None:
    assert read_leniently(data) == document


@pytest.mark.parametrize(
    ("data", "is_some"),
    [
        (b"{}", True),
        (b"[NaN]", True),
        (b"7", True),
        (b"\xef\xbb\xbf{}", True),
        (b"[" * 100_000, True),
        (b"[DONE]", False),
        (b"", False),
        (b"x" * (1024 * 1024 + 1), True),
        (b"x" * 1024 * 1024, False),
    ],
)
def test_whether_there_is_any_json(data: bytes, is_some: bool) -> None:
    assert is_json(data) is is_some


def test_a_large_body_is_read_strictly_only() -> None:
    padding = b" " * 1024 * 1024
    assert read_leniently(padding + b'{"a":1}') == {"a": 1}
    assert read_leniently(padding + b'{"a":NaN}') is None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"message": "no", "code": 1}, "no"),
        ({"message": ""}, '{"message":""}'),
        ({"message": 7}, '{"message":7}'),
        ("no", "no"),
        ("", ""),
        (["a"], '["a"]'),
        (None, "null"),
    ],
)
def test_the_text_of_an_error(error: object, message: str) -> None:
    assert error_message(error) == message


def test_what_was_read_can_be_written() -> None:
    assert dump({"a": 1}) == b'{"a":1}'
    assert dump({"a": "\ud800"}) == b'{"a": "\\ud800"}'
    assert dump_leniently({"a": math.inf}) == b'{"a": Infinity}'
    assert peek(b"[]") is None
