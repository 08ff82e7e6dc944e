"""What a browser gets at ``/``. Everybody else's request for it goes on to the model server."""

from functools import partial
from html import escape
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from llmproxy import __version__
from llmproxy.app.banner import exports
from llmproxy.config.settings import RootPage, Settings

_FILE = Path(__file__).parent / "front_page.html"
#: the query with which a browser asks for the model server's own page
_UPSTREAM = b"upstream"

_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
    "vary": "accept",
}


class BrowserRoute(Route):
    """Matches only what a browser sends for a page to look at."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        is_page = match is Match.FULL and "text/html" in Headers(scope=scope).get("accept", "")
        return (match, found) if is_page and scope["query_string"] != _UPSTREAM else (Match.NONE, {})


def routes(settings: Settings) -> list[Route]:
    """The route of ``/``; none if the model server answers there in any case."""
    if settings.root is RootPage.UPSTREAM:
        return []
    page = partial(_page, has_keys=bool(settings.api_keys))
    return [BrowserRoute("/", _to_ui if settings.root is RootPage.UI else page, methods=["GET"], name="front-page")]


async def _page(request: Request, *, has_keys: bool) -> Response:
    url = f"{request.url.scheme}://{request.url.netloc}"
    text = _FILE.read_text(encoding="utf-8")
    for name, value in (("version", __version__), ("exports", exports(url, has_keys=has_keys))):
        text = text.replace(f"{{{name}}}", escape(value))
    return Response(text, headers=_HEADERS, media_type="text/html; charset=utf-8")


async def _to_ui(request: Request) -> Response:
    return RedirectResponse("ui", 307, headers={"vary": "accept", "cache-control": "no-cache"})
