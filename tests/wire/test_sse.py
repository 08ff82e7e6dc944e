"""Framing of server-sent events."""

from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.wire import sse
from llmproxy.wire.dialect import Malformed
from tests.wire.strategies import filled

CLEAN = b'data: {"a":1}\n\n'


def split(*pieces: bytes) -> list[bytes]:
    splitter = sse.SseSplitter()
    return [frame for piece in pieces for frame in splitter.feed(piece)]


def test_a_clean_frame_goes_out_as_it_came_in() -> None:
    assert split(CLEAN + b"event: x\n" + CLEAN + CLEAN) == [CLEAN, b"event: x\n" + CLEAN, CLEAN]


@pytest.mark.parametrize(
    ("stream", "frames"),
    [
        (b"data:1\n\n", [b"data: 1\n\n"]),
        (b"data: 1\r\n\r\n", [b"data: 1\n\n"]),
        (b"data: 1\r\r", [b"data: 1\n\n"]),
        (b"data: 1\r\n\n", [b"data: 1\n\n"]),
        (b"\xef\xbb\xbfdata: 1\n\n", [b"data: 1\n\n"]),
        (b"\n\ndata: 1\n\n\n\n", [b"data: 1\n\n"]),
        (b"data: [\ndata:1]\n\n", [b"data: [\ndata: 1]\n\n"]),
        (b"data: 1\nevent: x\n\n", [b"event: x\ndata: 1\n\n"]),
        (b"id: 7\nretry: 5\ndata: 1\n\n", [b"data: 1\n\n"]),
        (b": ping\ndata: 1\n\n", [b"data: 1\n\n"]),
        (b": ping\n\n:\n\nevent: ping\n\nretry: 5\n\nid: 1\n\ndata\n\ndata:\n\ndata: \n\n", []),
    ],
)
def test_what_the_format_allows_becomes_strict(stream: bytes, frames: list[bytes]) -> None:
    splitter = sse.SseSplitter()
    assert splitter.feed(stream) == frames
    assert splitter.rest() == b""


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@given(
    events=st.lists(st.tuples(st.sampled_from([b"", b"response.created"]), filled), max_size=4),
    cuts=st.lists(st.integers(0, 200)),
)
@settings(max_examples=60, deadline=None)
def test_any_cut_of_the_bytes_gives_the_same_frames(
    newline: bytes, events: list[tuple[bytes, str]], cuts: list[int]
) -> None:
    frames = [sse.frame(orjson.dumps(text), name) for name, text in events]
    stream = b"\xef\xbb\xbf" + b": ping\n\n".join(frames)
    stream = stream.replace(b"\n", newline)
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    splitter = sse.SseSplitter()
    got = [frame for start, end in pairwise(bounds) for frame in splitter.feed(stream[start:end])]
    assert got == frames
    assert splitter.rest() == b""
    assert [(sse.event(frame), orjson.loads(sse.data(frame))) for frame in got] == events


def test_an_unfinished_frame_is_the_rest() -> None:
    splitter = sse.SseSplitter()
    assert splitter.feed(CLEAN + b'data: {"b"') == [CLEAN]
    assert splitter.rest() == b'data: {"b"'
    assert splitter.feed(b":2}\n\n") == [b'data: {"b":2}\n\n']
    assert splitter.rest() == b""


@pytest.mark.parametrize(
    "tail",
    [b"proxy error: gone", b"proxy error: gone\n\n", b'{"error":{"message":"no"}}', b"<html>\n\n</html>\n\n"],
)
def test_foreign_text_is_no_frame_and_shows(tail: bytes) -> None:
    splitter = sse.SseSplitter()
    assert splitter.feed(CLEAN + tail) == [CLEAN]
    assert splitter.rest().startswith(tail[:6])


def test_foreign_text_beside_data_shows_too() -> None:
    splitter = sse.SseSplitter()
    assert splitter.feed(b"proxy error: gone\n" + CLEAN) == [CLEAN]
    assert splitter.rest() == b"proxy error: gone\n"


def test_foreign_text_is_not_kept_without_bound() -> None:
    splitter = sse.SseSplitter()
    for _ in range(100):
        splitter.feed(b"x" * 100 + b"\n\n")
    assert len(splitter.rest()) == 1024


def test_a_frame_above_the_limit_is_malformed() -> None:
    assert sse.SseSplitter(limit=len(CLEAN)).feed(CLEAN) == [CLEAN]
    with pytest.raises(Malformed):
        sse.SseSplitter(limit=len(CLEAN) - 1).feed(CLEAN)
    splitter = sse.SseSplitter(limit=10)
    assert splitter.feed(b"data: 1234") == []
    with pytest.raises(Malformed):
        splitter.feed(b"5")


def test_data_of_several_lines_is_joined() -> None:
    frame = sse.frame(b"[1,\n2]", b"x")
    assert frame == b"event: x\ndata: [1,\ndata: 2]\n\n"
    assert (sse.event(frame), sse.data(frame)) == (b"x", b"[1,\n2]")


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_more_blank_lines_than_one_say_nothing(newline: bytes) -> None:
    splitter = sse.SseSplitter()
    blank = newline * 100_000
    pieces = [b"data: 1", blank, b"data: 2" + newline, blank, blank + b"data: 3" + blank]
    assert [frame for each in pieces for frame in splitter.feed(each)] == [b"data: %d\n\n" % n for n in (1, 2, 3)]
    assert splitter.rest() == b""


@pytest.mark.parametrize("line", [b":\n", b"data\n", b"id\n"])
def test_a_frame_of_very_many_lines_without_data(line: bytes) -> None:
    splitter = sse.SseSplitter()
    assert splitter.feed(line * 500_000) == []
    assert splitter.waiting == len(line) * 500_000
    assert splitter.feed(b"\n" + CLEAN) == [CLEAN]
    assert splitter.waiting == 0
