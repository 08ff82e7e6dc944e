"""The page's files, read once, and served with headers that keep the page to itself.

The files are the same for everybody and hold nothing of anybody: the guard stands around the data that they ask for.
"""

import asyncio
import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmproxy.admin.ui.bundle import script, styles
from llmproxy.wire.errors import NotFound

FOLDER = Path(__file__).parent / "static"

#: scripts, styles and data come from here and nowhere else, and nothing in the page can be run that is no file of ours
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    # kept, and asked after each time: a new version of the program is a new page at once
    "cache-control": "no-cache",
    "vary": "accept-encoding",
}


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    compressed: bytes
    media_type: str
    etag: str


def read(folder: Path = FOLDER) -> dict[str, Asset]:
    """The files by their paths below ``/ui``. Blocking.

    "" is the page itself, ``index.html`` the same for who types a slash behind its address: names are relative to it.
    """
    index = (folder / "index.html").read_bytes()
    return {
        "": make_asset(index, "text/html; charset=utf-8"),
        "index.html": make_asset(index.replace(b'="ui/', b'="'), "text/html; charset=utf-8"),
        "page.css": make_asset(styles(folder), "text/css; charset=utf-8"),
        "page.js": make_asset(script(folder), "text/javascript; charset=utf-8"),
        "icon.svg": make_asset((folder / "icon.svg").read_bytes(), "image/svg+xml"),
    }


def routes() -> list[Route]:
    """``/ui`` and all below it."""
    # compressed when somebody looks at the page, not at every start
    assets = cache(read)

    async def index(request: Request) -> Response:
        return asset_response(request, (await asyncio.to_thread(assets))[""])

    async def asset(request: Request) -> Response:
        found = (await asyncio.to_thread(assets)).get(request.path_params["path"] or "index.html")
        if found is None:
            raise NotFound(f"There is nothing at {request.url.path[:100]}.")
        return asset_response(request, found)

    return [
        Route("/ui", index, methods=["GET"], name="ui"),
        Route("/ui/{path:path}", asset, methods=["GET"], name="ui-asset"),
    ]


def make_asset(body: bytes, media_type: str) -> Asset:
    """A file in both forms in which it is sent."""
    return Asset(body, gzip.compress(body, mtime=0), media_type, hashlib.sha256(body).hexdigest()[:32])


def asset_response(request: Request, asset: Asset, headers: Mapping[str, str] = HEADERS) -> Response:
    """The file, or that the browser has it already."""
    accepted = {coding.partition(";")[0].strip() for coding in request.headers.get("accept-encoding", "").split(",")}
    is_compressed = "gzip" in accepted
    # another form of the same file is another thing to compare with
    etag = f'"{asset.etag}-gzip"' if is_compressed else f'"{asset.etag}"'
    headers = {**headers, "etag": etag}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if etag in known:
        return Response(status_code=304, headers=headers)
    if is_compressed:
        return Response(asset.compressed, headers={**headers, "content-encoding": "gzip"}, media_type=asset.media_type)
    return Response(asset.body, headers=headers, media_type=asset.media_type)
