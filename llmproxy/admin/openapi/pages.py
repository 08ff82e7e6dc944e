"""``/openapi.json``, and ``/docs``, where RapiDoc shows it. Neither holds any data, and the page needs no network."""

import asyncio
import gzip
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from llmproxy.admin.openapi.description import describe
from llmproxy.admin.ui.assets import HEADERS, POLICY, Asset, asset_response, make_asset
from llmproxy.middleware.routing import AccessLevel, RouteGroup
from llmproxy.wire.documents import dump
from llmproxy.wire.errors import NotFound

FOLDER = Path(__file__).parent / "viewer"
#: the query with which the model server's own page of that name is asked for
_UPSTREAM = b"upstream"

# the viewer writes its styles into the page; its scripts are files all the same
_HEADERS = {
    **HEADERS,
    "content-security-policy": POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'"),
}


class OwnPage(Route):
    """A page of ours, unless the request is for the model server's of the same name."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.NONE, {}) if scope["query_string"] == _UPSTREAM else super().matches(scope)


def description_group(groups: Iterable[RouteGroup]) -> RouteGroup:
    """The routes of the description of ``groups`` and of its page."""
    described = tuple(groups)
    # made when somebody looks, not at every start
    files = cache(read)
    description = cache(lambda: make_asset(dump(describe(described)), "application/json"))

    async def openapi(request: Request) -> Response:
        return asset_response(request, await asyncio.to_thread(description), _HEADERS)

    async def page(request: Request) -> Response:
        return asset_response(request, (await asyncio.to_thread(files))[""], _HEADERS)

    async def file(request: Request) -> Response:
        found = (await asyncio.to_thread(files)).get(request.path_params["path"] or "index.html")
        if found is None:
            raise NotFound(f"There is nothing at {request.url.path[:100]}.")
        return asset_response(request, found, _HEADERS)

    return RouteGroup(
        AccessLevel.OPEN,
        [
            OwnPage("/openapi.json", openapi, methods=["GET"], name="openapi"),
            OwnPage("/docs", page, methods=["GET"], name="docs"),
            Route("/docs/{path:path}", file, methods=["GET"], name="docs-asset"),
        ],
    )


def read(folder: Path = FOLDER) -> dict[str, Asset]:
    """The files by their paths below ``/docs``. Blocking.

    "" is the page itself, ``index.html`` the same for who types a slash behind its address: names are relative to it.
    """
    page = (folder / "docs.html").read_bytes()
    viewer = gzip.decompress((folder / "rapidoc-min.js.gz").read_bytes())
    return {
        "": make_asset(page, "text/html; charset=utf-8"),
        "index.html": make_asset(page.replace(b'="docs/', b'="'), "text/html; charset=utf-8"),
        "docs.js": make_asset((folder / "docs.js").read_bytes(), "text/javascript; charset=utf-8"),
        "rapidoc.js": make_asset(viewer, "text/javascript; charset=utf-8"),
    }
