"""The operator's URLs."""

from collections.abc import Awaitable, Callable

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from llmproxy.admin import api, entries, history, jobs, performance, sessions
from llmproxy.admin.guard import Guard
from llmproxy.admin.ui import assets
from llmproxy.config.settings import Settings

Handler = Callable[[Request], Awaitable[Response]]


def routes(settings: Settings) -> list[BaseRoute]:
    """``/admin`` and the statistics under ``/api``, all behind the guard; and the page that shows them."""
    guard = [Middleware(Guard, settings=settings)]
    return [
        Mount(
            "/admin",
            name="admin",
            routes=[
                Route("/cache/flush", api.flush, methods=["POST"], name="cache-flush"),
                Route("/cache/entries", entries.entries, methods=["GET"], name="cache-entries"),
                Route("/cache/groups", entries.groups, methods=["GET"], name="cache-groups"),
                Route("/cache/entries/{key}", api.entry, methods=["GET"], name="cache-entry"),
                *(jobs.routes() if settings.jobs else jobs.routes_switched_off()),
            ],
            middleware=guard,
        ),
        Route("/api/cache/stats", api.cache_stats, methods=["GET"], name="cache-stats", middleware=guard),
        Route("/api/performance", performance.performance, methods=["GET"], name="performance", middleware=guard),
        Route("/api/history", history.history_or_erase, methods=["GET", "DELETE"], name="history", middleware=guard),
        Route("/api/sessions", sessions.sessions, methods=["GET"], name="sessions", middleware=guard),
        Route("/api/users", sessions.users, methods=["GET"], name="users", middleware=guard),
        # mounted: whatever is below them is ours, and never passed through without a caller's key
        Mount("/api/history", routes=_exchange(), middleware=guard),
        Mount("/api/sessions", routes=[_get("/{id:path}", sessions.session, "session")], middleware=guard),
        Mount("/api/users", routes=[_get("/{id:path}", sessions.user, "user")], middleware=guard),
        *assets.routes(),
    ]


def _exchange() -> list[BaseRoute]:
    # ids are the callers' to choose, and may hold anything
    return [
        _get("/{request_id:path}/explain", history.explain, "history-explain"),
        _get("/{request_id:path}", history.exchange, "history-exchange"),
    ]


def _get(path: str, endpoint: Handler, name: str) -> BaseRoute:
    return Route(path, endpoint, methods=["GET"], name=name)
