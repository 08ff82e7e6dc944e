"""Framing of newline-delimited JSON."""

from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.wire.dialect import Malformed
from llmproxy.wire.ndjson import NdjsonSplitter
from tests.wire.strategies import texts


@given(
    words=st.lists(texts, max_size=4),
    cuts=st.lists(st.integers(0, 200)),
    newline=st.sampled_from([b"\n", b"\r\n"]),
)
@settings(max_examples=100, deadline=None)
def test_any_cut_of_the_bytes_gives_the_same_lines(words: list[str], cuts: list[int], newline: bytes) -> None:
    lines = [orjson.dumps({"response": word}) + b"\n" for word in words]
    stream = b"\n".join(lines).replace(b"\n", newline)
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    splitter = NdjsonSplitter()
    got = [line for start, end in pairwise(bounds) for line in splitter.feed(stream[start:end])]
    assert got == lines
    assert splitter.rest() == b""


def test_what_is_no_line_of_json_is_the_rest() -> None:
    splitter = NdjsonSplitter()
    assert splitter.feed(b'{"a":1}\n404 page not found\n{"b"') == [b'{"a":1}\n']
    assert splitter.rest() == b'404 page not found\n{"b"'


def test_a_line_above_the_limit_is_malformed() -> None:
    line = b'{"a":1}\n'
    assert NdjsonSplitter(limit=8).feed(line) == [line]
    with pytest.raises(Malformed):
        NdjsonSplitter(limit=7).feed(line)
    splitter = NdjsonSplitter(limit=4)
    assert splitter.feed(b'{"a"') == []
    with pytest.raises(Malformed):
        splitter.feed(b":")
