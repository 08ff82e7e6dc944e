"""Lines cut out of pieces: the same however the pieces fall."""

from collections.abc import Iterator
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.jobs.blobs import split_lines

TEXT = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b"\r", b"{}", b"\xc3\xa9"]), max_size=40).map(b"".join)


def pieces_of(text: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(min(at, len(text)) for at in cuts), len(text)]
    return (text[start:end] for start, end in pairwise(edges))


def lines_of(text: bytes) -> list[bytes]:
    lines = text.split(b"\n")
    if lines[-1].removesuffix(b"\r") == b"":
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]


@given(TEXT, st.lists(st.integers(0, 80), max_size=8), st.integers(1, 4))
@settings(max_examples=200)
def test_lines_do_not_depend_on_the_pieces(text: bytes, cuts: list[int], most: int) -> None:
    groups = list(split_lines(pieces_of(text, cuts), most))
    assert all(0 < len(group) <= most for group in groups)
    assert [line for group in groups for line in group] == lines_of(text)


@given(TEXT, st.lists(st.integers(0, 80), max_size=8), st.integers(2, 6))
@settings(max_examples=100)
def test_of_a_long_line_the_rest_is_left_out(text: bytes, cuts: list[int], longest: int) -> None:
    found = [line for group in split_lines(pieces_of(text, cuts), longest=longest) for line in group]
    whole = text.split(b"\n")
    assert len(found) >= len(lines_of(text)) - 1
    for line, original in zip(found, whole, strict=False):
        assert line == original[:longest].removesuffix(b"\r")


def test_empty_lines_are_lines_but_for_the_last() -> None:
    assert list(split_lines([b"\n\na\n"])) == [[b"", b"", b"a"]]
    assert list(split_lines([b""])) == []
    assert list(split_lines([])) == []
