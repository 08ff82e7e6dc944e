"""The URLs of Responses by their ids, with ``/v1`` and without."""

from starlette.routing import Route

from llmproxy.jobs.pass_through_route import PassThroughRoute
from llmproxy.jobs.responses import api


def routes() -> list[Route]:
    """``POST`` on the bare path is ``endpoint.ResponsesEndpoint``, which is mounted ahead of the router."""
    return [
        route
        for prefix in ("/v1/responses", "/responses")
        for route in (
            PassThroughRoute(f"{prefix}/{{id}}", api.Retrieve(), methods=["GET"], name="response"),
            PassThroughRoute(f"{prefix}/{{id}}", api.delete, methods=["DELETE"], name="response-delete"),
            PassThroughRoute(f"{prefix}/{{id}}/cancel", api.cancel, methods=["POST"], name="response-cancel"),
            PassThroughRoute(
                f"{prefix}/{{id}}/input_items", api.input_items, methods=["GET"], name="response-input-items"
            ),
        )
    ]
