"""Phase ``limit``: how many requests may be in work at once, in all and for each caller."""

from collections import Counter

from starlette.types import ASGIApp, Receive, Scope, Send

from llmproxy.config.settings import Settings
from llmproxy.middleware.routing import RESOLVED, AccessLevel
from llmproxy.wire.errors import TooMany
from llmproxy.wire.exchange import EXCHANGE, Exchange
from llmproxy.wire.headers import retry_after
from llmproxy.wire.vocabulary import Phase

_RETRY = (retry_after(1),)


class RequestLimits:
    """Pure ASGI. Raises ``TooMany``."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._most = settings.max_in_flight
        self._most_each = settings.max_in_flight_per_caller
        self._total = 0
        self._each: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope[RESOLVED].access is AccessLevel.OPEN:
            await self._app(scope, receive, send)
            return
        exchange: Exchange = scope[EXCHANGE]
        caller = exchange.caller.name or (scope.get("client") or ("",))[0]
        if self._total >= self._most:
            raise TooMany(f"{self._most} requests are in work already (LLMPROXY_MAX_IN_FLIGHT).", headers=_RETRY)
        if self._most_each and self._each[caller] >= self._most_each:
            raise TooMany(
                f"This caller has {self._most_each} requests in work already (LLMPROXY_MAX_IN_FLIGHT_PER_CALLER).",
                headers=_RETRY,
            )
        exchange.mark(Phase.LIMIT)
        self._total += 1
        self._each[caller] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._total -= 1
            self._each[caller] -= 1
            if not self._each[caller]:
                del self._each[caller]
