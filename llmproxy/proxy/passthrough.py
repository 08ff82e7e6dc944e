"""Everything the proxy does not answer itself: passed through as it is, streamed both ways, never parsed."""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from llmproxy.proxy.asgi import SocketClient, peer_of, raw_target, received
from llmproxy.proxy.fetch import reason_of
from llmproxy.proxy.listen import ClientDisconnected, StreamAborted
from llmproxy.proxy.model_name import Opened, names_in
from llmproxy.proxy.services import ProxyServices
from llmproxy.upstream.errors import normalise
from llmproxy.upstream.headers import credentials, forwarded, relayed
from llmproxy.upstream.target import Call, Reply, Target
from llmproxy.wire.cache_headers import forward_headers
from llmproxy.wire.errors import MethodNotAllowed, NotImplementedHere, ProxyError, UpstreamError
from llmproxy.wire.exchange import EXCHANGE, Exchange
from llmproxy.wire.vocabulary import CacheStatus, Phase, Reason

_NOT_MODIFIED = 304
#: TRACE would tell the caller what the upstream gets, its key with it; CONNECT asks for a tunnel
_NOT_RELAYED = frozenset({"CONNECT", "TRACE"})
_RELAYED = b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
#: of an error's body, to note what it says
_LOOKED_AT = 4096


class PassThrough(Exception):
    """Raised by a cached endpoint for a request that the upstream is to answer as it came.

    ``body`` is the request's body, its content coding undone; ``reason`` says why it is none for the cache;
    ``model`` is "" where none could be read.
    """

    def __init__(self, body: bytes, reason: Reason, model: str = "") -> None:
        super().__init__(reason)
        self.body = body
        self.reason = reason
        self.model = model


#: paths that change models: Ollama's, and llama.cpp's
_CHANGING = frozenset(
    {"/api/copy", "/api/create", "/api/pull", "/lora-adapters", "/models/load", "/models/unload", "/props"}
)
_BLOBS, _DELETE = "/api/blobs/", "/api/delete"


class Relay:
    """The ASGI application behind every path that has no row of its own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _relay(scope, receive, send, Reason.PASS_THROUGH)


class OrRelay:
    """A cached endpoint, and the relay for the requests that it does not take."""

    def __init__(self, endpoint: ASGIApp) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._endpoint(scope, receive, send)
        except PassThrough as request:
            await _relay(scope, receive, send, request.reason, request.body, request.model)


async def _relay(
    scope: Scope, receive: Receive, send: Send, reason: Reason, body: bytes | None = None, model: str = ""
) -> None:
    """``body`` is None where it has not been read yet."""
    services: ProxyServices = scope["state"]["services"]
    exchange: Exchange = scope[EXCHANGE]
    if scope["method"] in _NOT_RELAYED:
        raise MethodNotAllowed(f"{scope['method']} is not passed on.", headers=((b"allow", _RELAYED),))
    exchange.cache, exchange.reason = CacheStatus.BYPASS, reason
    if any(name == b"upgrade" and value.lower() == b"websocket" for name, value in scope["headers"]):
        raise NotImplementedHere("WebSocket connections are not supported here.")
    exchange.recorded = True
    client = SocketClient(receive)
    try:
        await _while_there(client, _Passage(scope, receive, send, exchange, services, body, model))
    except ClientDisconnected:
        exchange.status, exchange.error = 499, "the client left"
    except UpstreamError as error:
        exchange.stored = reason_of(error)
        services.upstream_failed(exchange.stored)
        raise
    except StreamAborted as broken:
        services.upstream_failed(Reason.UPSTREAM_FAILED)
        # without its end the connection is closed, and the client sees that something is missing
        exchange.error = str(broken)
    finally:
        client.close()


class _Passage:
    """One request on its way through."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        exchange: Exchange,
        services: ProxyServices,
        body: bytes | None,
        model: str,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._exchange = exchange
        self._services = services
        self._whole = body
        self._model = model

    async def run(self, sent: Callable[[], None]) -> None:
        """``sent`` is called once the client has sent its whole request."""
        scope, exchange, services = self._scope, self._exchange, self._services
        body = self._body(sent)
        target = await self._target(body)
        exchange.upstream = target.name
        exchange.mark(Phase.PICK)
        headers = forwarded(scope["headers"], services.settings, peer_of(scope), passed=True, trace=exchange.trace)
        if self._whole is not None and any(name == b"content-encoding" for name, _ in headers):
            # the coding is undone
            headers = [header for header in headers if header[0] not in (b"content-encoding", b"content-length")]
        call = Call(scope["method"], raw_target(scope), headers, body if isinstance(body, bytes) else aiter(body))
        changed = target if _changes_models(scope["method"], scope["path"]) else None
        self._doubt(changed)
        try:
            await self._pass(target, call, changed)
        finally:
            self._doubt(changed)

    async def _pass(self, target: Target, call: Call, changed: Target | None) -> None:
        exchange, services = self._exchange, self._services
        reply = await services.upstreams.send(target, call, passed=True)
        services.accepted.note_refusal(target.name, exchange.caller.credential, reply.status)
        exchange.mark(Phase.SEND)
        try:
            await self._answer(reply, changed)
            exchange.mark(Phase.TEE)
        finally:
            await reply.aclose()

    async def _target(self, body: Opened | bytes) -> Target:
        """The server for the path, and for the model that the request names. Raises ``UpstreamError``, ``NotFound``."""
        scope, upstreams = self._scope, self._services.upstreams
        shown = credentials(scope["headers"], self._services.settings)
        # Ollama's client asks so whether it is there
        path = "/api/version" if scope["path"] == "/" and scope["method"] == "HEAD" else scope["path"]
        names = [self._model] if self._model else []
        if not names and len(upstreams.targets_for(path)) > 1:
            names = await names_in(scope, Opened(_at_once(body)) if isinstance(body, bytes) else body)
        known = next((name for name in names if upstreams.with_model(name, path)), "")
        return await upstreams.pick_for_path(known or "".join(names[:1]), path, shown)

    def _doubt(self, changed: Target | None) -> None:
        """What is known of this server's models may be wrong from now on."""
        if changed is not None:
            self._services.upstreams.doubt(changed)

    def _body(self, sent: Callable[[], None]) -> Opened | bytes:
        if self._whole is not None:
            sent()
            return self._whole
        names = {name for name, _ in self._scope["headers"]}
        if not names & {b"content-length", b"transfer-encoding"}:
            sent()
            return b""
        return Opened(self._flow(sent))

    async def _flow(self, sent: Callable[[], None]) -> AsyncIterator[bytes]:
        async for chunk in received(self._receive, self._services.settings):
            yield chunk
        sent()

    async def _answer(self, reply: Reply, changed: Target | None) -> None:
        """``changed`` is the server whose models may be others now."""
        exchange = self._exchange
        exchange.status = reply.status
        failed = reply.status >= 400
        if failed:
            exchange.stored = Reason.STATUS
            self._services.upstream_failed(Reason.STATUS)
        headers = [*relayed(reply.headers), *forward_headers(exchange, None)]
        legible = failed and not any(name == b"content-encoding" for name, _ in headers)
        if reply.status == _NOT_MODIFIED:
            # the length is that of a body which does not follow (RFC 9110 section 15.4.5): the server would wait for it
            headers = [header for header in headers if header[0] != b"content-length"]
        await self._send({"type": "http.response.start", "status": reply.status, "headers": headers})
        beginning = b""
        try:
            async for chunk in reply.chunks():
                if legible and not beginning:
                    beginning = chunk[:_LOOKED_AT]
                # who reads that it is done and asks at once is to meet the new model
                self._doubt(changed)
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        except ProxyError as error:
            raise StreamAborted(error.message) from error
        if failed:
            exchange.error = normalise(reply.status, (), beginning).message
        await self._send({"type": "http.response.body", "body": b""})


async def _at_once(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


def _changes_models(method: str, path: str) -> bool:
    """Whether a request may change what stands behind a model's name."""
    if method == "POST":
        return path in _CHANGING or path.startswith(_BLOBS)
    return method == "DELETE" and path == _DELETE


async def _while_there(client: SocketClient, passage: _Passage) -> None:
    """Runs the passage for as long as the client is there. Raises ``ClientDisconnected``."""
    loop = asyncio.get_running_loop()
    under_way = True
    try:
        async with asyncio.timeout(None) as patience:

            def left() -> None:
                if under_way and client.disconnected:
                    patience.reschedule(loop.time())

            try:
                await passage.run(sent=lambda: client.watch(left))
            finally:
                under_way = False
    except TimeoutError:
        if client.disconnected:
            raise ClientDisconnected from None
        raise
