"""The one endpoint through which all requests for a model server come: from bytes to an answer and back.

Other rooms add to a row of the table of endpoints by a ``Before``: what is done with a request ahead of the cache, and
with its answer when it is complete.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from starlette.types import Receive, Scope, Send

from llmproxy.cache.raw_requests import HotAnswer
from llmproxy.proxy.asgi import SocketClient, peer_of, raw_target, read, received
from llmproxy.proxy.deliver import deliver
from llmproxy.proxy.listen import ClientDisconnected, StreamAborted
from llmproxy.proxy.model_name import ReadAheadBody
from llmproxy.proxy.passthrough import PassedRequest, PassThrough, Presence, deliver_relayed
from llmproxy.proxy.pipeline import handle, parse_request, relay
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.response import Whole, body_of, replay_headers
from llmproxy.proxy.services import ProxyServices
from llmproxy.upstream.headers import RESUMABLE
from llmproxy.wire.cache_headers import Directives, parse_directives
from llmproxy.wire.endpoints import Endpoint
from llmproxy.wire.errors import OnlyIfCached, UnreadableBody
from llmproxy.wire.exchange import EXCHANGE, Exchange
from llmproxy.wire.headers import content_type
from llmproxy.wire.records import record
from llmproxy.wire.vocabulary import CacheStatus, Reason

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
#: a larger answer goes to its client piece by piece, which the quick way does not
_MOST_REMEMBERED = 256 * 1024

Remember = Callable[[HotAnswer], None]


class ProxyEndpoint:
    """An ASGI application for everything that a model server answers. Mounted without anything in between.

    With a row of the table of endpoints its answers are cached; without one, and for what that row does not take, they
    are passed through.
    """

    def __init__(self, row: Endpoint | None, before: "Before | None" = None) -> None:
        self._row = row
        self._before = before or parse_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services: ProxyServices = scope["state"]["services"]
        exchange: Exchange = scope[EXCHANGE]
        with Listening(scope, receive) as client:
            try:
                prepared = await self._prepare(scope, receive, send, client)
            except PassThrough as passed:
                relayed = await relay(exchange, _passed(passed, scope, receive, client, services), services)
                await deliver_relayed(relayed, exchange, send)
                return
            if prepared is None:
                return
            answer = await handle(exchange, prepared.request, services, client)
            if isinstance(answer, Whole) and prepared.is_repeatable:
                remember(scope, exchange, prepared.request, services)
            ping = services.settings.ping_seconds
            await deliver(answer, exchange, client, send, ping, prepared.on_complete)

    async def _prepare(self, scope: Scope, receive: Receive, send: Send, client: SocketClient) -> "Prepared | None":
        """Raises ``PassThrough``, ``ProxyError``, ``ClientDisconnected``."""
        if self._row is None:
            raise PassThrough(None, Reason.PASS_THROUGH)
        services: ProxyServices = scope["state"]["services"]
        exchange: Exchange = scope[EXCHANGE]
        exchange.endpoint = self._row.name
        raw = await read(scope, receive, services.settings)
        return await self._before(Incoming(self._row, scope, send, client, raw, exchange, services))


@record
class Incoming:
    """A request to a cached endpoint, its body read. ``send`` is for those who answer it by themselves."""

    row: Endpoint
    scope: Scope
    send: Send
    client: SocketClient
    raw: bytes
    exchange: Exchange
    services: ProxyServices

    async def parse(self, body: bytes | None = None, *, is_lenient: bool = True) -> CacheableRequest:
        """Phase ``read``, its second half. ``body`` is another one than the client's to go on with.

        Raises ``BadRequest``; if ``is_lenient``, ``PassThrough`` for what cannot be read.
        """
        try:
            request = await parse_request(
                self.exchange,
                self.row,
                self.raw if body is None else body,
                raw_target(self.scope),
                self.scope["headers"],
                peer_of(self.scope),
                self.services,
            )
        except UnreadableBody as error:
            if is_lenient:
                raise self._passed(error) from error
            raise
        self.exchange.request_body = request.parsed.described or self.raw
        _pass_unkept(request, self.services)
        return request

    @contextmanager
    def unreadable_passes(self) -> Iterator[None]:
        """Raises ``PassThrough`` for a body that cannot be read: whether it is one is the upstream's to say, which may
        be more lenient. Raises ``OnlyIfCached``."""
        try:
            yield
        except UnreadableBody as error:
            raise self._passed(error) from error

    def _passed(self, error: UnreadableBody) -> PassThrough:
        """Raises ``OnlyIfCached``."""
        # the bytes of a recording are nothing that history could show
        is_form = content_type(self.scope["headers"]).startswith(b"multipart/")
        self.exchange.request_body = b"" if is_form else self.raw
        if parse_directives(self.scope["headers"]).only_if_cached:
            self.exchange.stored = Reason.ONLY_IF_CACHED
            message = "Nothing stored can answer this request, and it forbids to ask the upstream."
            raise OnlyIfCached(message) from error
        return PassThrough(self.raw, Reason.UNREADABLE)


@record
class Prepared:
    """What is to be answered.

    ``on_complete`` is called before the answer's last bytes are sent: who has seen the end may ask for it at once.
    ``is_repeatable``: whether the same bytes would be answered the same way without it.
    """

    request: CacheableRequest
    on_complete: Callable[[], None] | None = None
    is_repeatable: bool = True


#: What an endpoint does with a request ahead of the cache. None if it has answered by itself.
Before = Callable[[Incoming], Awaitable[Prepared | None]]


async def parse_only(incoming: Incoming) -> Prepared:
    """Nothing beside."""
    return Prepared(await incoming.parse())


PASS_THROUGH = ProxyEndpoint(None)


def _pass_unkept(request: CacheableRequest, services: ProxyServices) -> None:
    """Raises ``PassThrough`` for what is no question to a model, and for a stream that its client may resume: the
    server keeps it under the client's own id."""
    named = any(name == RESUMABLE for name, _ in request.headers)
    if named and services.upstreams.resumes(request.parsed.model, request.path):
        raise PassThrough(request.raw, Reason.SIDE_EFFECT, request.parsed.model)
    if request.parsed.load:
        # Ollama answers it with one document, whatever is said of streams
        raise PassThrough(request.raw, Reason.LOAD, request.parsed.model)


def _passed(
    passed: PassThrough, scope: Scope, receive: Receive, client: SocketClient, services: ProxyServices
) -> PassedRequest:
    presence, headers = Presence(client), scope["headers"]

    async def flow() -> AsyncIterator[bytes]:
        async for chunk in received(receive, services.settings):
            yield chunk
        presence.watch()

    body: ReadAheadBody | bytes = passed.body or b""
    if passed.body is None and any(name in _FRAMING for name, _ in headers):
        body = ReadAheadBody(flow())
    else:
        presence.watch()
    return PassedRequest(
        scope["method"],
        scope["path"],
        raw_target(scope),
        headers,
        peer_of(scope),
        passed.reason,
        body,
        presence,
        passed.model,
        is_decoded=passed.body is not None,
    )


class Listening:
    """The client as a listener for as long as its request is in work; one who left is noted, and answered no more."""

    __slots__ = ("_client", "_exchange")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._client = SocketClient(scope, receive)
        self._exchange: Exchange = scope[EXCHANGE]

    def __enter__(self) -> SocketClient:
        return self._client

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._client.close()
        if isinstance(error, ClientDisconnected):
            self._exchange.status, self._exchange.error = 499, "the client left"
            return True
        if isinstance(error, StreamAborted):
            # without a last chunk the connection is closed, and the client sees that something is missing
            self._exchange.error = str(error)
            return True
        return None


def remember(scope: Scope, exchange: Exchange, request: CacheableRequest, services: ProxyServices) -> None:
    """Has the protocol answer the next request with these very bytes by itself."""
    extensions: dict[str, Any] = scope.get("extensions") or {}
    take: Remember | None = extensions.get("llmproxy.hot")
    if take is None or exchange.cache is not CacheStatus.HIT or exchange.reason is not Reason.MEMORY:
        # what came from another tier just now may never be asked for again
        return
    if not request.endpoint.dialect.json_requests:
        # a form has another boundary each time: its bytes do not come again
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
