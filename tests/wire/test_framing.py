"""Framing of server-sent events and of NDJSON, and which of them an answer is."""

from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.wire.documents import Malformed
from llmproxy.wire.framing import NDJSON, SSE, NdjsonSplitter, SseSplitter, is_stream, sse_data, sse_event, sse_frame
from tests.wire.strategies import filled, texts

CLEAN = b'data: {"a":1}\n\n'


def split(*pieces: bytes) -> list[bytes]:
    splitter = SseSplitter()
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
    splitter = SseSplitter()
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
    frames = [sse_frame(orjson.dumps(text), name) for name, text in events]
    stream = b"\xef\xbb\xbf" + b": ping\n\n".join(frames)
    stream = stream.replace(b"\n", newline)
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    splitter = SseSplitter()
    got = [frame for start, end in pairwise(bounds) for frame in splitter.feed(stream[start:end])]
    assert got == frames
    assert splitter.rest() == b""
    assert [(sse_event(frame), orjson.loads(sse_data(frame))) for frame in got] == events


def test_an_unfinished_frame_is_the_rest() -> None:
    splitter = SseSplitter()
    assert splitter.feed(CLEAN + b'data: {"b"') == [CLEAN]
    assert splitter.rest() == b'data: {"b"'
    assert splitter.feed(b":2}\n\n") == [b'data: {"b":2}\n\n']
    assert splitter.rest() == b""


@pytest.mark.parametrize(
    "tail",
    [b"proxy error: gone", b"proxy error: gone\n\n", b'{"error":{"message":"no"}}', b"<html>\n\n</html>\n\n"],
)
def test_foreign_text_is_no_frame_and_shows(tail: bytes) -> None:
    splitter = SseSplitter()
    assert splitter.feed(CLEAN + tail) == [CLEAN]
    assert splitter.rest().startswith(tail[:6])


def test_foreign_text_beside_data_shows_too() -> None:
    splitter = SseSplitter()
    assert splitter.feed(b"proxy error: gone\n" + CLEAN) == [CLEAN]
    assert splitter.rest() == b"proxy error: gone\n"


def test_foreign_text_is_not_kept_without_bound() -> None:
    splitter = SseSplitter()
    for _ in range(100):
        splitter.feed(b"x" * 100 + b"\n\n")
    assert len(splitter.rest()) == 1024


def test_a_frame_above_the_limit_is_malformed() -> None:
    assert SseSplitter(limit=len(CLEAN)).feed(CLEAN) == [CLEAN]
    with pytest.raises(Malformed):
        SseSplitter(limit=len(CLEAN) - 1).feed(CLEAN)
    splitter = SseSplitter(limit=10)
    assert splitter.feed(b"data: 1234") == []
    with pytest.raises(Malformed):
        splitter.feed(b"5")


def test_data_of_several_lines_is_joined() -> None:
    frame = sse_frame(b"[1,\n2]", b"x")
    assert frame == b"event: x\ndata: [1,\ndata: 2]\n\n"
    assert (sse_event(frame), sse_data(frame)) == (b"x", b"[1,\n2]")


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_more_blank_lines_than_one_say_nothing(newline: bytes) -> None:
    splitter = SseSplitter()
    blank = newline * 100_000
    pieces = [b"data: 1", blank, b"data: 2" + newline, blank, blank + b"data: 3" + blank]
    assert [frame for each in pieces for frame in splitter.feed(each)] == [b"data: %d\n\n" % n for n in (1, 2, 3)]
    assert splitter.rest() == b""


@pytest.mark.parametrize("line", [b":\n", b"data\n", b"id\n"])
def test_a_frame_of_very_many_lines_without_data(line: bytes) -> None:
    splitter = SseSplitter()
    assert splitter.feed(line * 500_000) == []
    assert splitter.waiting == len(line) * 500_000
    assert splitter.feed(b"\n" + CLEAN) == [CLEAN]
    assert splitter.waiting == 0


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


JSON, TEXT, NONE = b"application/json", b"text/plain", b""
LINE = b'{"response":"a","done":false}\n'
EVENTS = [b'data: {"a":1}\n\n', b'data:{"a":1}\n\n', b": ping\n\n", b"event: x\ndata: 1\n\n", b"id: 1\n", b"retry: 5\n"]


@pytest.mark.parametrize("event", [*EVENTS, b"\xef\xbb\xbfdata: 1\n\n", b"\r\n\ndata: 1\n\n"])
@pytest.mark.parametrize("kind", [SSE, JSON, TEXT, NONE])
@pytest.mark.parametrize("asked", [True, False])
def test_events_are_a_stream_whatever_they_are_called(event: bytes, kind: bytes, asked: bool) -> None:
    assert is_stream(SSE, kind, event, requested=asked, complete=False) is True


@pytest.mark.parametrize("kind", [SSE, JSON, TEXT, NONE])
@pytest.mark.parametrize("body", [b'{"a":1}', b'\n  {"a":1}', b"[1]", b'\xef\xbb\xbf{"a":1}'])
def test_a_document_is_one_whatever_it_is_called(body: bytes, kind: bytes) -> None:
    assert is_stream(SSE, kind, body, requested=True, complete=False) is False


@pytest.mark.parametrize("start", [b"", b" \n", b"d", b"dat", b"event", b"\xef\xbb\xbfda"])
def test_more_is_waited_for_while_nothing_can_be_said(start: bytes) -> None:
    assert is_stream(SSE, JSON, start, requested=True, complete=False) is None
    assert is_stream(SSE, JSON, start, requested=True, complete=True) is not None


def test_blanks_are_not_waited_through_for_ever() -> None:
    assert is_stream(SSE, JSON, b" " * 100_000, requested=True, complete=False) is False


@pytest.mark.parametrize(("kind", "stream"), [(SSE, True), (JSON, False), (TEXT, False)])
@pytest.mark.parametrize("body", [b"", b"proxy error: gone", b"hello"])
def test_what_is_neither_is_what_it_is_called(kind: bytes, stream: bool, body: bytes) -> None:
    assert is_stream(SSE, kind, body, requested=True, complete=True) is stream


@pytest.mark.parametrize("kind", [NDJSON, SSE, JSON, TEXT, NONE])
def test_lines_are_a_stream_where_one_was_asked_for(kind: bytes) -> None:
    assert is_stream(NDJSON, kind, LINE, requested=True, complete=False) is True
    assert is_stream(NDJSON, kind, LINE[:-1], requested=True, complete=True) is True


def test_a_document_over_several_lines_is_none() -> None:
    assert is_stream(NDJSON, JSON, b'{\n  "done": true\n}', requested=True, complete=False) is False
    assert is_stream(NDJSON, JSON, b"404 page not found", requested=True, complete=False) is False
    assert is_stream(NDJSON, JSON, LINE, requested=False, complete=False) is False


@given(
    start=st.binary(max_size=20),
    kind=st.sampled_from([SSE, NDJSON, JSON, TEXT, NONE]),
    stream_type=st.sampled_from([SSE, NDJSON]),
    asked=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_the_end_decides_everything(start: bytes, kind: bytes, stream_type: bytes, asked: bool) -> None:
    found = is_stream(stream_type, kind, start, requested=asked, complete=True)
    assert found is not None
    before = is_stream(stream_type, kind, start, requested=asked, complete=False)
    assert before is None or before is found
