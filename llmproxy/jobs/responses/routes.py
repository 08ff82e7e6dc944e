"""The URLs of Responses by their ids, with ``/v1`` and without."""

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from llmproxy.jobs.responses import api


class _Exact(Route):
    """Another method on the same path is somebody else's: ``POST /v1/responses/input_tokens`` is the upstream's."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return (match, found) if match is Match.FULL else (Match.NONE, {})


def routes() -> list[BaseRoute]:
    """``POST`` on the bare path is ``endpoint.ResponsesEndpoint``, which is mounted ahead of the router."""
    return [
        route
        for prefix in ("/v1/responses", "/responses")
        for route in (
            _Exact(f"{prefix}/{{id}}", api.Retrieve(), methods=["GET"], name="response"),
            _Exact(f"{prefix}/{{id}}", api.delete, methods=["DELETE"], name="response-delete"),
            _Exact(f"{prefix}/{{id}}/cancel", api.cancel, methods=["POST"], name="response-cancel"),
            _Exact(f"{prefix}/{{id}}/input_items", api.input_items, methods=["GET"], name="response-input-items"),
        )
    ]
