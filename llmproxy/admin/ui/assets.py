"""The page's files, read once, and served with headers that keep the page to itself.

The files are the same for everybody and hold nothing of anybody: the guard stands around the data that they ask for.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmproxy.wire.errors import NotFound

FOLDER = Path(__file__).parent / "static"
INDEX = "index.html"

#: what a browser may load, by the end of its name; other files are not served
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

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
}


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    media_type: str
    etag: str


def read(folder: Path = FOLDER) -> dict[str, Asset]:
    """The files by their paths below ``folder``. Blocking."""
    return {
        path.relative_to(folder).as_posix(): _asset(path.read_bytes(), MEDIA_TYPES[path.suffix])
        for path in sorted(folder.rglob("*"))
        if path.suffix in MEDIA_TYPES
    }


def routes() -> list[Route]:
    """``/ui`` and all below it."""
    assets = read()

    async def index(request: Request) -> Response:
        return _answer(request, assets[INDEX])

    async def asset(request: Request) -> Response:
        found = assets.get(request.path_params["path"] or INDEX)
        if found is None:
            raise NotFound(f"There is nothing at {request.url.path[:100]}.")
        return _answer(request, found)

    return [
        Route("/ui", index, methods=["GET"], name="ui"),
        Route("/ui/{path:path}", asset, methods=["GET"], name="ui-asset"),
    ]


def _asset(body: bytes, media_type: str) -> Asset:
    return Asset(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _answer(request: Request, asset: Asset) -> Response:
    headers: Mapping[str, str] = {**HEADERS, "etag": asset.etag}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if asset.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(asset.body, headers=headers, media_type=asset.media_type)
