"""One exchange with all that is known of it."""

from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import Select, select

from llmproxy.database.engine import Database
from llmproxy.history.pages import BODIES, NAMES
from llmproxy.history.tables import history

Record = Mapping[str, Any]


async def newest(database: Database, request_id: str, id: int | None = None) -> Record | None:
    """The row of this id, with ``detail`` parsed; where a caller gave it to several, the newest, or that with the
    number ``id``."""
    wanted = select(history).where(history.c.request_id == request_id)
    return await _first(database, wanted if id is None else wanted.where(history.c.id == id))


async def numbered(database: Database, id: int) -> Record | None:
    """The row with this number, with ``detail`` parsed."""
    return await _first(database, select(history).where(history.c.id == id))


async def _first(database: Database, wanted: Select[Any]) -> Record | None:
    async with database.read() as connection:
        row = (await connection.execute(wanted.order_by(history.c.id.desc()).limit(1))).mappings().first()
    if row is None:
        return None
    record = {str(name): value for name, value in row.items()}
    return {**record, "detail": orjson.loads(record["detail"])}


def shown(row: Record) -> dict[str, Any]:
    """The record as a document: what lists show, and ``phases``, ``identity``, ``scope``, ``query``, ``request``,
    ``response``. ``query`` is the text of the URL's query, None where that may hold a secret and is not kept."""
    detail = row["detail"]
    cut = detail.get("cut", ())
    listed = {NAMES.get(name, name): row[name] for name in row if name not in (*BODIES, "detail")}
    return {
        **listed,
        "identity": detail.get("identity", ""),
        "scope": detail.get("scope", ""),
        "query": detail.get("plain_query") if "query" in detail else "",
        "phases": {phase: micros / 1e6 for phase, micros in detail.get("phases", {}).items()},
        "request": _body(row["request_body"], "request" in cut),
        "response": _body(row["response_body"], "response" in cut),
    }


def body_of(body: bytes | None) -> Any:
    """The JSON document in a body; its text where it is none; None where there is none."""
    if body is None:
        return None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace")


def _body(body: bytes | None, cut: bool) -> dict[str, Any]:
    """``cut`` where it was longer than what is kept."""
    found = body_of(body)
    # a document is shown as it was written, to the last digit
    as_written = found if body is None or isinstance(found, str) else orjson.Fragment(body)
    return {"body": as_written, "bytes": len(body or b""), "cut": cut}
