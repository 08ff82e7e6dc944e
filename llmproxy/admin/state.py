"""What the operator's API reads of the running proxy."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from starlette.requests import HTTPConnection

from llmproxy.cache.tiers import Cache
from llmproxy.history.history import History
from llmproxy.history.rollups import Rollups
from llmproxy.observe.performance import Rates
from llmproxy.observe.process_stats import Lag, Resources


@dataclass(frozen=True, slots=True)
class AdminState:
    """What requests to the operator's API read and move.

    ``settle`` counts what still waits to be counted, so that figures are up to date. ``database_size`` gives
    bytes; it raises what the database raises.
    """

    cache: Cache
    rates: Rates
    history: History
    settle: Callable[[], None]
    rollups: Rollups
    resources: Resources
    lag: Lag
    database_size: Callable[[], Awaitable[int]]


def state_of(connection: HTTPConnection) -> AdminState:
    return cast(AdminState, connection.scope["state"]["admin"])
