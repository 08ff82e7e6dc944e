"""Phase ``guard``: whatever is raised below becomes an error in the form of the path's API."""

import asyncio
import logging

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmproxy.wire.cache_headers import forward_headers
from llmproxy.wire.errors import InternalError, MethodNotAllowed, NotFound, ProxyError, Unavailable, error_response
from llmproxy.wire.exchange import EXCHANGE, Exchange
from llmproxy.wire.headers import retry_after

log = logging.getLogger(__name__)

_RETRY = (retry_after(2),)


class Errors:
    """Pure ASGI. Once a response has started, an exception can only break the connection."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            # the server stops, and cancels what did not end in time: the last word to a caller who waits
            if not started:
                await respond(send, Unavailable("The proxy is shutting down.", headers=_RETRY), scope)
        except Exception as error:  # the last place where a defect can become a proper answer
            exchange: Exchange = scope[EXCHANGE]
            told = _told(error, scope)
            exchange.error = told.message
            if started:
                log.exception("failed in the middle of a response", exc_info=error)
                return
            if isinstance(told, InternalError):
                log.exception("failed", exc_info=error)
            await respond(send, told, scope)


async def respond(send: Send, error: ProxyError, scope: Scope) -> None:
    """Sends the error as the whole response, in the form of the path's API."""
    exchange: Exchange = scope[EXCHANGE]
    content_type, body = error_response(error, scope["path"], exchange.request_id)
    told = [] if exchange.cache is None else forward_headers(exchange, exchange.stored)
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *told, *error.headers]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _told(error: Exception, scope: Scope) -> ProxyError:
    if isinstance(error, ProxyError):
        return error
    if isinstance(error, HTTPException):
        if error.status_code == 405:
            allow = (error.headers or {}).get("Allow", "")
            return MethodNotAllowed(
                f"{scope['method']} is not allowed on {scope['path']}.", headers=((b"allow", allow.encode("latin-1")),)
            )
        return NotFound(f"There is nothing at {scope['path']}.")
    return InternalError("The proxy failed; its log says why.")
