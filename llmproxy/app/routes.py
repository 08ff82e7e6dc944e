"""Every URL on one screen. What is not here is passed through to the upstream."""

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from llmproxy.admin.routes import routes as admin_routes
from llmproxy.app import health
from llmproxy.config.settings import Settings
from llmproxy.proxy.endpoint import CachedEndpoint
from llmproxy.proxy.models import Models
from llmproxy.proxy.relay import Relay
from llmproxy.wire.endpoints import BY_PATH


class Dispatch:
    """Pure ASGI. Cached endpoints are found by their path alone, ahead of the router and its regular expressions."""

    def __init__(self, settings: Settings) -> None:
        self._cached = {path: CachedEndpoint(row) for path, row in BY_PATH.items()}
        self._router = Router(
            [
                Route("/v1/models", Models()),
                Route("/v1/models/{id:path}", Models()),
                Route("/health", health.health, methods=["GET"]),
                Route("/ready", health.ready, methods=["GET"]),
                Route("/metrics", health.metrics, methods=["GET"]),
                *admin_routes(settings),
            ],
            redirect_slashes=False,
            default=Relay(),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._cached.get(scope["path"]) if scope["method"] == "POST" else None
        # another method on a cached path is the upstream's affair: GET /v1/chat/completions lists stored ones
        await (endpoint or self._router)(scope, receive, send)
