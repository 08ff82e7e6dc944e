"""Why a request was answered from the cache or not: its key, the earlier request most like it, and what differs."""

import asyncio
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson
from sqlalchemy import RowMapping, select

from llmproxy.database.engine import Database
from llmproxy.history.detail import Record, numbered
from llmproxy.history.json_diff import Difference, DifferenceKind, Span, differences
from llmproxy.history.nearest import Fields, Nearest, earlier, excused, keyed, search
from llmproxy.history.reasons import why
from llmproxy.history.redact import REDACTED
from llmproxy.history.tables import history
from llmproxy.wire.endpoints import ENDPOINTS, Endpoint
from llmproxy.wire.json_body import parse
from llmproxy.wire.vocabulary import CacheStatus, Reason

#: characters shown of a value, of a span, and on either side of it
_VALUE, _SPAN, _CONTEXT = 200, 200, 40
#: earlier rows that are looked at for one that stored the same key
MOST_SOUGHT = 20_000
#: differences and spans that are shown
_MOST = 50

#: what a span with its surroundings looks like, and what that means
_LIVELY = (
    (
        re.compile(r"\d\d:\d\d(?::\d\d)?(?:\.\d+)?|\d{4}-\d\d-\d\d|\b1[5-9]\d{8}(?:\d{3})?\b"),
        "it looks like a date or a time of day",
    ),
    (
        re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}|\b[0-9a-fA-F]{16,}\b"),
        "it looks like a random id",
    ),
)

#: parts of the key beside the body
_PARTS = {
    "namespace": "the namespace (X-LLMProxy-Namespace)",
    "scope": "the scope: another API key asked, and answers are kept apart by key",
    "identity": "the identity of the model: other weights, template or server settings under this name",
    "query": "the query of the URL",
}

Document = dict[str, Any]


async def explain(database: Database, record: Record) -> Document:
    """``record`` is a row of history with its ``detail`` parsed. Raises what the database does."""
    endpoint = next((row for row in ENDPOINTS if row.name == record["endpoint"]), None)
    body = record["request_body"] or b""
    fields = keyed(endpoint, body) if endpoint is not None else None
    document: Document = {
        **{name: record[name] for name in ("request_id", "created_at", "endpoint", "model", "status")},
        **{name: record[name] for name in ("cache", "reason", "stored")},
        "because": list(_because(record, endpoint)),
        "key": _key(record, endpoint, fields, body),
        "nearest": None,
        "compared": 0,
        "differences": [],
    }
    if endpoint is None or not record["cache_key"]:
        return document
    if fields is None:
        document["because"].append(_unread(record))
    stored = await _stored(database, record)
    if stored is not None:
        document["because"].append(_gone(record, stored))
    if fields is not None:
        await _compare(database, record, endpoint, fields, document)
    return document


def _because(record: Record, endpoint: Endpoint | None) -> Iterator[str]:
    """What the row itself says."""
    if not record["cache"]:
        yield f"The request ended before the cache was asked (status {record['status']})."
    elif record["cache"] == CacheStatus.JOINED:
        yield "An identical request was under way: its upstream call was shared."
    elif endpoint is not None and endpoint.per_input and record["reason"] == Reason.ABSENT:
        yield "Not every input of the request was known."
    elif sentence := why(record["reason"]):
        yield sentence
    if record["stored"] and record["stored"] != "stored":
        yield f"The answer was not kept: {why(record['stored'])}"


def _unread(record: Record) -> str:
    if not record["request_body"]:
        return "The body is not kept, so that it cannot be compared with others (LLMPROXY_HISTORY_BODIES)."
    return "The body is not kept whole, so that it cannot be compared with others (LLMPROXY_HISTORY_BODY_BYTES)."


async def _stored(database: Database, record: Record) -> RowMapping | None:
    """The last earlier exchange whose answer was kept under the same key; None where it is too long ago."""
    row, near = history.c, earlier(record, MOST_SOUGHT).subquery()
    kept = select(row.request_id, row.created_at, row.finished_at).select_from(near.join(history, row.id == near.c.id))
    same = kept.where(row.cache_key == record["cache_key"], row.stored == "stored")
    async with database.read() as connection:
        return (await connection.execute(same.order_by(row.id.desc()).limit(1))).mappings().first()


def _gone(record: Record, stored: RowMapping) -> str:
    since = record["created_at"] - stored["created_at"]
    told = f"An answer was stored under this key by request {stored['request_id']}, {since:,.0f} s before"
    if record["cache"] != CacheStatus.MISS or record["reason"] != "absent":
        return f"{told}."
    if stored["finished_at"] > record["created_at"]:
        return f"{told}. It was still on its way then."
    return f"{told}. Since then it was flushed, evicted for want of space, or removed past its lifetime."


async def _compare(database: Database, record: Record, endpoint: Endpoint, fields: Fields, document: Document) -> None:
    found = await search(database, record, endpoint, fields)
    document["compared"] = found.compared
    nearest = found.nearest
    if nearest is None:
        document["because"].append("The history has no earlier request to this endpoint and model to compare it with.")
        return
    other = await numbered(database, nearest.id)
    if other is None:
        return
    same = other["cache_key"] == record["cache_key"]
    document["nearest"] = {
        **{name: other[name] for name in ("id", "request_id", "created_at", "cache", "reason", "stored")},
        "similarity": round(nearest.similarity, 4),
        "same_key": same,
    }
    told = await asyncio.to_thread(_told, fields, nearest)
    document["differences"] = told
    if same and other["stored"] not in ("", "stored") and record["cache"] == CacheStatus.MISS:
        reason = why(other["stored"])
        document["because"].append(f"The same request came before, and its answer was not kept: {reason}")
    if told and not same:
        paths = ", ".join(dict.fromkeys(each["path"] or "the body" for each in told[:3]))
        more = f", and in {len(told) - 3} more" if len(told) > 3 else ""
        document["because"].append(f"It differs from the request most like it in {paths}{more}.")
    elif not same:
        document["because"] += _elsewhere(record, other)


def _elsewhere(record: Record, other: Record) -> Iterator[str]:
    """Which part of the key differs where the bodies are the same."""
    mine, theirs = ({"namespace": each["namespace"], **each["detail"]} for each in (record, other))
    found = [shown for name, shown in _PARTS.items() if mine.get(name, "") != theirs.get(name, "")]
    if REDACTED.encode() in (record["request_body"] or b"") and not found:
        found = ["what was redacted in it"]
    for shown in found or ["what was not recorded of it"]:
        yield f"The body is the same as that of the request most like it; what differs is {shown}."


def _key(record: Record, endpoint: Endpoint | None, fields: Fields | None, body: bytes) -> Document:
    """What went into the key. Scope and query are digests."""
    detail = record["detail"]
    left_out: Document = {}
    if endpoint is not None and fields is not None:
        reasons = excused(endpoint)
        left_out = {
            name: {"value": _short(value), "why": reasons[name]}
            for name, value in parse(body).items()
            if name in reasons
        }
    return {
        "digest": record["cache_key"],
        "endpoint": record["endpoint"],
        "model": record["model"],
        "identity": detail.get("identity", ""),
        "scope": detail.get("scope", ""),
        "namespace": record["namespace"],
        "query": detail.get("query", ""),
        "fields": {name: _short(value) for name, value in (fields or {}).items()},
        "excused": left_out,
    }


def _told(fields: Fields, nearest: Nearest) -> list[Document]:
    return [_shown(each) for each in islice(differences(fields, nearest.fields), _MOST)]


def _shown(difference: Difference) -> Document:
    document: Document = {"path": difference.path, "kind": difference.kind, "note": difference.note}
    if difference.kind is DifferenceKind.TEXT:
        ours, theirs = difference.ours, difference.theirs
        shown = [_span(span, ours, theirs) for span in difference.spans[:_MOST]]
        document["spans"] = shown
        document["note"] = document["note"] or _lively(difference)
    else:
        document |= {"ours": _short(difference.ours), "theirs": _short(difference.theirs)}
        if difference.kind is DifferenceKind.ADDED:
            del document["theirs"]
        elif difference.kind is DifferenceKind.REMOVED:
            del document["ours"]
    return document


def _span(span: Span, ours: str, theirs: str) -> Document:
    return {
        "at": span.start,
        "before": ours[max(0, span.start - _CONTEXT) : span.start],
        "ours": _middle(ours[span.start : span.end]),
        "theirs": _middle(theirs[span.other_start : span.other_end]),
        "after": ours[span.end : span.end + _CONTEXT],
    }


def _lively(difference: Difference) -> str:
    """Whether the first span is in something that is different every time."""
    for span in difference.spans[:1]:
        near = difference.ours[max(0, span.start - 36) : span.end + 36]
        at = min(span.start, 36)
        for pattern, note in _LIVELY:
            if any(found.start() <= at <= found.end() for found in pattern.finditer(near)):
                return note
    return ""


def _middle(text: str) -> str:
    half = _SPAN // 2
    return text if len(text) <= _SPAN else f"{text[:half]} … {text[-half:]}"


def _short(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    text = orjson.dumps(value).decode()
    return text if len(text) <= _VALUE else f"{text[:_VALUE]}…"
