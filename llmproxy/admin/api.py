"""The operator's API to the cache: flush, one entry, what it did."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from llmproxy.admin.selectors import selector
from llmproxy.admin.state import state_of
from llmproxy.cache.entry import Entry
from llmproxy.wire.errors import BadRequest, NotFound, TooLarge, Unavailable
from llmproxy.wire.json_body import parse

_LONGEST_BODY = 64 * 1024


async def flush(request: Request) -> Response:
    """``POST /admin/cache/flush``."""
    body = parse(await _small(request))
    dry_run = body.get("dry_run", False)
    if not isinstance(dry_run, bool):
        raise BadRequest("'dry_run' must be a boolean.", param="dry_run")
    state, chosen = state_of(request), selector(body)
    flushed = await state.cache.flush(chosen, dry_run=dry_run)
    if flushed.failed:
        tiers = ", ".join(flushed.failed)
        raise Unavailable(f"{flushed.entries} entries were flushed, but the tier {tiers} failed and may keep some.")
    if flushed.unconfirmed:
        number = len(flushed.unconfirmed)
        raise Unavailable(
            f"{flushed.entries} entries were flushed, but {number} of the processes that share the database did not "
            "confirm it in time and may keep some in memory."
        )
    return _json({"flushed": flushed.entries, "bytes": flushed.bytes})


async def entry(request: Request) -> Response:
    """``GET /admin/cache/entries/{key}``; the first digits of a key will do."""
    prefix = request.path_params["key"].lower()
    if not prefix or len(prefix) > 64 or not set(prefix) <= set("0123456789abcdef"):
        raise BadRequest("A key is up to 64 hex digits.", param="key")
    found = await state_of(request).cache.lookup(prefix)
    if found is None:
        raise NotFound(f"No entry has a key that begins with {prefix}.")
    return _json(_shown(found))


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
    return _json(document)


async def _small(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_BODY:
            raise TooLarge(f"This request takes at most {_LONGEST_BODY} bytes.")
    return body


def _shown(entry: Entry) -> dict[str, Any]:
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


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")
