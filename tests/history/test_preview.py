"""The line that stands for a request in lists."""

import json
from typing import Any

import pytest

from llmproxy.history.detail import LONGEST_LINE, preview, preview_of_pieces

SAID = [
    {"role": "system", "content": "You are kind."},
    {"role": "user", "content": "Why is\n\tthe sky  blue?"},
    {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]},
    {"role": "tool", "content": "a tool's result"},
]
PARTS = [{"type": "text", "text": "What is"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "42"}]}


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"messages": SAID}, "Why is the sky blue?"),
        ({"messages": [{"role": "user", "content": [*PARTS, {"type": "text", "text": "this?"}]}]}, "What is this?"),
        ({"system": "s", "messages": [{"role": "user", "content": "Add it up."}, RESULT]}, "Add it up."),
        ({"messages": SAID[:1]}, "You are kind."),
        ({"prompt": "Once upon a time"}, "Once upon a time"),
        ({"prompt": ["one", "two"]}, "one two"),
        ({"prompt": [1, 2, 3]}, ""),
        ({"input": "zebras"}, "zebras"),
        ({"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}]}, "hi"),
        ({"query": "which?", "documents": ["this", "that"]}, "which?"),
        ({"messages": [], "input": 5}, ""),
        ({"messages": "no", "prompt": {"text": "odd"}}, "no"),
        ({"messages": [None, 3, {"role": "user"}]}, ""),
        ([], ""),
        ("text", ""),
    ],
    ids=str,
)
def test_the_last_thing_that_a_user_said(body: Any, line: str) -> None:
    assert preview(json.dumps(body).encode()) == line


def test_a_line_is_cut() -> None:
    line = preview(json.dumps({"prompt": "word " * 10_000}).encode())
    assert (len(line), line[-6:]) == (LONGEST_LINE, " word…")


@pytest.mark.parametrize("indent", [None, 2])
def test_a_body_that_was_cut_is_read_as_far_as_it_goes(indent: int | None) -> None:
    """Wherever it was cut, nothing else is taken for what was said."""
    said = 'Say "role": "user", "content": "no"\\ é 😀'
    messages = [{"role": "user", "content": said}, {"role": "assistant", "content": "an answer"}]
    body = json.dumps({"model": "m", "messages": messages}, indent=indent).encode()
    lines = {preview(body[:length]) for length in range(len(body))}
    line = " ".join(said.split())
    assert line in lines
    assert all(line.startswith(each) for each in lines)


@pytest.mark.parametrize(
    ("piece", "line"),
    [
        (b'ing"},{"content":"before","role":"user"},{"role":"tool","content":"no"}],"tools":[]}', "before"),
        (b'["role":"user","content":[{"type":"text","text":"in a part"}]}', "in a part"),
        (b'{"model":"m","prompt":"plain text that was c', "plain text that was c"),
        (b'{"model":"m","prompt":"plain text", "more": "', "plain text"),
        (b'{"model":"m","input":["a list"', "a list"),
        (b'"role":"user","content":[{"type":"image_url"', ""),
        (b'"role":"user","content":"a\x01b \\x c"', "a\x01b \\x c"),
        (b"\xff\xfe no JSON at all", ""),
        (b"", ""),
    ],
    ids=str,
)
def test_pieces_of_a_body(piece: bytes, line: str) -> None:
    assert preview_of_pieces(piece) == line


def test_the_first_piece_that_says_something_is_taken() -> None:
    said = [b'{"role":"user","content":"%b"}' % text for text in (b"first", b"second")]
    assert preview_of_pieces(b"no", *said) == "first"
