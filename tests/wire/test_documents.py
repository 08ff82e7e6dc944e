"""Tokens that an upstream says it counted."""

import pytest

from llmproxy.wire.documents import tokens
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
