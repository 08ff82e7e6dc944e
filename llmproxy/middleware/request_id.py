"""Phase ``name``: every request gets its notebook, and every response its ``X-Request-Id``."""

import re
import time
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmproxy.wire.exchange import EXCHANGE, Exchange, RequestIds, Tracer
from llmproxy.wire.vocabulary import Phase

#: what a client may name its request; anything else gets an id of ours
_ACCEPTABLE = re.compile(rb"[!-~]{1,200}")


class RequestId:
    """Pure ASGI. The client's id if it sent one, else ours. With a tracer, the request's part in its trace too."""

    def __init__(self, app: ASGIApp, ids: RequestIds, tracer: Tracer | None) -> None:
        self._app = app
        self._ids = ids
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._ids.next()
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _ACCEPTABLE.fullmatch(value):
                request_id = value.decode("ascii")
        exchange = Exchange(
            request_id=request_id,
            method=scope["method"],
            path=scope["path"],
            started=perf_counter(),
            started_at=time.time(),
        )
        if self._tracer is not None:
            exchange.trace = self._tracer.begin(scope["headers"], exchange.started_at)
        scope[EXCHANGE] = exchange
        exchange.mark(Phase.NAME)
        line = (b"x-request-id", request_id.encode("ascii"))

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [header for header in message["headers"] if header[0] != b"x-request-id"]
                message = {**message, "headers": [*headers, line]}
            await send(message)

        await self._app(scope, receive, named)
