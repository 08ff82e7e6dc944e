"""The operator's URLs."""

from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, Route

from llmproxy.admin import api
from llmproxy.admin.guard import Guard
from llmproxy.config.settings import Settings


def routes(settings: Settings) -> list[BaseRoute]:
    """``/admin`` and the statistics under ``/api``, all behind the guard."""
    guard = [Middleware(Guard, settings=settings)]
    return [
        Mount(
            "/admin",
            name="admin",
            routes=[
                Route("/cache/flush", api.flush, methods=["POST"], name="cache-flush"),
                Route("/cache/entries/{key}", api.entry, methods=["GET"], name="cache-entry"),
            ],
            middleware=guard,
        ),
        Route("/api/cache/stats", api.cache_stats, methods=["GET"], name="cache-stats", middleware=guard),
        Route("/api/history", api.history, methods=["GET"], name="history", middleware=guard),
    ]
