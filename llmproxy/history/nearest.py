"""The earlier request that is most like another one, among the last ones to the same endpoint and model."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson
from sqlalchemy import Select, literal, select, tuple_

from llmproxy.database.engine import Database
from llmproxy.history.detail import Record
from llmproxy.history.json_diff import common
from llmproxy.history.tables import history
from llmproxy.wire.endpoints import Endpoint, shaping
from llmproxy.wire.errors import BadRequest
from llmproxy.wire.json_body import parse

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
    wanted = select(row.id, row.cache_key).select_from(near.join(history, row.id == near.c.id))
    wanted = wanted.where(row.endpoint == record["endpoint"], row.body_bytes > 0)
    newest: dict[str, int] = {}
    async with database.read() as connection:
        for id, key in await connection.execute(wanted):
            newest[key or str(id)] = max(id, newest.get(key or str(id), id))
    same = newest.get(record["cache_key"])
    return sorted(newest.values(), key=lambda id: (id == same, id), reverse=True)[:MOST_COMPARED]


def earlier(record: Record, limit: int) -> Select[Any]:
    """Ids of the rows before this one of the same model, the newest first."""
    order = history.c.created_at, history.c.id
    before = tuple_(*order) < tuple_(literal(record["created_at"]), literal(record["id"]))
    rows = select(history.c.id).where(history.c.model == record["model"], before)
    return rows.order_by(*(column.desc() for column in order)).limit(limit)


async def _bodies(database: Database, ids: Sequence[int]) -> list[tuple[int, bytes]]:
    wanted = select(history.c.id, history.c.request_body).where(history.c.id.in_(ids))
    async with database.read() as connection:
        found = {id: body or b"" for id, body in await connection.execute(wanted)}
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
    if kept := shaping(fields.get("stream_options")):
        fields["stream_options"] = kept
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
