"""The table of routes with their access levels. A request is resolved once, from the path as it was parsed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send


class AccessLevel(StrEnum):
    """Who may use a route, the most open level first."""

    #: everybody: what orchestrators and Prometheus read, and the page's files, which hold no data
    OPEN = "open"
    #: callers with an API key, if there are keys
    CALLER = "caller"
    #: operators with the admin token, if there is one
    OPERATOR = "operator"


_STRICTEST_FIRST = tuple(reversed(AccessLevel))


@dataclass(frozen=True, slots=True)
class RouteGroup:
    """Routes with one access level. Each of ``trees`` is a path that is the group's with all below it, even if none of
    its routes matches: such a request gets 404 and never goes upstream."""

    access: AccessLevel
    routes: Sequence[Route]
    trees: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Resolution:
    """What answers one request. ``members`` are added to its ASGI scope."""

    access: AccessLevel
    app: ASGIApp
    members: Mapping[str, Any] = field(default_factory=dict)


class RouteTable:
    """All routes. What none of them matches is a caller's, and goes to ``fallback``.

    ``posts`` are applications for ``POST`` by their path alone, ahead of the routes and their regular expressions;
    they are callers' too.
    """

    def __init__(self, groups: Iterable[RouteGroup], posts: Mapping[str, ASGIApp], fallback: ASGIApp) -> None:
        self.groups = tuple(groups)
        self._posts = {path: Resolution(AccessLevel.CALLER, app) for path, app in posts.items()}
        self._fallback = Resolution(AccessLevel.CALLER, fallback)
        self._routes = [(group.access, _exact(route)) for group in self.groups for route in group.routes]

    @property
    def operating(self) -> frozenset[str]:
        """The names of the routes that serve who operates the proxy: health, scrapes, the page and what it asks."""
        groups = (group for group in self.groups if group.access is not AccessLevel.CALLER)
        return frozenset(route.name for group in groups for route in group.routes)

    def resolve(self, scope: Scope) -> Resolution:
        """Never raises: an unknown method or path is resolved to an application that raises, after authentication."""
        if scope["method"] == "POST" and (post := self._posts.get(scope["path"])) is not None:
            return post
        here: list[tuple[AccessLevel, Route]] = []
        for access, route in self._routes:
            if not route.param_convertors and route.path != scope["path"]:
                # without parameters the path is one word for word, and its regular expression need not be asked
                continue
            match, found = route.matches(scope)
            if match is Match.FULL:
                return Resolution(access, route.app, {**found, "route": route})
            if match is Match.PARTIAL:
                here.append((access, route))
        if here:
            levels = {access for access, _ in here}
            # what all routes of the path allow together (RFC 9110 section 15.5.6)
            allowed = sorted({method for _, route in here for method in route.methods or ()})
            strictest = next(level for level in _STRICTEST_FIRST if level in levels)
            error = HTTPException(405, headers={"Allow": ", ".join(allowed)})
            return Resolution(strictest, _raising(error), {"route": here[0][1]})
        for group in self.groups:
            if any(f"{scope['path']}/".startswith(f"{tree}/") for tree in group.trees):
                return Resolution(group.access, _raising(HTTPException(404)))
        return self._fallback


def _exact(route: Route) -> Route:
    """Starlette's ``$`` matches before a last newline too, and its ``.`` matches none."""
    if route.param_convertors:
        route.path_regex = re.compile(route.path_regex.pattern.removesuffix("$") + r"\Z", re.DOTALL)
    return route


def _raising(error: HTTPException) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app
