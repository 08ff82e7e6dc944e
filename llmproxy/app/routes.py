"""Every URL on one screen. What is not here is passed through to the upstream."""

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from llmproxy.admin.guard import Guard
from llmproxy.admin.routes import routes as admin_routes
from llmproxy.app import health, standing
from llmproxy.config.settings import Settings
from llmproxy.jobs.chats.endpoint import ChatsEndpoint
from llmproxy.jobs.responses.endpoint import ResponsesEndpoint
from llmproxy.jobs.routes import routes as job_routes
from llmproxy.proxy.endpoint import CachedEndpoint
from llmproxy.proxy.models import Models
from llmproxy.proxy.relay import Relay
from llmproxy.wire.endpoints import BY_PATH


class Dispatch:
    """Pure ASGI. Cached endpoints are found by their path alone, ahead of the router and its regular expressions."""

    def __init__(self, settings: Settings) -> None:
        self._cached: dict[str, ASGIApp] = {path: CachedEndpoint(row) for path, row in BY_PATH.items()}
        if settings.jobs:
            self._cached |= {path: ResponsesEndpoint(BY_PATH[path]) for path in BY_PATH if path.endswith("/responses")}
        if settings.jobs and settings.store_answers:
            self._cached |= {path: ChatsEndpoint(row) for path, row in BY_PATH.items() if row.name == "chat"}
        guard = [Middleware(Guard, settings=settings)]
        self._router = Router(
            [
                Route("/v1/models", Models()),
                Route("/v1/models/{id:path}", Models()),
                Route("/health", health.health, methods=["GET"]),
                Route("/ready", health.ready, methods=["GET"]),
                Route("/metrics", health.metrics, methods=["GET"]),
                *(job_routes() if settings.jobs else ()),
                Route("/api/health", standing.standing, methods=["GET"], name="api-health", middleware=guard),
                *admin_routes(settings),
            ],
            redirect_slashes=False,
            default=Relay(),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._cached.get(scope["path"]) if scope["method"] == "POST" else None
        # another method on a cached path is another matter: GET /v1/chat/completions lists stored ones
        if endpoint is not None:
            await endpoint(scope, receive, send)
            return
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            if error.status_code != 405 or not (allowed := self._allowed(scope)):
                raise
            raise HTTPException(405, headers={"Allow": ", ".join(allowed)}) from None

    def _allowed(self, scope: Scope) -> list[str]:
        """What all routes of the path allow together (RFC 9110 section 15.5.6): Starlette tells the first one's."""
        here = (
            each for each in self._router.routes if isinstance(each, Route) and each.matches(scope)[0] != Match.NONE
        )
        return sorted({method for route in here for method in route.methods or ()})
