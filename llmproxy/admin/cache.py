"""The operator's API to the cache: what is in it, what it did, and what to flush."""

import dataclasses
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import orjson
from starlette.requests import Request
from starlette.responses import Response

from llmproxy.admin.params import query_parameters
from llmproxy.admin.state import state_of
from llmproxy.api.http import json_response
from llmproxy.cache.browse import EntryBrowser, EntryQuery, Order
from llmproxy.cache.entry import Entry
from llmproxy.cache.tier import Selector
from llmproxy.database.faults import DEFECTS, fault_of
from llmproxy.history.search import HistoryQuery
from llmproxy.history.text_index import phrases_of
from llmproxy.wire.endpoints import ENDPOINTS
from llmproxy.wire.errors import BadRequest, InternalError, NotFound, ProxyError, TooLarge, Unavailable
from llmproxy.wire.json_body import parse
from llmproxy.wire.validation import query_choice, query_limit

_MOST = 500
ORDERS = ("newest", "largest")
PARAMETERS = ("model", "namespace", "tag", "endpoint", "prefix", "q", "order", "limit", "cursor")
#: exchanges that are looked at for words: the newest that hold them
_MOST_FOUND = 1_000
_PREFIX = re.compile("[0-9a-fA-F]{1,64}")


async def entries(request: Request) -> Response:
    """``GET /admin/cache/entries?model=&namespace=&tag=&endpoint=&prefix=&q=&order=newest|largest&limit=&cursor=``.

    ``q`` are words of the question or the answer. Each entry has ``question``, ``hits`` and ``last_used``, and
    ``request_id`` and ``exchange`` of its newest use, as far as the history knows them.
    """
    query = query_parameters(request, PARAMETERS)
    entry_query = EntryQuery(
        _selector(query),
        limit=query_limit(query, 50, _MOST),
        order=cast(Order, query_choice(query, "order", ORDERS) or "newest"),
        after=query.get("cursor"),
        keys=await _keys_with(request, query["q"]) if "q" in query else None,
    )
    browser = _browser(request)
    async with _readable():
        rows, more = await browser.page(entry_query)
    uses = await _uses(request, [row.key for row in rows])
    data = [{**dataclasses.asdict(row), **_use_json(uses.get(row.key), row.used)} for row in rows]
    return json_response({"object": "list", "data": data, "next": more})


async def groups(request: Request) -> Response:
    """``GET /admin/cache/groups``: entries and bytes by model, namespace, endpoint, tag, size and age."""
    query_parameters(request, ())
    browser = _browser(request)
    async with _readable():
        return json_response(dataclasses.asdict(await browser.sums()))


async def _keys_with(request: Request, text: str) -> list[bytes]:
    """The keys of the newest exchanges with these words. Raises ``BadRequest``, ``NotFound`` without a history."""
    phrases = phrases_of(text)
    if not any(phrases):
        raise BadRequest("'q' must hold a word.", param="q")
    state = state_of(request)
    state.settle()
    found = await state.history.reader.page(HistoryQuery(_MOST_FOUND, text=tuple(map(tuple, phrases))))
    return [bytes.fromhex(key) for key in {row["key"] for row in found.rows} if key]


async def _uses(request: Request, keys: list[str]) -> dict[str, dict[str, Any]]:
    """What the history knows of them; nothing if there is none, or it cannot be read."""
    state = state_of(request)
    state.settle()
    try:
        return await state.history.reader.uses(keys)
    except (NotFound, InternalError):
        return {}


def _use_json(use: dict[str, Any] | None, used: float) -> dict[str, Any]:
    """``used`` is when a tier noted the entry's last use: those of the memory tier it does not note."""
    if use is None:
        return {"question": None, "hits": None, "last_used": used, "request_id": None, "exchange": None}
    names = ("question", "hits", "request_id", "exchange")
    return {**{name: use[name] for name in names}, "last_used": max(used, use["last_used"])}


def _selector(query: dict[str, str]) -> Selector:
    """Raises ``BadRequest``."""
    prefix = query.get("prefix")
    if prefix is not None and not _PREFIX.fullmatch(prefix):
        raise BadRequest("'prefix' must be up to 64 hex digits.", param="prefix")
    names = ("model", "namespace", "tag", "endpoint", "prefix")
    if not any(name in query for name in names):
        return Selector(all=True)
    return Selector(
        prefix=prefix,
        model=query.get("model"),
        namespace=query.get("namespace"),
        tags=(query["tag"],) if "tag" in query else (),
        endpoint=query_choice(query, "endpoint", [row.name for row in ENDPOINTS]),
    )


def _browser(request: Request) -> EntryBrowser:
    """Raises ``NotFound`` if no tier can be listed."""
    browser = state_of(request).cache.listing
    if browser is None:
        raise NotFound("There is no tier on disk, and only its entries can be listed (LLMPROXY_CACHE_DISK_BYTES).")
    return browser


@asynccontextmanager
async def _readable() -> AsyncIterator[None]:
    try:
        yield
    except (ProxyError, *DEFECTS):
        raise
    except Exception as error:  # any driver's any fault: they have nothing else in common
        raise Unavailable(f"The cache cannot be listed now ({fault_of(error)}).") from error


_LONGEST_BODY = 64 * 1024


async def flush(request: Request) -> Response:
    """``POST /admin/cache/flush``."""
    body = parse(await _read_body(request))
    dry_run = body.get("dry_run", False)
    if not isinstance(dry_run, bool):
        raise BadRequest("'dry_run' must be a boolean.", param="dry_run")
    state, selected = state_of(request), selector(body)
    flushed = await state.cache.flush(selected, dry_run=dry_run)
    if flushed.failed:
        tiers = ", ".join(flushed.failed)
        raise Unavailable(f"{flushed.entries} entries were flushed, but the tier {tiers} failed and may keep some.")
    if flushed.unconfirmed:
        number = len(flushed.unconfirmed)
        raise Unavailable(
            f"{flushed.entries} entries were flushed, but {number} of the processes that share the database did not "
            "confirm it in time and may keep some in memory."
        )
    return json_response({"flushed": flushed.entries, "bytes": flushed.bytes})


async def entry(request: Request) -> Response:
    """``GET /admin/cache/entries/{key}``; the first digits of a key will do. With what lists say of its use."""
    prefix = request.path_params["key"].lower()
    if not prefix or len(prefix) > 64 or not set(prefix) <= set("0123456789abcdef"):
        raise BadRequest("A key is up to 64 hex digits.", param="key")
    entry = await state_of(request).cache.lookup(prefix)
    if entry is None:
        raise NotFound(f"No entry has a key that begins with {prefix}.")
    key = entry.key.hex()
    use = (await _uses(request, [key])).get(key)
    return json_response({**_entry_json(entry), **_use_json(use, entry.created)})


async def cache_stats(request: Request) -> Response:
    """``GET /api/cache/stats``."""
    state = state_of(request)
    state.settle()
    tiers = await state.cache.stats()
    oldest = [stats.oldest for stats in tiers.values() if stats.oldest is not None]
    document = {
        **state.rates.snapshot(),
        "tiers": {
            name: {
                "entries": stats.entries,
                "bytes": stats.bytes,
                "oldest": stats.oldest,
                "hits": state.rates.hits_by(name),
                "evictions": stats.evictions,
            }
            for name, stats in tiers.items()
        },
        "oldest": min(oldest, default=None),
    }
    return json_response(document)


async def _read_body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_BODY:
            raise TooLarge(f"This request takes at most {_LONGEST_BODY} bytes.")
    return body


def _entry_json(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key.hex(),
        "endpoint": entry.operation,
        "model": entry.model,
        "namespace": entry.namespace,
        "tags": entry.tags,
        "created": entry.created,
        "expires": entry.expires,
        "bytes": entry.size,
        "streamed": bool(entry.frames),
        "upstream_seconds": entry.upstream_seconds,
        "prompt_tokens": entry.prompt_tokens,
        "completion_tokens": entry.completion_tokens,
        "document": orjson.Fragment(entry.document),
    }


_FIELDS = ("key", "model", "namespace", "tags", "endpoint", "older_than", "prefix")
_HEX = frozenset("0123456789abcdef")


def selector(body: dict[str, Any]) -> Selector:
    """``{"all": true}``, or any of key, prefix, model, namespace, tags, endpoint, older_than (seconds).

    Raises ``BadRequest``.
    """
    fields = {name: value for name, value in body.items() if name != "dry_run"}
    if unknown := set(fields) - {*_FIELDS, "all"}:
        raise BadRequest(f"Unknown field {sorted(unknown)[0]!r}; a flush takes all, dry_run, {', '.join(_FIELDS)}.")
    if "all" in fields:
        if fields != {"all": True}:
            raise BadRequest("'all' must be true and stand alone.", param="all")
        return Selector(all=True)
    if not fields:
        raise BadRequest("Say what to flush: one or more of " + ", ".join(_FIELDS) + ', or {"all": true}.')
    key = _hex(fields, "key")
    if key is not None and len(key) != 64:
        raise BadRequest("'key' must be 64 hex digits; 'prefix' takes fewer.", param="key")
    endpoint = _text(fields, "endpoint")
    if endpoint is not None and endpoint not in {row.name for row in ENDPOINTS}:
        names = ", ".join(row.name for row in ENDPOINTS)
        raise BadRequest(f"Unknown endpoint {endpoint[:40]!r}; known are {names}.", param="endpoint")
    seconds = _age(fields)
    if seconds == 0 and len(fields) == 1:
        return Selector(all=True)
    return Selector(
        key=bytes.fromhex(key) if key else None,
        prefix=_hex(fields, "prefix"),
        model=_text(fields, "model"),
        namespace=_text(fields, "namespace"),
        tags=_tags(fields),
        endpoint=endpoint,
        # of no age at all is everything, whatever the clock says
        created_before=time.time() - seconds if seconds else None,
        older_than=seconds or None,
    )


def _text(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"'{name}' must be a string.", param=name)
    return value


def _hex(fields: dict[str, Any], name: str) -> str | None:
    value = _text(fields, name)
    if value is None:
        return None
    if not value or len(value) > 64 or not set(value.lower()) <= _HEX:
        raise BadRequest(f"'{name}' must be up to 64 hex digits.", param=name)
    return value.lower()


def _tags(fields: dict[str, Any]) -> tuple[str, ...]:
    value = fields.get("tags", [])
    if isinstance(value, str):
        value = [tag.strip() for tag in value.split(",")]
    if not isinstance(value, list) or not all(isinstance(tag, str) and tag for tag in value):
        raise BadRequest("'tags' must be a list of strings.", param="tags")
    if "tags" in fields and not value:
        raise BadRequest("'tags' must name at least one tag.", param="tags")
    return tuple(value)


def _age(fields: dict[str, Any]) -> float | None:
    """Seconds."""
    value = fields.get("older_than")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise BadRequest("'older_than' must be a number of seconds.", param="older_than")
    return float(value)
