"""Streams and documents told apart by their first bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.wire.forms import NDJSON, SSE, is_stream

JSON, TEXT, NONE = b"application/json", b"text/plain", b""
LINE = b'{"response":"a","done":false}\n'
EVENTS = [b'data: {"a":1}\n\n', b'data:{"a":1}\n\n', b": ping\n\n", b"event: x\ndata: 1\n\n", b"id: 1\n", b"retry: 5\n"]


@pytest.mark.parametrize("event", [*EVENTS, b"\xef\xbb\xbfdata: 1\n\n", b"\r\n\ndata: 1\n\n"])
@pytest.mark.parametrize("kind", [SSE, JSON, TEXT, NONE])
@pytest.mark.parametrize("asked", [True, False])
def test_events_are_a_stream_whatever_they_are_called(event: bytes, kind: bytes, asked: bool) -> None:
    assert is_stream(SSE, kind, event, asked=asked, whole=False) is True


@pytest.mark.parametrize("kind", [SSE, JSON, TEXT, NONE])
@pytest.mark.parametrize("body", [b'{"a":1}', b'\n  {"a":1}', b"[1]", b'\xef\xbb\xbf{"a":1}'])
def test_a_document_is_one_whatever_it_is_called(body: bytes, kind: bytes) -> None:
    assert is_stream(SSE, kind, body, asked=True, whole=False) is False


@pytest.mark.parametrize("start", [b"", b" \n", b"d", b"dat", b"event", b"\xef\xbb\xbfda"])
def test_more_is_waited_for_while_nothing_can_be_said(start: bytes) -> None:
    assert is_stream(SSE, JSON, start, asked=True, whole=False) is None
    assert is_stream(SSE, JSON, start, asked=True, whole=True) is not None


def test_blanks_are_not_waited_through_for_ever() -> None:
    assert is_stream(SSE, JSON, b" " * 100_000, asked=True, whole=False) is False


@pytest.mark.parametrize(("kind", "stream"), [(SSE, True), (JSON, False), (TEXT, False)])
@pytest.mark.parametrize("body", [b"", b"proxy error: gone", b"hello"])
def test_what_is_neither_is_what_it_is_called(kind: bytes, stream: bool, body: bytes) -> None:
    assert is_stream(SSE, kind, body, asked=True, whole=True) is stream


@pytest.mark.parametrize("kind", [NDJSON, SSE, JSON, TEXT, NONE])
def test_lines_are_a_stream_where_one_was_asked_for(kind: bytes) -> None:
    assert is_stream(NDJSON, kind, LINE, asked=True, whole=False) is True
    assert is_stream(NDJSON, kind, LINE[:-1], asked=True, whole=True) is True


def test_a_document_over_several_lines_is_none() -> None:
    assert is_stream(NDJSON, JSON, b'{\n  "done": true\n}', asked=True, whole=False) is False
    assert is_stream(NDJSON, JSON, b"404 page not found", asked=True, whole=False) is False
    assert is_stream(NDJSON, JSON, LINE, asked=False, whole=False) is False


@given(
    start=st.binary(max_size=20),
    kind=st.sampled_from([SSE, NDJSON, JSON, TEXT, NONE]),
    stream_type=st.sampled_from([SSE, NDJSON]),
    asked=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_the_end_decides_everything(start: bytes, kind: bytes, stream_type: bytes, asked: bool) -> None:
    found = is_stream(stream_type, kind, start, asked=asked, whole=True)
    assert found is not None
    before = is_stream(stream_type, kind, start, asked=asked, whole=False)
    assert before is None or before is found
