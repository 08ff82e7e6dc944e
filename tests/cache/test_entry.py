"""What is packed comes back, and what was harmed does not."""

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.cache.entry import FORMAT, Broken, Entry, Packer, Unpacker, Unstorable, tag_text
from tests.cache.entries import entry, streamed

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)
tags = st.lists(words.filter(lambda word: "\n" not in word), max_size=4).map(tuple)
seconds = st.floats(allow_nan=False, allow_infinity=False)
tokens = st.none() | st.integers(0, 2**40)
names = st.from_regex(rb"\A[a-z][a-z0-9-]{0,19}\Z")
values = st.binary(max_size=20).map(lambda value: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"", value))
headers = st.lists(st.tuples(names, values), max_size=3).map(tuple)

entries = st.builds(
    Entry,
    key=st.binary(min_size=32, max_size=32),
    operation=words,
    model=words,
    scope=words,
    namespace=words,
    tags=tags,
    created=seconds,
    expires=seconds,
    document=st.binary(max_size=3000),
    frames=st.binary(max_size=3000),
    ends=st.binary(max_size=40),
    millis=st.binary(max_size=40),
    hidden=st.binary(max_size=40),
    headers=headers,
    upstream_seconds=seconds,
    prompt_tokens=tokens,
    completion_tokens=tokens,
)


@settings(max_examples=300, deadline=None)
@given(entries, st.sampled_from([0, 1000, 10**9]))
def test_unpacking_is_the_inverse_of_packing(original: Entry, compress_from: int) -> None:
    assert Unpacker().unpack(Packer(compress_from).pack(original)) == original


def test_headers_that_cannot_be_sent_are_not_unpacked() -> None:
    """An earlier version kept them."""
    kept = (b"openai-model", b"m")
    packed = Packer(0).pack(replace(entry(1), headers=((b"openai-version", b"a\x01"), (b"a b", b"c"), kept)))
    assert Unpacker().unpack(packed).headers == (kept,)


@pytest.mark.parametrize("compress_from", [0, 10**9])
@pytest.mark.parametrize("name", ["key", "digest", "body"])
def test_any_changed_byte_is_noticed(name: str, compress_from: int) -> None:
    packed = Packer(compress_from).pack(streamed(1, size=50))
    whole: bytes = getattr(packed, name)
    for position in range(len(whole)):
        harmed = bytearray(whole)
        harmed[position] ^= 1 << position % 8
        fields: dict[str, Any] = {name: bytes(harmed)}
        with pytest.raises(Broken):
            Unpacker().unpack(replace(packed, **fields))


@pytest.mark.parametrize("cut", [0, 1, 10, -1])
def test_a_shortened_body_is_noticed(cut: int) -> None:
    packed = Packer(0).pack(streamed(1))
    with pytest.raises(Broken):
        Unpacker().unpack(replace(packed, body=packed.body[:cut]))


def test_another_format_is_not_read() -> None:
    packed = Packer(0).pack(entry(1))
    with pytest.raises(Broken):
        Unpacker().unpack(replace(packed, format=FORMAT + 1))


def test_only_bodies_from_the_threshold_on_are_compressed() -> None:
    size = len(Packer(10**9).pack(streamed(1)).body) - 1
    assert b"x" * 50 in Packer(size + 1).pack(streamed(1)).body
    assert b"x" * 50 not in Packer(size).pack(streamed(1)).body
    assert len(Packer(size).pack(streamed(1)).body) < size / 2


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "nul\0"},
        {"model": "half \ud83d"},
        {"namespace": "x" * 513},
        {"scope": "é" * 257},
        {"tags": ("a\nb",)},
        {"tags": tuple("x" * 99 for _ in range(11))},
    ],
)
def test_what_databases_refuse_is_refused_before(fields: dict[str, object]) -> None:
    with pytest.raises(Unstorable):
        Packer(0).pack(entry(1, **fields))


@given(tags)
def test_every_tag_is_found_among_others(some: tuple[str, ...]) -> None:
    assert all(tag_text([tag]) in tag_text(some) for tag in some)


def test_a_tag_is_not_found_inside_another() -> None:
    assert tag_text(["red"]) not in tag_text(["tired", "reds"])
