"""Exchanges as files: JSON lines, and CSV that a spreadsheet takes for what it is. Pure."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from io import StringIO
from typing import Any, Protocol

import orjson

from llmproxy.history.detail import body_of
from llmproxy.history.pages import BODIES, COLUMNS

Row = Mapping[str, Any]

#: what a spreadsheet takes for the beginning of a formula (OWASP, CSV injection)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


#: columns of bodies -> their names in a file
_NAMES = {column: column.removesuffix("_body") for column in BODIES}


class Format(Protocol):
    """Rows are as pages have them; ``bodies`` says whether with both bodies, as bytes or None."""

    media_type: str

    def head(self, bodies: bool) -> bytes: ...

    def rows(self, rows: Iterable[Row], bodies: bool) -> bytes: ...


class JsonLines:
    media_type = "application/x-ndjson"

    def head(self, bodies: bool) -> bytes:
        return b""

    def rows(self, rows: Iterable[Row], bodies: bool) -> bytes:
        return b"".join(orjson.dumps(_member(row, bodies), option=orjson.OPT_APPEND_NEWLINE) for row in rows)


class Csv:
    media_type = "text/csv; charset=utf-8"

    def head(self, bodies: bool) -> bytes:
        return _lines([_names(bodies)])

    def rows(self, rows: Iterable[Row], bodies: bool) -> bytes:
        return _lines([_cell(cell) for cell in _cells(row, bodies)] for row in rows)


FORMATS: Mapping[str, Format] = {"jsonl": JsonLines(), "csv": Csv()}


def _names(bodies: bool) -> list[str]:
    return [*COLUMNS, *(_NAMES.values() if bodies else ())]


def _member(row: Row, bodies: bool) -> Row:
    if not bodies:
        return row
    found = {_NAMES.get(name, name): value for name, value in row.items()}
    return found | {name: _in_a_line(row[column]) for column, name in _NAMES.items()}


def _in_a_line(body: bytes | None) -> Any:
    """The document in a body as it was written, on one line; its text where there is none."""
    found = body_of(body)
    # it may be nested deeper than can be written again, and numbers lose digits; a line's end is only ever between them
    return found if body is None or isinstance(found, str) else orjson.Fragment(body.translate(None, b"\r\n"))


def _cells(row: Row, bodies: bool) -> Iterator[Any]:
    yield from (row[name] for name in COLUMNS)
    for column in _NAMES if bodies else ():
        found = body_of(row[column])
        yield found if found is None or isinstance(found, str) else row[column].decode()


def _lines(rows: Iterable[list[Any]]) -> bytes:
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
