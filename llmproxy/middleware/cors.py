"""Cross-origin requests from browsers: an explicit list of origins, none by default."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from llmproxy.config.settings import Settings
from llmproxy.wire.errors import Forbidden

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
#: what a page may read of a response
_EXPOSED = ("x-request-id", "x-cache", "cache-status", "age", "server-timing", "retry-after", "retry-after-ms")


class Cors(CORSMiddleware):
    """Starlette's, with our error for a preflight that is refused; a preflight never reaches the upstream."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        super().__init__(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=_METHODS,
            allow_headers=["*"],
            expose_headers=_EXPOSED,
            max_age=600,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code >= 400:
            raise Forbidden("This origin may not call the proxy. Allow it with LLMPROXY_CORS_ORIGINS.")
        return response
