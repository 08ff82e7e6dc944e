"""Phases ``watch``, ``record`` and ``count``: whatever becomes of a request, it is noted at the end."""

from collections import Counter
from collections.abc import Callable
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmproxy.wire.exchange import EXCHANGE, Exchange
from llmproxy.wire.vocabulary import Phase


class InFlight:
    """How many requests are in work, by endpoint."""

    def __init__(self) -> None:
        self._by_id: dict[int, Exchange] = {}
        #: every endpoint that ever had one, so that an idle one is shown as 0
        self._seen: set[str] = set()

    def enter(self, exchange: Exchange) -> None:
        self._by_id[id(exchange)] = exchange

    def leave(self, exchange: Exchange) -> None:
        self._seen.add(exchange.endpoint)
        del self._by_id[id(exchange)]

    def __len__(self) -> int:
        return len(self._by_id)

    def by_endpoint(self) -> dict[str, int]:
        now = Counter(exchange.endpoint for exchange in self._by_id.values())
        return dict.fromkeys(self._seen, 0) | now


class Access:
    """Pure ASGI. Hands the finished exchange to ``count``, which must neither block nor raise."""

    def __init__(self, app: ASGIApp, count: Callable[[Exchange], None], in_flight: InFlight) -> None:
        self._app = app
        self._count = count
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange: Exchange = scope[EXCHANGE]

        async def watched(message: Message) -> None:
            if exchange.status == 0 and message["type"] == "http.response.start":
                exchange.status = message["status"]
            await send(message)

        exchange.mark(Phase.WATCH)
        self._in_flight.enter(exchange)
        try:
            await self._app(scope, receive, watched)
        finally:
            exchange.finished = perf_counter()
            if exchange.endpoint == "other" and (route := scope.get("route")) is not None:
                exchange.endpoint = route.name or "other"
            self._in_flight.leave(exchange)
            self._count(exchange)
