"""Why a request was answered from the cache or not: its key, the earlier request most like it, and what differs."""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any

import orjson
from sqlalchemy import RowMapping, Select, select

from llmproxy.database.engine import Database
from llmproxy.history.detail import Record, numbered
from llmproxy.history.json_diff import Difference, DifferenceKind, Span, common, differences
from llmproxy.history.record import REDACTED
from llmproxy.history.search import BY_TIME
from llmproxy.history.tables import history
from llmproxy.wire.endpoints import ENDPOINTS, Endpoint, shaping
from llmproxy.wire.errors import BadRequest
from llmproxy.wire.json_body import parse
from llmproxy.wire.vocabulary import CacheStatus, Reason


def why(word: str) -> str:
    """The sentence of a reason as rows hold it; "" without one."""
    return Reason(word).sentence if word in set(Reason) else ""


#: different requests that are compared, rows that are looked at to find them, bytes of bodies that are read
MOST_COMPARED, MOST_LOOKED_AT, MOST_BYTES = 200, 5_000, 16 * 1024 * 1024
#: bodies read at once
_BATCH = 20
#: a longer path is told apart by its digest
_LONGEST_PATH = 1_000

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Nearest:
    """``fields`` are its keyed ones; ``similarity`` is the share of characters that are the same, 0 to 1."""

    id: int
    fields: Fields
    similarity: float


@dataclass(frozen=True, slots=True)
class Search:
    """``compared`` is the number of different requests that were looked at."""

    nearest: Nearest | None
    compared: int


async def search(database: Database, record: Record, endpoint: Endpoint, fields: Fields) -> Search:
    """``fields`` are the keyed ones of ``record``. Raises what the database does."""
    ids = await _ids(database, record)
    ours = await asyncio.to_thread(lambda: dict(leaves(fields)))
    best, read, compared = None, 0, 0
    for at in range(0, len(ids), _BATCH):
        rows = await _bodies(database, ids[at : at + _BATCH])
        found = await asyncio.to_thread(_best, rows, endpoint, ours)
        if found is not None and (best is None or found.similarity > best.similarity):
            best = found
        compared += len(rows)
        read += sum(len(body) for _, body in rows)
        if read > MOST_BYTES:
            break
    return Search(best, compared)


async def _ids(database: Database, record: Record) -> list[int]:
    """Earlier rows with bodies, one for each key: repeats say nothing new. One with the same key first, then the newest
    to the oldest: of those that are equally like it, the first is taken."""
    row, near = history.c, earlier(record, MOST_LOOKED_AT).subquery()
    query = select(row.id, row.cache_key).select_from(near.join(history, row.id == near.c.id))
    query = query.where(row.endpoint == record["endpoint"], row.body_bytes > 0)
    newest: dict[str, int] = {}
    async with database.read() as connection:
        for id, key in await connection.execute(query):
            newest[key or str(id)] = max(id, newest.get(key or str(id), id))
    same = newest.get(record["cache_key"])
    return sorted(newest.values(), key=lambda id: (id == same, id), reverse=True)[:MOST_COMPARED]


def earlier(record: Record, limit: int) -> Select[Any]:
    """Ids of the rows before this one of the same model, the newest first."""
    rows = select(history.c.id).where(history.c.model == record["model"])
    return BY_TIME.page(rows, limit - 1, (record["created_at"], record["id"]))


async def _bodies(database: Database, ids: Sequence[int]) -> list[tuple[int, bytes]]:
    query = select(history.c.id, history.c.request_body).where(history.c.id.in_(ids))
    async with database.read() as connection:
        found = {id: body or b"" for id, body in await connection.execute(query)}
    return [(id, found[id]) for id in ids if id in found]


def _best(rows: Sequence[tuple[int, bytes]], endpoint: Endpoint, ours: Mapping[str, str]) -> Nearest | None:
    best: Nearest | None = None
    for id, body in rows:
        fields = keyed(endpoint, body)
        if fields is None:
            continue
        likeness = similarity(ours, dict(leaves(fields)))
        if best is None or likeness > best.similarity:
            best = Nearest(id, fields, likeness)
    return best


def keyed(endpoint: Endpoint, body: bytes) -> Fields | None:
    """The fields of a request body that are part of the key, sorted by name; None where the body is not whole."""
    try:
        fields = parse(body)
    except BadRequest:
        return None
    if endpoint.streams and "stream" not in endpoint.excused:
        fields["stream"] = fields.get("stream") if fields.get("stream") is not None else endpoint.streams_by_default
    if endpoint.per_input and "input" in fields:
        fields["input"] = _inputs(fields["input"])
    names = set(fields) - excused(endpoint).keys()
    if options := shaping(fields.get("stream_options")):
        fields["stream_options"] = options
        names.add("stream_options")
    return {name: fields[name] for name in sorted(names)}


def _inputs(value: Any) -> list[Any]:
    """One text, or one list of token numbers, is the same as a list of it."""
    return value if isinstance(value, list) and not (value and isinstance(value[0], int)) else [value]


def excused(endpoint: Endpoint) -> dict[str, str]:
    """Field -> why it is no part of the key. What is keyed input by input is a part of it."""
    return {name: why for name, why in endpoint.excused.items() if not (endpoint.per_input and name == "input")}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The texts, numbers and empty things in a value, by their path; texts as they are, all else as JSON."""
    if len(path) > _LONGEST_PATH:
        # each leaf repeats it
        path = sha256(path.encode("utf-8", "surrogatepass")).hexdigest()
    if isinstance(value, dict) and value:
        for name, member in value.items():
            yield from leaves(member, f"{path}.{name}")
    elif isinstance(value, list) and value:
        for place, item in enumerate(value):
            yield from leaves(item, f"{path}[{place}]")
    else:
        yield path, value if isinstance(value, str) else orjson.dumps(value).decode()


def similarity(ours: Mapping[str, str], theirs: Mapping[str, str]) -> float:
    """The share of characters that are the same, over all leaves; each leaf counts for one more, be it empty."""
    shared = total = 0
    for path in {**ours, **theirs}:
        mine, other = ours.get(path), theirs.get(path)
        total += max(len(mine or ""), len(other or "")) + 1
        if mine is None or other is None:
            continue
        if mine == other:
            shared += len(mine) + 1
        else:
            head = common(mine, other)
            shared += head + common(mine[head:][::-1], other[head:][::-1])
    return shared / total if total else 1.0


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
    """Sentences that follow from the row alone."""
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
    """The last earlier exchange whose answer was stored under the same key; None if it is too long ago."""
    row, near = history.c, earlier(record, MOST_SOUGHT).subquery()
    stored_before = select(row.request_id, row.created_at, row.finished_at).select_from(
        near.join(history, row.id == near.c.id)
    )
    same = stored_before.where(row.cache_key == record["cache_key"], row.stored == "stored")
    async with database.read() as connection:
        return (await connection.execute(same.order_by(row.id.desc()).limit(1))).mappings().first()


def _gone(record: Record, stored: RowMapping) -> str:
    since = record["created_at"] - stored["created_at"]
    stored_line = f"An answer was stored under this key by request {stored['request_id']}, {since:,.0f} s before"
    if record["cache"] not in (CacheStatus.MISS, CacheStatus.ONLY_IF_CACHED) or record["reason"] != "absent":
        return f"{stored_line}."
    if stored["finished_at"] > record["created_at"]:
        return f"{stored_line}. It was still on its way then."
    return f"{stored_line}. Since then it was flushed, evicted for want of space, or removed past its lifetime."


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
    differing = await asyncio.to_thread(_differing, fields, nearest)
    document["differences"] = differing
    if same and other["stored"] not in ("", "stored") and record["cache"] == CacheStatus.MISS:
        reason = why(other["stored"])
        document["because"].append(f"The same request came before, and its answer was not kept: {reason}")
    if differing and not same:
        paths = ", ".join(dict.fromkeys(each["path"] or "the body" for each in differing[:3]))
        more = f", and in {len(differing) - 3} more" if len(differing) > 3 else ""
        document["because"].append(f"It differs from the request most like it in {paths}{more}.")
    elif not same:
        document["because"] += _elsewhere(record, other)


def _elsewhere(record: Record, other: Record) -> Iterator[str]:
    """Which part of the key differs if the bodies are the same."""
    mine, theirs = ({"namespace": each["namespace"], **each["detail"]} for each in (record, other))
    found = [part for name, part in _PARTS.items() if mine.get(name, "") != theirs.get(name, "")]
    if REDACTED.encode() in (record["request_body"] or b"") and not found:
        found = ["what was redacted in it"]
    for part in found or ["what was not recorded of it"]:
        yield f"The body is the same as that of the request most like it; what differs is {part}."


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


def _differing(fields: Fields, nearest: Nearest) -> list[Document]:
    return [_difference_json(each) for each in islice(differences(fields, nearest.fields), _MOST)]


def _difference_json(difference: Difference) -> Document:
    document: Document = {"path": difference.path, "kind": difference.kind, "note": difference.note}
    if difference.kind is DifferenceKind.TEXT:
        ours, theirs = difference.ours, difference.theirs
        document["spans"] = [_span(span, ours, theirs) for span in difference.spans[:_MOST]]
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
