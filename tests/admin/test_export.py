"""Exchanges as files, whatever their bodies hold."""

import csv
import json
from io import StringIO
from typing import Any

import pytest

from llmproxy.admin.history import FORMATS
from llmproxy.history.search import COLUMNS


def row(request: bytes | None, response: bytes | None = None) -> dict[str, Any]:
    return {**dict.fromkeys(map(str, COLUMNS), "x"), "request_body": request, "response_body": response}


DEEP = "[" * 600 + "]" * 600
BODIES = pytest.mark.parametrize(
    ("body", "member", "cell"),
    [
        (b'{\r\n  "a": [1,\n2]}', {"a": [1, 2]}, '{\r\n  "a": [1,\n2]}'),
        (b'{"a": 18446744073709551617}', {"a": 18446744073709551617}, '{"a": 18446744073709551617}'),
        (f'{{"a": {DEEP}}}'.encode(), None, f'{{"a": {DEEP}}}'),
        (b'"=1+1\\n"', "=1+1\n", "'=1+1\n"),
        (b"data: cut of", "data: cut of", "data: cut of"),
        (b"\xff", "\ufffd", "\ufffd"),
        (None, None, ""),
        (b"null", None, ""),
        (b"17", 17, "17"),
    ],
    ids=["lines", "digits", "deep", "string", "text", "bytes", "none", "null", "number"],
)


@BODIES
def test_a_line_holds_the_body_as_it_was_written(body: bytes | None, member: Any, cell: str) -> None:
    written = FORMATS["jsonl"].rows([row(body)], bodies=True)
    assert (written.count(b"\n"), written.count(b"\r"), written[-1:]) == (1, 0, b"\n")
    if cell != f'{{"a": {DEEP}}}':
        found = json.loads(written)
        assert (found["request"], found["response"]) == (member, None)
        assert set(found) == {*COLUMNS, "request", "response"}


@BODIES
def test_a_cell_holds_the_body_as_it_was_written(body: bytes | None, member: Any, cell: str) -> None:
    made = FORMATS["csv"]
    text = (made.head(bodies=True) + made.rows([row(body)], bodies=True)).decode()
    (found,) = csv.DictReader(StringIO(text, newline=""))
    assert (found["request"], found["response"]) == (cell, "")
