"""The table of all URLs with their access levels. Other paths are passed through to the upstream, for callers."""

from starlette.routing import Route
from starlette.types import ASGIApp

from llmproxy.admin.openapi.pages import description_group
from llmproxy.admin.routes import route_groups as admin_groups
from llmproxy.api.chat import store_chat
from llmproxy.api.responses_endpoint import store_response
from llmproxy.api.routes import routes as job_routes
from llmproxy.app import front_page, health
from llmproxy.config.settings import Settings
from llmproxy.middleware.routing import AccessLevel, RouteGroup, RouteTable
from llmproxy.proxy.endpoint import PASS_THROUGH, Before, ProxyEndpoint
from llmproxy.proxy.model_name import LISTS
from llmproxy.proxy.models import OLLAMA_LISTS, Models
from llmproxy.wire.endpoints import BY_PATH


def route_table(settings: Settings) -> RouteTable:
    """The routes that these settings switch on."""
    groups = _groups(settings)
    return RouteTable([*groups, description_group(groups)], posts=_cached(settings), fallback=PASS_THROUGH)


def _groups(settings: Settings) -> list[RouteGroup]:
    return [
        RouteGroup(
            AccessLevel.CALLER,
            [
                *(Route(path, Models()) for path in (*LISTS, *OLLAMA_LISTS)),
                *(Route(f"{path}/{{id:path}}", Models()) for path in LISTS),
                *(job_routes() if settings.jobs else ()),
            ],
            trees=("/api/completions", "/api/tasks"),
        ),
        RouteGroup(
            AccessLevel.OPEN,
            [
                *front_page.routes(settings),
                Route("/health", health.health, methods=["GET"]),
                Route("/ready", health.ready, methods=["GET"]),
                Route("/metrics", health.metrics, methods=["GET"]),
            ],
        ),
        RouteGroup(
            AccessLevel.OPERATOR,
            [Route("/api/health", health.api_health, methods=["GET"], name="api-health")],
            trees=("/api/health",),
        ),
        *admin_groups(settings),
    ]


def _cached(settings: Settings) -> dict[str, ASGIApp]:
    """The cached endpoints. Another method on such a path is another matter: GET /v1/chat/completions lists."""
    before: dict[str, Before] = {}
    if settings.jobs:
        before["responses"] = store_response
    if settings.jobs and settings.store_answers:
        before["chat"] = store_chat
    return {path: ProxyEndpoint(row, before.get(row.name)) for path, row in BY_PATH.items()}
