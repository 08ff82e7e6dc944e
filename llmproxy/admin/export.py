"""Exchanges as files: JSON lines, and CSV that a spreadsheet takes for what it is. Pure."""

import csv
from collections.abc import Iterable, Mapping
from io import StringIO
from typing import Any, Protocol

import orjson

from llmproxy.history.pages import COLUMNS

Row = Mapping[str, Any]

#: what a spreadsheet takes for the beginning of a formula (OWASP, CSV injection)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class Format(Protocol):
    """``bodies`` says whether rows have the members ``request`` and ``response``."""

    media_type: str

    def head(self, bodies: bool) -> bytes: ...

    def rows(self, rows: Iterable[Row], bodies: bool) -> bytes: ...


class JsonLines:
    media_type = "application/x-ndjson"

    def head(self, bodies: bool) -> bytes:
        return b""

    def rows(self, rows: Iterable[Row], bodies: bool) -> bytes:
        return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


class Csv:
    media_type = "text/csv; charset=utf-8"

    def head(self, bodies: bool) -> bytes:
        return _lines([_names(bodies)])

    def rows(self, rows: Iterable[Row], bodies: bool) -> bytes:
        return _lines([_cell(row[name]) for name in _names(bodies)] for row in rows)


FORMATS: Mapping[str, Format] = {"jsonl": JsonLines(), "csv": Csv()}


def _names(bodies: bool) -> list[str]:
    return [*COLUMNS, *(("request", "response") if bodies else ())]


def _lines(rows: Iterable[list[Any]]) -> bytes:
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        value = orjson.dumps(value).decode()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
