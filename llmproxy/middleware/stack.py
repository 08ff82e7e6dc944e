"""What surrounds every request, outermost first. The order is the list."""

from collections.abc import Callable

from starlette.types import ASGIApp

from llmproxy.config.settings import Settings
from llmproxy.middleware.auth import Identify
from llmproxy.middleware.errors import Errors
from llmproxy.middleware.in_flight import Access, InFlight
from llmproxy.middleware.limits import RequestLimits
from llmproxy.middleware.origin import Cors, Origin
from llmproxy.middleware.request_id import RequestId
from llmproxy.middleware.routing import RouteTable
from llmproxy.wire.exchange import Exchange, RequestIds, Tracer


def surround(
    routes: RouteTable,
    settings: Settings,
    ids: RequestIds,
    count: Callable[[Exchange], None],
    in_flight: InFlight,
    tracer: Tracer | None,
) -> ASGIApp:
    """The routes with every layer around them."""
    layers: list[Callable[[ASGIApp], ASGIApp]] = [
        lambda inner: RequestId(inner, ids, tracer),  # name
        lambda inner: Access(inner, count, in_flight),  # watch; at the end record, count
        Errors,  # guard
        lambda inner: Origin(inner, settings),
        *(_cross_origin(settings) if settings.cors_origins else ()),
        lambda inner: Identify(inner, settings, routes),  # identify
        lambda inner: RequestLimits(inner, settings),  # limit
    ]
    app: ASGIApp = routes
    for layer in reversed(layers):
        app = layer(app)
    return app


def _cross_origin(settings: Settings) -> list[Callable[[ASGIApp], ASGIApp]]:
    """A page that may call must be able to read its errors too: inside CORS the guard stands once more."""
    return [lambda inner: Cors(inner, settings), Errors]
