"""What is in the cache: entries page by page, and what they add up to."""

import dataclasses
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from starlette.requests import Request
from starlette.responses import Response

from llmproxy.admin.params import given, json_answer
from llmproxy.admin.state import state_of
from llmproxy.cache.browse import EntryBrowser, EntryCursor, EntryQuery, Order
from llmproxy.cache.tier import Selector
from llmproxy.database.faults import fault_of
from llmproxy.wire.endpoints import ENDPOINTS
from llmproxy.wire.errors import BadRequest, NotFound, ProxyError, Unavailable
from llmproxy.wire.validation import query_limit, query_word

_MOST = 500
_ORDERS = ("newest", "largest")
_PARAMETERS = ("model", "namespace", "tag", "endpoint", "prefix", "order", "limit", "cursor")
_PREFIX = re.compile("[0-9a-fA-F]{1,64}")
_CURSOR = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


async def entries(request: Request) -> Response:
    """``GET /admin/cache/entries?model=&namespace=&tag=&endpoint=&prefix=&order=newest|largest&limit=&cursor=``."""
    found = given(request, _PARAMETERS)
    wanted = EntryQuery(
        _selector(found),
        limit=query_limit(found, 50, _MOST),
        order=cast(Order, query_word(found, "order", _ORDERS) or "newest"),
        after=_place(found["cursor"]) if "cursor" in found else None,
    )
    listing = _listing(request)
    async with _readable():
        rows, more = await listing.page(wanted)
    next = None if more is None else f"{more.size}-{more.id}"
    return json_answer({"object": "list", "data": [dataclasses.asdict(row) for row in rows], "next": next})


async def groups(request: Request) -> Response:
    """``GET /admin/cache/groups``: entries and bytes by model, namespace, endpoint, tag, size and age."""
    given(request, ())
    listing = _listing(request)
    async with _readable():
        return json_answer(dataclasses.asdict(await listing.sums()))


def _selector(found: dict[str, str]) -> Selector:
    """Raises ``BadRequest``."""
    prefix = found.get("prefix")
    if prefix is not None and not _PREFIX.fullmatch(prefix):
        raise BadRequest("'prefix' must be up to 64 hex digits.", param="prefix")
    names = ("model", "namespace", "tag", "endpoint", "prefix")
    if not any(name in found for name in names):
        return Selector(all=True)
    return Selector(
        prefix=prefix,
        model=found.get("model"),
        namespace=found.get("namespace"),
        tags=(found["tag"],) if "tag" in found else (),
        endpoint=query_word(found, "endpoint", [row.name for row in ENDPOINTS]),
    )


def _place(text: str) -> EntryCursor:
    """Raises ``BadRequest``."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise BadRequest("'cursor' must be what an earlier page gave as 'next'.", param="cursor")
    return EntryCursor(id=int(match[2]), size=int(match[1]))


def _listing(request: Request) -> EntryBrowser:
    """Raises ``NotFound`` where there is no tier to list."""
    listing = state_of(request).cache.listing
    if listing is None:
        raise NotFound("There is no tier on disk, and only its entries can be listed (LLMPROXY_CACHE_DISK_BYTES).")
    return listing


@asynccontextmanager
async def _readable() -> AsyncIterator[None]:
    try:
        yield
    except ProxyError:
        raise
    except Exception as error:  # any driver's any fault: they have nothing else in common
        raise Unavailable(f"The cache cannot be listed now ({fault_of(error)}).") from error
