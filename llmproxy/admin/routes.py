"""The operator's URLs, and the page's."""

from starlette.routing import Route

from llmproxy.admin import cache as api
from llmproxy.admin import cache as entries
from llmproxy.admin import history, jobs, performance
from llmproxy.admin import history as sessions
from llmproxy.admin.ui import assets
from llmproxy.config.settings import Settings
from llmproxy.middleware.routing import AccessLevel, RouteGroup


def route_groups(settings: Settings) -> list[RouteGroup]:
    """``/admin`` and the statistics under ``/api``, which are the operator's; and the page that shows them."""
    return [
        RouteGroup(
            AccessLevel.OPERATOR,
            [
                Route("/admin/cache/flush", api.flush, methods=["POST"], name="cache-flush"),
                Route("/admin/cache/entries", entries.entries, methods=["GET"], name="cache-entries"),
                Route("/admin/cache/groups", entries.groups, methods=["GET"], name="cache-groups"),
                Route("/admin/cache/entries/{key}", api.entry, methods=["GET"], name="cache-entry"),
                *(jobs.routes() if settings.jobs else jobs.routes_switched_off()),
            ],
            trees=("/admin",),
        ),
        RouteGroup(
            AccessLevel.OPERATOR,
            [
                Route("/api/cache/stats", api.cache_stats, methods=["GET"], name="cache-stats"),
                Route("/api/performance", performance.performance, methods=["GET"], name="performance"),
                Route("/api/performance/series", performance.series, methods=["GET"], name="performance-series"),
                Route("/api/history", history.history_or_erase, methods=["GET", "DELETE"], name="history"),
                Route("/api/sessions", sessions.sessions, methods=["GET"], name="sessions"),
                Route("/api/users", sessions.users, methods=["GET"], name="users"),
                # whatever is below them is ours: ids are the callers' to choose, and may hold anything
                Route(
                    "/api/history/{request_id:path}/explain", history.explain, methods=["GET"], name="history-explain"
                ),
                Route("/api/history/{request_id:path}", history.exchange, methods=["GET"], name="history-exchange"),
                Route("/api/sessions/{id:path}", sessions.session, methods=["GET"], name="session"),
                Route("/api/users/{id:path}", sessions.user, methods=["GET"], name="user"),
            ],
            trees=("/api/cache", "/api/performance", "/api/history", "/api/sessions", "/api/users"),
        ),
        RouteGroup(AccessLevel.OPEN, assets.routes()),
    ]
