"""Documents as responses, alike for every face of the jobs."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from llmproxy.wire.documents import dump


def rendered(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(dump(document), status, headers, media_type="application/json")


def page(data: Sequence[Mapping[str, Any]], *, more: bool) -> Response:
    """A page of one of OpenAI's lists; ``more`` is whether another one follows."""
    return rendered(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": more,
        }
    )
