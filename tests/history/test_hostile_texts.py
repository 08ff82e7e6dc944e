"""Texts that strangers choose cost the history no more than their length."""

import sys
import unicodedata
from collections.abc import Callable

import pytest

from llmproxy.history.detail import preview, preview_of_pieces
from llmproxy.history.explain import leaves
from llmproxy.history.json_diff import differences
from llmproxy.history.record import Redactor
from llmproxy.history.text_index import _STACK, compatible, words_of

#: of one kind each; what is quadratic takes minutes for so many
MANY = 120_000


@pytest.mark.parametrize("depth", [10, 300, 1000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"content":', b"}"), (b'{"text":', b"}")])
def test_no_nesting_is_too_deep_for_a_preview(depth: int, opening: bytes, closing: bytes) -> None:
    body = b'{"messages":[{"role":"user","content":' + opening * depth + b'"hello"' + closing * depth + b"}]}"
    assert preview(body) == ("hello" if depth == 10 else "")


@pytest.mark.parametrize(
    "body",
    [
        b'{"input":' + b" " * MANY,
        b'{"prompt" :' + b" \n" * MANY + b"[" + b" " * MANY,
        b'"role":"user"' * (MANY // 10) + b'"content"',
        b'"role":"user","content":"' + b"\\u0041" * MANY,
        b'"content":"' * (MANY // 10) + b'"role":"user"',
    ],
)
def test_previews_of_cut_bodies(body: bytes) -> None:
    preview_of_pieces(body)


@pytest.mark.parametrize("signs", ["\u0301\u0323", "\uff9e\u0301", "\u0345\u0301", "\u3099\u0301\u0323"])
def test_signs_that_have_to_be_put_in_order(signs: str) -> None:
    assert words_of("caf\u0065\u0301 a" + signs * MANY)[0] == "caf\u00e9"


def test_every_sign_that_has_an_order_is_one_of_those_that_are_parted() -> None:
    for code in range(sys.maxunicode + 1):
        sign = chr(code)
        if unicodedata.combining(unicodedata.normalize("NFKD", sign)[0]):
            assert _STACK.fullmatch(sign * 30), hex(code)


@pytest.mark.parametrize("text", ["\u0e01\u0e33", "e" + "\u0301" * 20, "\u1e9b\u0323", "\uac00", "\ufb01", "plain"])
def test_what_people_write_is_not_parted(text: str) -> None:
    assert compatible(text) == unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize("pattern", [r"[\w.+-]+@[\w-]+\.\w+", r"sk-[A-Za-z0-9]{20,}", r"\d{13,16}x"])
@pytest.mark.parametrize("piece", ["a", "a.", "1-", "+", "\u00fc.", '\\"', "/"])
def test_patterns_on_long_runs(pattern: str, piece: str) -> None:
    redactor = Redactor([pattern])
    text = piece * MANY + " me@example.org"
    assert redactor.text(text).startswith(piece * 10)


def leaf_bytes(fields: dict[str, object]) -> int:
    return sum(len(path) + len(leaf) for path, leaf in leaves(fields))


def difference_bytes(fields: dict[str, object]) -> int:
    return sum(len(each.path) for each in differences(fields, {name: [] for name in fields}))


@pytest.mark.parametrize("measured", [leaf_bytes, difference_bytes])
def test_a_long_name_is_not_repeated_for_each_of_its_items(measured: Callable[[dict[str, object]], int]) -> None:
    assert measured({"n" * MANY: [0] * 10_000}) < 20_000_000
    deep: object = 0
    for number in range(200):
        deep = {"n" * 500: deep, str(number): [0] * 50}
    assert measured({"deep": deep}) < 20_000_000
