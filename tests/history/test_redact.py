import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.history.record import REDACTED, Redactor

MAIL = Redactor([r"[\w.+-]+@[\w-]+(\.\w+)+"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b'{"a": "bob@example.com"}', b'{"a": "[redacted]"}'),
        (b'{"a":"to bob@example.com, ann@x.org!" , "n": 1.50}', b'{"a":"to [redacted], [redacted]!" , "n": 1.50}'),
        (b'{"a": "line\\nbob@example.com\\tend"}', b'{"a": "line\\n[redacted]\\tend"}'),
        (b'{"a": "\\u0062ob@example.com"}', b'{"a": "[redacted]"}'),
        (b'{"bob@example.com": 1}', b'{"[redacted]": 1}'),
        (b'{"a": "no mail here", "b": "\\u00e9"}', b'{"a": "no mail here", "b": "\\u00e9"}'),
        (b'{"cut": "bob@example.c', b'{"cut": "[redacted]'),
        (b'{"cut": "nothing \\u00', b'{"cut": "nothing \\u00'),
        (b"plain text of bob@example.com.", b"plain text of [redacted]."),
        (b"\xff\x00 bob@example.com", b"\xff\x00 [redacted]"),
        (b"", b""),
    ],
)
def test_what_is_removed_and_what_stays(body: bytes, kept: bytes) -> None:
    assert MAIL.redacted(body) == kept


def test_numbers_are_searched_as_they_are_written() -> None:
    cards = Redactor([r"\b\d{16}\b"])
    assert cards.redacted(b'{"card": 4111111111111111, "n": -12.5}') == b'{"card": "[redacted]", "n": -12.5}'


def test_each_pattern_applies_to_what_the_one_before_left() -> None:
    assert Redactor(["a+", r"\[redacted\]b"]).redacted(b'["aab", "ac"]') == b'["[redacted]", "[redacted]c"]'


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_a_document_without_a_match_stays_as_it_is(value: Any) -> None:
    body = json.dumps([value]).encode()
    assert Redactor(["no such text anywhere"]).redacted(body) == body


@given(st.lists(st.text(), max_size=5), st.booleans())
@settings(max_examples=200, deadline=None)
def test_what_is_left_is_a_document_without_a_match(texts: list[str], ascii: bool) -> None:
    body = json.dumps([f"{text}secret{text}" for text in texts], ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    left = json.loads(Redactor(["secret"]).redacted(body).decode("utf-8", "surrogatepass"))
    wanted = [f"{text}secret{text}".replace("secret", REDACTED) for text in texts]
    assert left == wanted or any("\ud800" <= each <= "\udfff" for text in texts for each in text)


def test_long_data_is_searched_in_pieces() -> None:
    """A pattern whose work grows with the square of a run ends soon on data, and still finds what is in texts."""
    data = "A" * 200_000
    body = json.dumps({"image": f"data:image/png;base64,{data}", "text": "bob@example.com"}).encode()
    assert json.loads(MAIL.redacted(body))["text"] == REDACTED


def test_a_match_at_the_border_of_two_pieces_is_found() -> None:
    secrets = Redactor([r"\bkey-[0-9a-f]{40}\b"])
    for before in range(940, 1_010):
        data = f"{'A' * before}+key-{'0123456789' * 4}+{'B' * 2_000}"
        assert secrets.redacted(data.encode()) == f"{'A' * before}+{REDACTED}+{'B' * 2_000}".encode()


@pytest.mark.parametrize("length", [900, 1_000, 1_200, 1_201, 5_000])
def test_data_that_a_match_begins_with_words_before_goes_as_a_whole(length: int) -> None:
    token = "e" * length
    assert Redactor([r"Bearer [\w.-]+"]).text(f"say Bearer {token}.{token}, please") == f"say {REDACTED}, please"


def test_a_pattern_that_matches_between_characters_ends() -> None:
    assert Redactor(["(?=b)"]).text("abcb") == f"a{REDACTED}bc{REDACTED}b"


@pytest.mark.parametrize("before", ["\ufeff", " " * 100, "\ufeff" + "\n" * 100], ids=["mark", "spaces", "both"])
def test_a_document_is_one_whatever_stands_before_it(before: str) -> None:
    kept = MAIL.redacted(before.encode() + rb'{"a": "bob\u0040example.com"}')
    assert b"example" not in kept
