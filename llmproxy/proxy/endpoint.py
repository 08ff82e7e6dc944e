"""The ASGI endpoint of a cached path: from bytes to an answer and back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import Receive, Scope, Send

from llmproxy.cache.raw_requests import HotAnswer
from llmproxy.proxy.asgi import SocketClient, peer_of, raw_target, read
from llmproxy.proxy.deliver import deliver
from llmproxy.proxy.listen import ClientDisconnected, StreamAborted
from llmproxy.proxy.passthrough import PassThrough
from llmproxy.proxy.pipeline import handle, parse_request
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.response import Whole, body_of, replay_headers
from llmproxy.proxy.services import ProxyServices
from llmproxy.upstream.headers import RESUMABLE
from llmproxy.wire.cache_headers import Directives, parse_directives
from llmproxy.wire.endpoints import Endpoint
from llmproxy.wire.errors import OnlyIfCached, UnreadableBody
from llmproxy.wire.exchange import EXCHANGE, Exchange
from llmproxy.wire.headers import content_type
from llmproxy.wire.vocabulary import CacheStatus, Reason

#: a larger answer goes to its client piece by piece, which the quick way does not
_MOST_REMEMBERED = 256 * 1024

Remember = Callable[[HotAnswer], None]


class CachedEndpoint:
    """One row of the table of endpoints, as an ASGI application. Mounted without anything in between."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services: ProxyServices = scope["state"]["services"]
        exchange: Exchange = scope[EXCHANGE]
        exchange.endpoint = self._endpoint.name
        with listening(receive, exchange) as client:
            request = await ask(self._endpoint, scope, receive)
            answer = await handle(exchange, request, services, client)
            if isinstance(answer, Whole):
                remember(scope, exchange, request, services)
            await deliver(answer, exchange, client, send, services.settings.ping_seconds)


async def ask(endpoint: Endpoint, scope: Scope, receive: Receive) -> CacheableRequest:
    """Phase ``read``. Raises ``ProxyError``, ``ClientDisconnected``; ``PassThrough`` for the upstream to judge."""
    services: ProxyServices = scope["state"]["services"]
    raw = await read(receive, scope["headers"], services.settings)
    with unreadable_passes(scope, raw):
        request = await parse_request(
            scope[EXCHANGE], endpoint, raw, raw_target(scope), scope["headers"], peer_of(scope), services
        )
    pass_resumable(request, services)
    if request.parsed.load:
        # Ollama answers it with one document, whatever is said of streams
        raise PassThrough(request.raw, Reason.LOAD, request.parsed.model)
    return request


@contextmanager
def unreadable_passes(scope: Scope, raw: bytes) -> Iterator[None]:
    """Raises ``PassThrough`` for a body that cannot be read: whether it is one is the upstream's to say, which may be
    more lenient. Raises ``OnlyIfCached``."""
    try:
        yield
    except UnreadableBody as error:
        exchange: Exchange = scope[EXCHANGE]
        # the bytes of a recording are nothing that history could show
        exchange.request_body = b"" if content_type(scope["headers"]).startswith(b"multipart/") else raw
        if parse_directives(scope["headers"]).only_if_cached:
            raise OnlyIfCached("Nothing stored can answer this request, and it forbids to ask the upstream.") from error
        raise PassThrough(raw, Reason.UNREADABLE) from error


def pass_resumable(request: CacheableRequest, services: ProxyServices) -> None:
    """Raises ``PassThrough`` for a stream that its client may resume: the server keeps it under the client's own id."""
    named = any(name == RESUMABLE for name, _ in request.headers)
    if named and services.upstreams.resumes(request.parsed.model, request.path):
        raise PassThrough(request.raw, Reason.SIDE_EFFECT, request.parsed.model)


@contextmanager
def listening(receive: Receive, exchange: Exchange) -> Iterator[SocketClient]:
    """The client as a listener for as long as its request is in work; one who left is noted, and answered no more."""
    client = SocketClient(receive)
    try:
        yield client
    except ClientDisconnected:
        exchange.status, exchange.error = 499, "the client left"
    except StreamAborted as broken:
        # without a last chunk the connection is closed, and the client sees that something is missing
        exchange.error = str(broken)
    finally:
        client.close()


def remember(scope: Scope, exchange: Exchange, request: CacheableRequest, services: ProxyServices) -> None:
    """Has the protocol answer the next request with these very bytes by itself."""
    extensions: dict[str, Any] = scope.get("extensions") or {}
    take: Remember | None = extensions.get("llmproxy.hot")
    if take is None or exchange.cache is not CacheStatus.HIT or exchange.reason is Reason.INPUTS:
        return
    if not _timeless(request.directives) or _swapped(exchange, request, services):
        # the model may have been swapped since the key was made: from now on it is another request
        return
    entry = services.cache.peek(bytes.fromhex(exchange.key))
    if entry is None or entry.size > _MOST_REMEMBERED or not services.is_accepted(exchange, request):
        return
    body = body_of(request, entry)

    def head(now: float) -> bytes:
        lines = [(b"content-length", b"%d" % len(body))]
        lines += replay_headers(request, entry, CacheStatus.HIT, Reason.MEMORY, now)
        return b"".join(b"%b: %b\r\n" % line for line in lines)

    named = exchange.request_id.encode() in (value for name, value in request.headers if name == b"x-request-id")
    request_id = exchange.request_id if named else ""
    take(HotAnswer(entry, body, head, request_id, services.upstreams.epoch, _template(exchange)))


def _swapped(exchange: Exchange, request: CacheableRequest, services: ProxyServices) -> bool:
    return services.upstreams.identity(request.parsed.model, request.path) != exchange.identity


def _timeless(directives: Directives) -> bool:
    """Whether the same request is answered the same way for as long as its entry is fresh."""
    if directives.paced:
        return False
    return directives.max_age is directives.min_fresh is directives.max_stale is directives.stale_if_error is None


def _template(exchange: Exchange) -> Exchange:
    """The pattern for the exchanges to come: theirs are a hit in memory of the same answer."""
    return Exchange(
        request_id="",
        method=exchange.method,
        path=exchange.path,
        started=0.0,
        started_at=0.0,
        caller=exchange.caller,
        endpoint=exchange.endpoint,
        model=exchange.model,
        stream=exchange.stream,
        session=exchange.session,
        user=exchange.user,
        namespace=exchange.namespace,
        identity=exchange.identity,
        query=exchange.query,
        key=exchange.key,
        cache=CacheStatus.HIT,
        reason=Reason.MEMORY,
        status=200,
        usage=exchange.usage,
        upstream_seconds=exchange.upstream_seconds,
        request_body=exchange.request_body,
        response_body=exchange.response_body,
        recorded=True,
        trace=exchange.trace,
    )
