"""Everything the proxy does not answer itself: passed through as it is, streamed both ways, never parsed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from llmproxy.proxy.fetch import reason_of
from llmproxy.proxy.listen import Client, ClientDisconnected, StreamAborted
from llmproxy.proxy.model_name import ReadAheadBody, names_in
from llmproxy.proxy.services import ProxyServices
from llmproxy.upstream.errors import normalise
from llmproxy.upstream.headers import Peer, credentials, forwarded, relayed
from llmproxy.upstream.target import Call, Reply, Target
from llmproxy.wire.cache_headers import forward_headers
from llmproxy.wire.errors import (
    MethodNotAllowed,
    NotImplementedHere,
    ProxyError,
    UpstreamBroke,
    UpstreamError,
    UpstreamRefused,
)
from llmproxy.wire.exchange import Exchange, Trace
from llmproxy.wire.headers import HeaderList
from llmproxy.wire.vocabulary import Reason

Send = Callable[[Any], Awaitable[None]]

_NOT_MODIFIED = 304
#: TRACE would tell the caller what the upstream gets, its key with it; CONNECT asks for a tunnel
_NOT_RELAYED = frozenset({"CONNECT", "TRACE"})
_RELAYED = b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
#: of an error's body, to note what it says
_LOOKED_AT = 4096


class PassThrough(Exception):
    """Raised by a cached endpoint for a request that the upstream is to answer as it came.

    ``body`` is the request's body, its content coding undone, None if it has not been read; ``reason`` says why it is
    none for the cache; ``model`` is "" if none could be read.
    """

    def __init__(self, body: bytes | None, reason: Reason, model: str = "") -> None:
        super().__init__(reason)
        self.body = body
        self.reason = reason
        self.model = model


#: asked twice they do no more than asked once, and nothing
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: paths that change models: Ollama's, and llama.cpp's
_CHANGING = frozenset(
    {"/api/copy", "/api/create", "/api/pull", "/lora-adapters", "/models/load", "/models/unload", "/props"}
)
_BLOBS, _DELETE = "/api/blobs/", "/api/delete"


class Presence:
    """Ends what is done for a client as soon as it leaves. ASGI tells that once its whole request has been read."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._timeout: asyncio.Timeout | None = None

    def watch(self) -> None:
        """The client has sent its whole request."""
        self._client.watch(self._check)

    def _check(self) -> None:
        if self._timeout is not None and self._client.disconnected:
            self._timeout.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def required(self) -> AsyncIterator[None]:
        """Raises ``ClientDisconnected`` within, once the client has left."""
        try:
            async with asyncio.timeout(None) as self._timeout:
                try:
                    if self._client.disconnected:
                        raise ClientDisconnected
                    yield
                finally:
                    self._timeout = None
        except TimeoutError:
            if self._client.disconnected:
                raise ClientDisconnected from None
            raise


@dataclass(frozen=True, slots=True)
class PassedRequest:
    """A request that a model server answers as it came. ``target`` is the raw path and query, ``reason`` says why it is
    none for the cache; ``model`` is "" if it has not been read. ``body`` is b"" where there is none."""

    method: str
    path: str
    target: bytes
    headers: HeaderList
    peer: Peer
    reason: Reason
    body: ReadAheadBody | bytes
    presence: Presence
    model: str = ""
    #: whether the body's content coding is undone
    is_decoded: bool = False

    def check(self) -> None:
        """Raises ``MethodNotAllowed``, ``NotImplementedHere`` for what is not passed on."""
        if self.method in _NOT_RELAYED:
            raise MethodNotAllowed(f"{self.method} is not passed on.", headers=((b"allow", _RELAYED),))
        if any(name == b"upgrade" and value.lower() == b"websocket" for name, value in self.headers):
            raise NotImplementedHere("WebSocket connections are not supported here.")

    @property
    def changes_models(self) -> bool:
        """Whether it may change what stands behind a model's name."""
        if self.method == "POST":
            return self.path in _CHANGING or self.path.startswith(_BLOBS)
        return self.method == "DELETE" and self.path == _DELETE


class Passage:
    """One request on its way to a server, to the next one if that cannot be reached, and its answer back."""

    def __init__(self, request: PassedRequest, services: ProxyServices, trace: Trace | None) -> None:
        """Raises ``BadRequest`` for a request that has been here before."""
        self._request = request
        self._services = services
        settings = services.settings
        headers = forwarded(request.headers, settings, request.peer, passed=True, trace=trace)
        if request.is_decoded and any(name == b"content-encoding" for name, _ in headers):
            headers = [header for header in headers if header[0] not in (b"content-encoding", b"content-length")]
        self._headers = headers
        # Ollama's client asks so whether it is there
        self._path = "/api/version" if request.path == "/" and request.method == "HEAD" else request.path
        self._model: str | None = None
        self._failed: set[str] = set()
        self._target: Target | None = None

    async def pick(self) -> Target:
        """The server for the path, and for the model that the request names. Raises ``UpstreamError``, ``NotFound``."""
        request, upstreams = self._request, self._services.upstreams
        if self._model is None:
            names = [request.model] if request.model else []
            if not names and len(upstreams.targets_for(self._path)) > 1:
                names = await names_in(request.target, request.path, request.headers, request.body)
            served = next((name for name in names if upstreams.with_model(name, self._path)), "")
            self._model = served or "".join(names[:1])
        presented = credentials(request.headers, self._services.settings)
        return await upstreams.pick_for_path(self._model, self._path, presented, self._failed)

    async def send(self, target: Target) -> Reply | None:
        """The reply whose head has come; None if another server is to be asked. Raises ``UpstreamError``."""
        request, upstreams = self._request, self._services.upstreams
        self._target = target
        self.doubt()
        body = request.body if isinstance(request.body, bytes) else aiter(request.body)
        try:
            return await upstreams.send(target, Call(request.method, request.target, self._headers, body), passed=True)
        except UpstreamError as error:
            self._failed.add(target.name)
            if not self._goes_on(error):
                raise
            self._services.upstream_failed(reason_of(error))
            return None
        finally:
            self.doubt()

    def doubt(self) -> None:
        """What is known of the server's models may be wrong from now on, if the request may change them."""
        if self._target is not None and self._request.changes_models:
            self._services.upstreams.doubt(self._target)

    def failed(self) -> None:
        """Counts an answer that broke off."""
        self._services.upstream_failed(Reason.UPSTREAM_FAILED)

    def required(self) -> AbstractAsyncContextManager[None]:
        """See ``Presence``."""
        return self._request.presence.required()

    def _goes_on(self, error: UpstreamError) -> bool:
        """Whether another server may be asked after this failure: one that could not be reached has got nothing."""
        request = self._request
        is_safe = isinstance(error, UpstreamRefused) or (
            isinstance(error, UpstreamBroke) and request.method in _SAFE and request.body == b""
        )
        upstreams, model = self._services.upstreams, self._model or ""
        return is_safe and not request.changes_models and upstreams.has_other(model, self._path, self._failed)


@dataclass(frozen=True, slots=True)
class Relayed:
    """A reply that goes to the client as it comes. ``on_end`` is called after its last byte."""

    reply: Reply
    passage: Passage
    on_end: Callable[[], None]


async def deliver_relayed(answer: Relayed, exchange: Exchange, send: Send) -> None:
    """Sends it all. Raises ``ClientDisconnected``, ``StreamAborted``."""
    reply, passage = answer.reply, answer.passage
    exchange.status = reply.status
    failed = reply.status >= 400
    headers = [*relayed(reply.headers), *forward_headers(exchange, None)]
    legible = failed and not any(name == b"content-encoding" for name, _ in headers)
    if reply.status == _NOT_MODIFIED:
        # the length is that of a body which does not follow (RFC 9110 section 15.4.5): the server would wait for it
        headers = [header for header in headers if header[0] != b"content-length"]
    beginning = b""
    try:
        async with passage.required():
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            async for chunk in reply.chunks():
                if legible and not beginning:
                    beginning = chunk[:_LOOKED_AT]
                # who reads that it is done and asks at once is to meet the new model
                passage.doubt()
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if failed:
                exchange.error = normalise(reply.status, (), beginning).message
            await send({"type": "http.response.body", "body": b""})
        answer.on_end()
    except ProxyError as error:
        passage.failed()
        raise StreamAborted(error.message) from error
    finally:
        passage.doubt()
        await reply.aclose()
