"""What surrounds every request, in one object: phases ``name``, ``watch``, ``guard``, ``identify`` and ``limit``.

Seven layers, each with a coroutine and a ``send`` of its own, would cost a tenth of a cached miss.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from llmproxy.config.settings import Settings
from llmproxy.middleware.auth import Authenticator
from llmproxy.middleware.errors import respond, to_proxy_error
from llmproxy.middleware.limits import InFlight, RequestLimits
from llmproxy.middleware.origin import Cors, OriginCheck
from llmproxy.middleware.routing import AccessLevel, RouteTable
from llmproxy.wire.errors import InternalError, Unavailable
from llmproxy.wire.exchange import EXCHANGE, Exchange, RequestIds, Tracer
from llmproxy.wire.headers import retry_after
from llmproxy.wire.vocabulary import Phase

log = logging.getLogger(__name__)

#: what a client may name its request; anything else gets an id of ours
_ACCEPTABLE_ID = re.compile(rb"[!-~]{1,200}")
_STOPPING = Unavailable("The proxy is shutting down.", headers=(retry_after(2),))


class RequestStack:
    """Pure ASGI, for ``http`` scopes. Hands each finished exchange to ``count``, which must neither block nor raise.

    ``state`` is put into every request's scope under ``state``.
    """

    def __init__(
        self,
        routes: RouteTable,
        settings: Settings,
        ids: RequestIds,
        count: Callable[[Exchange], None],
        in_flight: InFlight,
        tracer: Tracer | None,
        state: Mapping[str, Any],
    ) -> None:
        self._routes = routes
        self._ids = ids
        self._count = count
        self._in_flight = in_flight
        self._tracer = tracer
        self._state = state
        self._origin = OriginCheck(settings)
        self._cors = Cors(settings) if settings.cors_origins else None
        self._authenticator = Authenticator(settings)
        self._limits = RequestLimits(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._begin(scope)
        response = _Response(send, exchange)
        exchange.mark(Phase.NAME)
        exchange.mark(Phase.WATCH)
        self._in_flight.enter(exchange)
        try:
            self._origin.check(scope)
            exchange.mark(Phase.GUARD)
            if self._cors is not None:
                if (preflight := self._cors.preflight(scope)) is not None:
                    await preflight(scope, receive, response)
                    return
                # a page that may call must be able to read its errors, too
                response.send = self._cors.around(send, scope)
            await self._admit(exchange, scope, receive, response)
        except asyncio.CancelledError:
            # the server stops, and cancels what did not end in time: the last word to a caller who waits
            if not response.started:
                await respond(response, _STOPPING, scope)
        except Exception as error:  # noqa: BLE001 - the last place where a defect can become a proper answer
            await _answer_error(error, exchange, scope, response)
        finally:
            exchange.finished = perf_counter()
            if exchange.endpoint == "other" and (route := scope.get("route")) is not None:
                exchange.endpoint = route.name or "other"
            self._in_flight.leave(exchange)
            self._count(exchange)

    def _begin(self, scope: Scope) -> Exchange:
        """The record of the request, under the client's id if it sent one. Puts it into the scope."""
        request_id = ""
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _ACCEPTABLE_ID.fullmatch(value):
                request_id = value.decode("ascii")
        exchange = Exchange(
            request_id=request_id or self._ids.next(),
            method=scope["method"],
            path=scope["path"],
            started=perf_counter(),
            started_at=time.time(),
            client=(scope.get("client") or ("",))[0],
        )
        if self._tracer is not None:
            exchange.trace = self._tracer.begin(scope["headers"], exchange.started_at)
        scope[EXCHANGE] = exchange
        scope["state"] = self._state
        # Starlette raises its 404 and 405 where there is an application to render them, else it sends plain text
        scope["app"] = self
        return exchange

    async def _admit(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        """Resolves the route, once, and lets the caller in. Raises ``Unauthorized``, ``Forbidden``, ``TooMany``."""
        resolved = self._routes.resolve(scope)
        scope.update(resolved.members)
        address = (scope.get("server") or ("",))[0]
        exchange.caller = self._authenticator.admit(resolved.access, scope["headers"], address)
        exchange.mark(Phase.IDENTIFY)
        if resolved.access is AccessLevel.OPEN:
            await resolved.app(scope, receive, send)
            return
        caller = exchange.caller.name or (scope.get("client") or ("",))[0]
        self._limits.enter(caller)
        exchange.mark(Phase.LIMIT)
        try:
            await resolved.app(scope, receive, send)
        finally:
            self._limits.leave(caller)


class _Response:
    """The ``send`` of one request: names the response by the request's id, and notes its status."""

    __slots__ = ("_exchange", "send", "started")

    def __init__(self, send: Send, exchange: Exchange) -> None:
        self.send = send
        self._exchange = exchange
        self.started = False

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            exchange = self._exchange
            if exchange.status == 0:
                exchange.status = message["status"]
            headers = [header for header in message["headers"] if header[0] != b"x-request-id"]
            headers.append((b"x-request-id", exchange.request_id.encode("ascii")))
            message["headers"] = headers
        self.started = True
        return self.send(message)


async def _answer_error(error: Exception, exchange: Exchange, scope: Scope, response: _Response) -> None:
    """Answers with the error. Once a response has started, an exception can only break the connection."""
    refusal = to_proxy_error(error, scope)
    exchange.error = refusal.message
    if response.started:
        log.exception("failed in the middle of a response", exc_info=error)
        return
    if isinstance(refusal, InternalError):
        log.exception("failed", exc_info=error)
    await respond(response, refusal, scope)
