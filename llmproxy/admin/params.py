"""JSON answers, and the names of a query's parameters: one that is unknown is refused, not passed over."""

from collections.abc import Collection
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from llmproxy.wire.errors import BadRequest


def json_answer(document: Any) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


def given(request: Request, known: Collection[str]) -> dict[str, str]:
    """The query's parameters. Raises ``BadRequest`` for one that is unknown, or is given twice."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise BadRequest(f"There is no parameter {name[:40]!r}; there are {', '.join(known)}.", param=name[:40])
        if name in found:
            raise BadRequest(f"'{name}' is given twice.", param=name)
        found[name] = value
    return found
