"""The operator's API to the history: exchanges as a list, as a file, one by one, and why each was a hit or not; erasing
them; users and sessions with what they add up to."""

import asyncio
import csv
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from io import StringIO
from typing import Any, Protocol, cast

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from llmproxy.admin.params import query_parameters
from llmproxy.admin.state import state_of
from llmproxy.api.http import json_response
from llmproxy.history import detail
from llmproxy.history.detail import body_of
from llmproxy.history.history import HistoryReader
from llmproxy.history.search import BODIES, COLUMNS, HistoryCursor, HistoryQuery, Order
from llmproxy.history.text_index import phrases_of
from llmproxy.wire.endpoints import ENDPOINTS
from llmproxy.wire.errors import BadRequest
from llmproxy.wire.validation import query_choice, query_limit, query_number, query_time
from llmproxy.wire.vocabulary import CacheStatus

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
    document = {_NAMES.get(name, name): value for name, value in row.items()}
    return document | {name: _single_line(row[column]) for column, name in _NAMES.items()}


def _single_line(body: bytes | None) -> Any:
    """The document in a body as it was written, on one line; its text if it is not JSON."""
    document = body_of(body)
    # it may be nested deeper than can be written again, and numbers lose digits; a line's end is only ever between them
    return document if body is None or isinstance(document, str) else orjson.Fragment(body.translate(None, b"\r\n"))


def _cells(row: Row, bodies: bool) -> Iterator[Any]:
    yield from (row[name] for name in COLUMNS)
    for column in _NAMES if bodies else ():
        document = body_of(row[column])
        yield document if document is None or isinstance(document, str) else row[column].decode()


def _lines(rows: Iterable[list[Any]]) -> bytes:
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


_MOST_ROWS = 1_000
#: rows of a page, unless the request says otherwise
_ROWS = 50
#: words of a text that is searched for: each of them is looked up
_MOST_WORDS = 32

_FILTERS = ("user_id", "session_id", "model", "endpoint", "cache", "status", "since", "until", "q")
_LEAST = ("min_seconds", "min_tokens")
ORDERS = ("newest", "slowest", "tokens")
PARAMETERS = ("limit", "cursor", "order", *_FILTERS, *_LEAST, "preview", "format", "bodies")
_ROW = re.compile("[0-9]{1,18}")
_ERASED = ("user_id", "session_id")
_ENDPOINTS = (*(row.name for row in ENDPOINTS), "other")


async def history(request: Request) -> Response:
    """``GET /api/history``: a page of exchanges, newest first, or all of them as a file with ``format``.

    ``order=slowest|tokens`` ranks the newest 50,000 that the filters match, of a search by words the newest 1,000.
    ``status=error`` are all that failed.
    """
    parameters = query_parameters(request, PARAMETERS)
    reader = _reader(request)
    query = _history_query(parameters)
    format = query_choice(parameters, "format", ("json", *FORMATS)) or "json"
    bodies, preview = (query_choice(parameters, name, ("true", "false")) == "true" for name in ("bodies", "preview"))
    if format != "json":
        return await _export(reader, query, format, bodies, int(parameters["limit"]) if "limit" in parameters else None)
    if bodies:
        raise BadRequest("'bodies' goes with format=jsonl or csv; lists have none.", param="bodies")
    page = await reader.page(query)
    rows = await _previewed(reader, page.rows) if preview else page.rows
    document: dict[str, Any] = {"object": "list", "data": rows, "next": page.next.text() if page.next else None}
    if query.text:
        # rows that came a moment ago may not be indexed yet
        document["complete"] = await reader.indexed(query)
    return json_response(document)


async def exchange(request: Request) -> Response:
    """``GET /api/history/{request_id}?row=``: all that is known of one exchange, with both bodies. ``row`` is its
    ``id`` in lists, which tells apart those that were given the same request id."""
    return await _exchange(request, request.path_params["request_id"])


async def explain(request: Request) -> Response:
    """``GET /api/history/{request_id}/explain?row=``: why it was a hit or not."""
    id: str = request.path_params["request_id"]
    # in the path as it was sent, a slash of an id is %2F
    raw: bytes = request.scope.get("raw_path") or b"/explain"
    if not raw.endswith(b"/explain"):
        return await _exchange(request, f"{id}/explain")
    return json_response(await _reader(request).explain(id, _row(request)))


async def _exchange(request: Request, id: str) -> Response:
    return json_response(detail.to_json(await _reader(request).record(id, _row(request))))


def _row(request: Request) -> int | None:
    """Raises ``BadRequest``."""
    text = query_parameters(request, ("row",)).get("row")
    if text is not None and not _ROW.fullmatch(text):
        raise BadRequest("'row' must be the 'id' that an exchange has in lists.", param="row")
    return None if text is None else int(text)


async def _previewed(reader: HistoryReader, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with a line of each request, "" if there is nothing to read."""
    lines = await reader.previews([row["id"] for row in rows])
    return [{**row, "preview": lines.get(row["id"], "")} for row in rows]


async def erase(request: Request) -> Response:
    """``DELETE /api/history?user_id=ann&session_id=s1``: one of them, or both for a user's part of a session."""
    parameters = query_parameters(request, _ERASED)
    # a name that is empty is more likely a script's variable that was never set than one of nobody
    if not parameters or not all(parameters.values()):
        raise BadRequest("Say whose exchanges to erase: 'user_id', 'session_id', or both.")
    deleted = await _reader(request).erase(parameters.get("user_id"), parameters.get("session_id"))
    return json_response({"deleted": deleted})


async def history_or_erase(request: Request) -> Response:
    """``/api/history`` by its method."""
    return await (erase if request.method == "DELETE" else history)(request)


def _reader(request: Request) -> HistoryReader:
    """The reader; all exchanges so far are handed to the writer. Raises ``NotFound`` if there is no history."""
    state = state_of(request)
    state.settle()
    return state.history.reader


def _history_query(parameters: dict[str, str]) -> HistoryQuery:
    """Raises ``BadRequest``."""
    phrases = phrases_of(parameters.get("q", ""))
    if "q" in parameters and not 0 < sum(map(len, phrases)) <= _MOST_WORDS:
        raise BadRequest(f"'q' must hold 1 to {_MOST_WORDS} words.", param="q")
    is_page = parameters.get("format", "json") == "json"
    failed = parameters.get("status") == "error"
    return HistoryQuery(
        limit=query_limit(parameters, _ROWS, _MOST_ROWS if is_page else 10**9),
        user=parameters.get("user_id"),
        session=parameters.get("session_id"),
        model=parameters.get("model"),
        endpoint=query_choice(parameters, "endpoint", _ENDPOINTS),
        cache=query_choice(parameters, "cache", tuple(CacheStatus)),
        status=None if failed or "status" not in parameters else query_number(parameters, "status", 0, 0, 599),
        failed=failed,
        min_seconds=query_number(parameters, "min_seconds", 0, 0, 10**9) if "min_seconds" in parameters else None,
        min_tokens=query_number(parameters, "min_tokens", 0, 0, 10**9) if "min_tokens" in parameters else None,
        order=cast(Order, query_choice(parameters, "order", ORDERS) or "newest"),
        since=query_time(parameters, "since"),
        until=query_time(parameters, "until"),
        text=tuple(map(tuple, phrases)),
        after=HistoryCursor.read(parameters["cursor"]) if "cursor" in parameters else None,
    )


async def _export(reader: HistoryReader, query: HistoryQuery, format: str, bodies: bool, limit: int | None) -> Response:
    made = FORMATS[format]
    pages = reader.export(query, bodies=bodies, limit=limit)
    # a database that fails at once is an error with a status of its own
    first = await anext(pages)

    async def pieces() -> AsyncIterator[bytes]:
        yield made.head(bodies)
        yield await asyncio.to_thread(made.rows, first, bodies)
        async for rows in pages:
            yield await asyncio.to_thread(made.rows, rows, bodies)

    headers = {"content-disposition": f'attachment; filename="history.{format}"'}
    return StreamingResponse(pieces(), media_type=made.media_type, headers=headers)


_MOST = 1_000


async def sessions(request: Request) -> Response:
    """``GET /api/sessions?limit=&cursor=&user_id=``, the last to be seen first."""
    parameters = query_parameters(request, ("limit", "cursor", "user_id"))
    limit = query_limit(parameters, 50, _MOST)
    return json_response(await _reader(request).sessions(limit, parameters.get("cursor"), parameters.get("user_id")))


async def session(request: Request) -> Response:
    """``GET /api/sessions/{id}``, with the users who named it."""
    query_parameters(request, ())
    return json_response(await _reader(request).session(request.path_params["id"]))


async def users(request: Request) -> Response:
    """``GET /api/users?limit=&cursor=``, the last to be seen first; "" are those who are unknown."""
    parameters = query_parameters(request, ("limit", "cursor"))
    return json_response(await _reader(request).users(query_limit(parameters, 50, _MOST), parameters.get("cursor")))


async def user(request: Request) -> Response:
    """``GET /api/users/{id}``, with the user's sessions."""
    query_parameters(request, ())
    return json_response(await _reader(request).user(request.path_params["id"]))
