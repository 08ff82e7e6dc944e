"""The names of a query's parameters, read strictly: one that is unknown is refused, not ignored."""

from collections.abc import Collection

from starlette.requests import Request

from llmproxy.wire.errors import BadRequest


def query_parameters(request: Request, names: Collection[str]) -> dict[str, str]:
    """Returns the parameters of a query. Raises ``BadRequest`` for one that is not in ``names``, or comes twice."""
    parameters: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in names:
            raise BadRequest(f"There is no parameter {name[:40]!r}; there are {', '.join(names)}.", param=name[:40])
        if name in parameters:
            raise BadRequest(f"'{name}' is given twice.", param=name)
        parameters[name] = value
    return parameters
