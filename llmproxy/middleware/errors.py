"""Whatever is raised below becomes an error in the form of the path's API."""

from html import escape

from starlette.exceptions import HTTPException
from starlette.types import Scope, Send

from llmproxy.wire.cache_headers import forward_headers
from llmproxy.wire.errors import InternalError, MethodNotAllowed, NotFound, ProxyError, error_response
from llmproxy.wire.exchange import EXCHANGE, Exchange

#: paths that somebody opens with a browser, to read: an error there is a sentence
_PAGES = frozenset({"/", "/ui", "/ui/"})
_PAGE = """\
<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>llmproxy</title>
<h1>llmproxy</h1><p>{sentence}</p></html>
"""


def to_proxy_error(error: Exception, scope: Scope) -> ProxyError:
    """``error`` as one of ours: Starlette's for unknown paths and methods are translated, any other is a defect."""
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


async def respond(send: Send, error: ProxyError, scope: Scope) -> None:
    """Sends the error as the whole response, in the form of the path's API."""
    exchange: Exchange = scope[EXCHANGE]
    if scope["path"] in _PAGES and any(name == b"accept" and b"text/html" in value for name, value in scope["headers"]):
        content_type, body = b"text/html; charset=utf-8", _PAGE.format(sentence=escape(error.message)).encode()
    else:
        content_type, body = error_response(error, scope["path"], exchange.request_id)
    cache = [] if exchange.cache is None else forward_headers(exchange, exchange.stored)
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *cache, *error.headers]
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
