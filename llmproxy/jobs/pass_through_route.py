"""A route that leaves every other method on its path to somebody else."""

from starlette.routing import Match, Route
from starlette.types import Scope


class PassThroughRoute(Route):
    """``POST /v1/responses/input_tokens`` is the upstream's, although ``GET /v1/responses/{id}`` is ours."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return (match, found) if match is Match.FULL else (Match.NONE, {})
