"""What happened: exchanges as a list, as an export, one by one, and why each was a hit or not; and erasing them."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from llmproxy.admin.export import FORMATS
from llmproxy.admin.params import given, json_answer
from llmproxy.admin.state import state_of
from llmproxy.history import detail
from llmproxy.history.query import HistoryCursor, HistoryQuery
from llmproxy.history.reader import HistoryReader
from llmproxy.history.tokenize import phrases_of
from llmproxy.wire.endpoints import ENDPOINTS
from llmproxy.wire.errors import BadRequest
from llmproxy.wire.validation import query_limit, query_number, query_time, query_word
from llmproxy.wire.vocabulary import CacheStatus

_MOST_ROWS = 1_000
#: rows of a page, unless the request says otherwise
_ROWS = 50
#: words of a text that is searched for: each of them is looked up
_MOST_WORDS = 32

_FILTERS = ("user_id", "session_id", "model", "endpoint", "cache", "status", "since", "until", "q")
_PARAMETERS = ("limit", "cursor", *_FILTERS, "preview", "format", "bodies")
_ROW = re.compile("[0-9]{1,18}")
_ERASED = ("user_id", "session_id")
_ENDPOINTS = (*(row.name for row in ENDPOINTS), "other")


async def history(request: Request) -> Response:
    """``GET /api/history``: a page of exchanges, newest first, or all of them as a file with ``format``."""
    found = given(request, _PARAMETERS)
    reader = _reader(request)
    wanted = _wanted(found)
    format = query_word(found, "format", ("json", *FORMATS)) or "json"
    bodies, preview = (query_word(found, name, ("true", "false")) == "true" for name in ("bodies", "preview"))
    if format != "json":
        return await _export(reader, wanted, format, bodies, int(found["limit"]) if "limit" in found else None)
    if bodies:
        raise BadRequest("'bodies' goes with format=jsonl or csv; lists have none.", param="bodies")
    page = await reader.page(wanted)
    rows = await _previewed(reader, page.rows) if preview else page.rows
    document: dict[str, Any] = {"object": "list", "data": rows, "next": page.next.text() if page.next else None}
    if wanted.text:
        # rows that came a moment ago may not be indexed yet
        document["complete"] = await reader.indexed(wanted)
    return json_answer(document)


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
    return json_answer(await _reader(request).explain(id, _row(request)))


async def _exchange(request: Request, id: str) -> Response:
    return json_answer(detail.shown(await _reader(request).record(id, _row(request))))


def _row(request: Request) -> int | None:
    """Raises ``BadRequest``."""
    text = given(request, ("row",)).get("row")
    if text is not None and not _ROW.fullmatch(text):
        raise BadRequest("'row' must be the 'id' that an exchange has in lists.", param="row")
    return None if text is None else int(text)


async def _previewed(reader: HistoryReader, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with a line of what each asks, "" where there is nothing to read."""
    lines = await reader.previews([row["id"] for row in rows])
    return [{**row, "preview": lines.get(row["id"], "")} for row in rows]


async def erase(request: Request) -> Response:
    """``DELETE /api/history?user_id=ann&session_id=s1``: one of them, or both for a user's part of a session."""
    found = given(request, _ERASED)
    # a name that is empty is more likely a script's variable that was never set than one of nobody
    if not found or not all(found.values()):
        raise BadRequest("Say whose exchanges to erase: 'user_id', 'session_id', or both.")
    deleted = await _reader(request).erase(found.get("user_id"), found.get("session_id"))
    return json_answer({"deleted": deleted})


async def history_or_erase(request: Request) -> Response:
    """``/api/history`` by its method."""
    return await (erase if request.method == "DELETE" else history)(request)


def _reader(request: Request) -> HistoryReader:
    """Whatever happened so far is on its way to it. Raises ``NotFound`` where no history is kept."""
    state = state_of(request)
    state.settle()
    return state.history.reader


def _wanted(found: dict[str, str]) -> HistoryQuery:
    """Raises ``BadRequest``."""
    phrases = phrases_of(found.get("q", ""))
    if "q" in found and not 0 < sum(map(len, phrases)) <= _MOST_WORDS:
        raise BadRequest(f"'q' must hold 1 to {_MOST_WORDS} words.", param="q")
    is_page = found.get("format", "json") == "json"
    return HistoryQuery(
        limit=query_limit(found, _ROWS, _MOST_ROWS if is_page else 10**9),
        user=found.get("user_id"),
        session=found.get("session_id"),
        model=found.get("model"),
        endpoint=query_word(found, "endpoint", _ENDPOINTS),
        cache=query_word(found, "cache", tuple(CacheStatus)),
        status=query_number(found, "status", 0, 0, 599) if "status" in found else None,
        since=query_time(found, "since"),
        until=query_time(found, "until"),
        text=tuple(map(tuple, phrases)),
        after=HistoryCursor.read(found["cursor"]) if "cursor" in found else None,
    )


async def _export(
    reader: HistoryReader, wanted: HistoryQuery, format: str, bodies: bool, limit: int | None
) -> Response:
    made = FORMATS[format]
    pages = reader.export(wanted, bodies=bodies, limit=limit)
    # a database that fails at once is an error with a status of its own
    first = await anext(pages)

    async def pieces() -> AsyncIterator[bytes]:
        yield made.head(bodies)
        yield await asyncio.to_thread(made.rows, first, bodies)
        async for rows in pages:
            yield await asyncio.to_thread(made.rows, rows, bodies)

    headers = {"content-disposition": f'attachment; filename="history.{format}"'}
    return StreamingResponse(pieces(), media_type=made.media_type, headers=headers)
