"""Documents as responses, and routes, alike for every part of the callers' API."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from llmproxy.wire.documents import dump


def json_response(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(dump(document), status, headers, media_type="application/json")


def list_response(data: Sequence[Mapping[str, Any]], *, more: bool) -> Response:
    """A page of one of OpenAI's lists; ``more`` is whether another one follows."""
    return json_response(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": more,
        }
    )


class PassThroughRoute(Route):
    """``POST /v1/responses/input_tokens`` is the upstream's, although ``GET /v1/responses/{id}`` is ours."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return (match, found) if match is Match.FULL else (Match.NONE, {})
