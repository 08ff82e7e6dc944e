"""The HTTP client: one attempt at a call, request out, reply in, and every failure translated into ours."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self
from weakref import WeakSet

import aiohttp
import httpx
from aiohttp.client import ClientRequest, ClientTimeout
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from multidict import CIMultiDict
from yarl import URL

from llmproxy.config.settings import Settings
from llmproxy.upstream.headers import end_to_end
from llmproxy.upstream.target import Call, HeaderList, Target
from llmproxy.wire.errors import UpstreamBroke, UpstreamError, UpstreamRefused, UpstreamSlow

log = logging.getLogger(__name__)

#: llama.cpp closes idle connections after 5.00 s: let go of them before.
KEEPALIVE_SECONDS = 4.0

#: aiohttp's limit of 8 KiB for a response header is too tight for a proxy.
_HEADER_BYTES = 64 * 1024

#: whether the connection of the request that this task sends is new
_fresh: ContextVar[bool] = ContextVar("fresh", default=True)

_OWN_HEADERS_ONLY = ("accept", "accept-encoding", "content-type", "user-agent")

#: First match counts.
_AS_HTTPX: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ClientSSLError, httpx.ConnectError),
    (aiohttp.ServerTimeoutError, httpx.ReadTimeout),
    (aiohttp.ClientOSError, httpx.ReadError),
    (aiohttp.ServerDisconnectedError, httpx.ReadError),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (aiohttp.ClientError, httpx.RemoteProtocolError),
)

#: How a connection that the peer has closed shows, beside ``ServerDisconnectedError``.
_CUT = (aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)


class StaleConnection(httpx.RemoteProtocolError):
    """A connection kept from an earlier call was closed by the peer before a single byte of the answer."""


class Bytes(httpx.AsyncByteStream):
    """A request body that is there as a whole."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.content


class Body(httpx.AsyncByteStream):
    """A response body as it arrives."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content, connection = self._response.content, self._response.connection
        closed = None if connection is None or connection.protocol is None else connection.protocol.closed

        def fail(_: object) -> None:
            # aiohttp closes the connection at a chunk that is none, and leaves whoever reads the body waiting
            if not content.is_eof() and content.exception() is None:
                content.set_exception(aiohttp.ClientPayloadError("the connection was closed within the body"))

        if closed is not None:
            closed.add_done_callback(fail)
        try:
            while chunk := await content.readany():
                yield chunk
        except aiohttp.ClientError as error:
            raise _failure(error) from error
        finally:
            if closed is not None:
                closed.remove_done_callback(fail)

    async def aclose(self) -> None:
        """Closes the socket at once, unless the body has been read to its end and the connection is free again."""
        self._response.close()


class _Connector(aiohttp.TCPConnector):
    """Tells the request under way whether its connection is new. aiohttp's own tracing tells it too, at the cost of a
    record for every step of every request.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._known: WeakSet[ResponseHandler] = WeakSet()

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:
        connection = await super().connect(req, traces, timeout)
        protocol = connection.protocol
        fresh = protocol not in self._known
        _fresh.set(fresh)
        if protocol is not None:
            self._known.add(protocol)
            if fresh and protocol.closed is not None:
                # bodies listen to it while they are read: nobody else may ask how it ended
                protocol.closed.add_done_callback(asyncio.Future.exception)
        return connection


class _Request(ClientRequest):
    """Says nothing of a body where there is none; aiohttp would add ``content-length: 0``."""

    def update_body_from_data(self, body: Any, _stacklevel: int = 3) -> None:
        if body is not None:
            super().update_body_from_data(body, _stacklevel)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Connections to model servers, kept alive between calls, any number of them. Must be made inside a running loop.

    A request may carry the extensions ``target`` (raw path and query, sent as they are) and ``timeout`` (of which only
    ``connect``, in seconds, is heeded). A response has the extension ``fresh``: whether its connection is new.
    """

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            request_class=_Request,
            skip_auto_headers=_OWN_HEADERS_ONLY,
            timeout=aiohttp.ClientTimeout(total=None),
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
        )
        #: one of each per model server
        self._origins: dict[bytes, URL] = {}
        self._timeouts: dict[float | None, aiohttp.ClientTimeout] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises ``httpx.TransportError``."""
        _fresh.set(True)
        stream = request.stream
        try:
            response = await self._session.request(
                request.method,
                self._url(request),
                headers=CIMultiDict([(_text(name), _text(value)) for name, value in request.headers.raw]),
                data=(stream.content or None) if isinstance(stream, Bytes) else stream,
                allow_redirects=False,
                timeout=self._timeout(request.extensions.get("timeout", {})),
            )
        except aiohttp.ClientError as error:
            if not _fresh.get() and _closed_unanswered(error):
                raise StaleConnection(str(error)) from error
            raise _failure(error) from error
        return httpx.Response(
            response.status,
            headers=response.raw_headers,
            stream=Body(response),
            extensions={"fresh": _fresh.get()},
        )

    async def aclose(self) -> None:
        await self._session.close()

    def _url(self, request: httpx.Request) -> URL:
        base = request.url.raw_scheme + b"://" + request.url.netloc
        origin = self._origins.get(base)
        if origin is None:
            origin = self._origins[base] = URL(base.decode())
        target: bytes = request.extensions.get("target", request.url.raw_path)
        # path and query in one piece: aiohttp sends them untouched, a trailing "?" included
        return origin.with_path(_target_text(target), encoded=True)

    def _timeout(self, timeouts: Mapping[str, float | None]) -> aiohttp.ClientTimeout:
        connect = timeouts.get("connect")
        timeout = self._timeouts.get(connect)
        if timeout is None:
            timeout = self._timeouts[connect] = aiohttp.ClientTimeout(total=None, connect=connect)
        return timeout


def _closed_unanswered(error: Exception) -> bool:
    """Whether an open connection was closed before even a part of a response head had arrived."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        # with a part of a head the error carries a message object instead of words
        return isinstance(error.message, str)
    return isinstance(error, _CUT) and not isinstance(error, aiohttp.ClientConnectorError)


def _failure(error: aiohttp.ClientError) -> httpx.TransportError:
    kind = next(ours for theirs, ours in _AS_HTTPX if isinstance(error, theirs))
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return kind(str(error.certificate_error))
    if isinstance(error, aiohttp.ClientConnectorError):
        # the number's standard wording: event loops have their own for refused connections
        number = error.os_error.errno or 0
        return kind(os.strerror(number) if number > 0 else error.os_error.strerror or str(error.os_error))
    if isinstance(error, aiohttp.ClientResponseError):
        return kind(" ".join(error.message.split()))
    return kind(str(error))


def _text(header: bytes) -> str:
    """aiohttp writes headers as UTF-8: so they are read, and what is none (RFC 9110 obs-text) is taken for Latin-1."""
    try:
        return header.decode()
    except UnicodeDecodeError:
        return header.decode("latin-1")


def _target_text(target: bytes) -> str:
    try:
        return target.decode()
    except UnicodeDecodeError:
        return "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in target)


class Watchdog:
    """Calls ``expire`` once if a wait lasts ``idle`` seconds, or at loop time ``ends``; None sets no such limit.

    The timer is not moved at every wait: when it goes off too early, it is set again for the rest. Time in
    which nobody waits (the reader is busy with its own, slower reader) counts for ``ends`` only.
    """

    def __init__(self, idle: float | None, ends: float | None, expire: Callable[[], None]) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._idle = idle
        self._ends = ends
        self._expire = expire
        self._since: float | None = None
        #: why it went off: "idle" or "total"; "" while it has not
        self.expired = ""
        self._timer = None if idle is None and ends is None else loop.call_at(self._due(loop.time()), self._check)

    def wait(self) -> None:
        """From now on somebody waits."""
        self._since = self._loop.time()

    def fed(self) -> None:
        """What was waited for is there."""
        self._since = None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        now = self._loop.time()
        if self._ends is not None and now >= self._ends:
            self.expired = "total"
        elif self._idle is not None and self._since is not None and now >= self._since + self._idle:
            self.expired = "idle"
        else:
            self._timer = self._loop.call_at(self._due(now), self._check)
            return
        self._expire()

    def _due(self, now: float) -> float:
        due = float("inf") if self._idle is None else (now if self._since is None else self._since) + self._idle
        return due if self._ends is None else min(due, self._ends)


#: RFC 9110 section 15: no other status ends a request. 101 would be an upgrade that nobody asked for
_STATUSES = range(200, 600)


@dataclass(frozen=True, slots=True)
class CallTimeouts:
    """How long a call may take, in seconds: to connect, until the answer begins, between two bytes of it, altogether.

    None sets no limit. The first byte is waited for from the moment the request's body is sent.
    """

    connect: float
    first_byte: float
    idle: float | None
    total: float | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            settings.connect_timeout,
            settings.first_byte_timeout,
            settings.idle_timeout,
            settings.total_timeout or None,
        )


async def send(
    transport: httpx.AsyncBaseTransport,
    target: Target,
    call: Call,
    limits: CallTimeouts,
    on_end: Callable[[], None] = lambda: None,
) -> "HttpReply":
    """The reply, once its head is there. ``on_end`` is called once: when the call has failed, or the reply has ended.

    A connection kept from an earlier call may turn out dead; then, and only then, the call is made once more.
    Raises ``UpstreamRefused``, ``UpstreamBroke``, ``UpstreamSlow``, and whatever the request's own body raises.
    """
    ends = None if limits.total is None else asyncio.get_running_loop().time() + limits.total
    body = Bytes(call.body) if isinstance(call.body, bytes) else _Upload(call.body, limits, ends)
    request = _request(target, call, body, limits)
    try:
        try:
            response = await _answered(transport, request, body, limits, ends)
        except StaleConnection:
            if isinstance(body, _Upload) and body.touched:
                raise
            response = await _answered(transport, request, body, limits, ends)
    except BaseException as error:
        on_end()
        if isinstance(body, _Upload) and body.fault is not None:
            raise body.fault from None
        if isinstance(error, httpx.TransportError):
            raise _translated(error, target) from error
        raise
    reply = HttpReply(response, target, limits, ends, on_end)
    if reply.status not in _STATUSES:
        await reply.aclose()
        raise UpstreamBroke(f"The model server at {target.name} answered with status {reply.status}, which is none.")
    return reply


def _request(target: Target, call: Call, body: httpx.AsyncByteStream, limits: CallTimeouts) -> httpx.Request:
    headers = call.headers
    if target.authorization is not None:
        headers = [header for header in headers if header[0] != b"authorization"]
        headers.append((b"authorization", target.authorization))
    return httpx.Request(
        call.method,
        target.origin,
        headers=headers,
        stream=body,
        extensions={"target": target.prefix + call.target, "timeout": {"connect": limits.connect}},
    )


async def _answered(
    transport: httpx.AsyncBaseTransport,
    request: httpx.Request,
    body: "Bytes | _Upload",
    limits: CallTimeouts,
    ends: float | None,
) -> httpx.Response:
    deadline = asyncio.timeout_at(_due(limits, ends))
    try:
        async with deadline:
            if not isinstance(body, _Upload):
                return await transport.handle_async_request(request)
            with body.moving(deadline):
                return await transport.handle_async_request(request)
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise httpx.ReadTimeout(_patience(limits, ends)) from error


def _due(limits: CallTimeouts, ends: float | None) -> float:
    due = asyncio.get_running_loop().time() + limits.first_byte
    return due if ends is None else min(due, ends)


def _patience(limits: CallTimeouts, ends: float | None) -> str:
    total = ends is not None and asyncio.get_running_loop().time() >= ends
    return f"nothing came within {limits.total if total else limits.first_byte:g} s"


class _Upload(httpx.AsyncByteStream):
    """A request body on its way. ``touched`` says whether it can no longer be sent again.

    ``fault`` is what its own source raised: a caller who left in the middle is no failure of the upstream.
    """

    def __init__(self, chunks: AsyncIterator[bytes], limits: CallTimeouts, ends: float | None) -> None:
        self._chunks = chunks
        self._limits = limits
        self._ends = ends
        self._deadline: asyncio.Timeout | None = None
        self.touched = False
        self.fault: Exception | None = None

    @contextmanager
    def moving(self, deadline: asyncio.Timeout) -> Iterator[None]:
        """While the body is being sent, every piece of it puts the deadline for the first byte off."""
        self._deadline = deadline
        try:
            yield
        finally:
            self._deadline = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.touched = True
        try:
            async for chunk in self._chunks:
                yield chunk
                if self._deadline is not None and not self._deadline.expired():
                    self._deadline.reschedule(_due(self._limits, self._ends))
        except Exception as error:
            # whatever it is, it is for the caller of this proxy, not for the client library to interpret
            self.fault = error
            raise


class HttpReply:
    """The ``Reply`` to one call. Once it has ended, the upstream's connection is free again, or closed."""

    def __init__(
        self,
        response: httpx.Response,
        target: Target,
        limits: CallTimeouts,
        ends: float | None,
        on_end: Callable[[], None],
    ) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self.status = response.status_code
        self.headers: HeaderList = end_to_end(response.headers.raw)
        self.fresh: bool = response.extensions.get("fresh", True)
        self.delimited = "content-length" in response.headers or "transfer-encoding" in response.headers
        self._target = target
        self._limits = limits
        self._on_end = on_end
        self._ended = False
        self._stream = response.stream
        self._next = aiter(response.stream).__anext__
        self._closing: asyncio.Task[None] | None = None
        self._watchdog = Watchdog(limits.idle, ends, self._expire)

    def chunks(self) -> AsyncIterator[bytes]:
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._watchdog.wait()
        try:
            return await self._next()
        except StopAsyncIteration:
            self._end()
            raise
        except httpx.TransportError as error:
            await self.aclose()
            raise self._broken(error) from error
        finally:
            self._watchdog.fed()

    async def read(self, limit: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        async for chunk in self:
            pieces.append(chunk)
            size += len(chunk)
            if size >= limit:
                break
        return b"".join(pieces)[:limit]

    async def aclose(self) -> None:
        self._end()
        if self._closing is None:
            await self._stream.aclose()
        else:
            await self._closing

    def _expire(self) -> None:
        # whoever waits for the next chunk wakes with an error that the closed stream raises
        self._closing = asyncio.get_running_loop().create_task(self._stream.aclose())

    def _end(self) -> None:
        self._watchdog.close()
        if not self._ended:
            self._ended = True
            self._on_end()

    def _broken(self, error: httpx.TransportError) -> UpstreamError:
        server = f"The model server at {self._target.name}"
        if self._watchdog.expired == "idle":
            return UpstreamSlow(f"{server} fell silent for {self._limits.idle:g} s in the middle of its answer.")
        if self._watchdog.expired == "total":
            return UpstreamSlow(f"{server} did not finish its answer within {self._limits.total:g} s.")
        log.info("%s broke off in the middle of its answer: %r", self._target.name, error)
        return UpstreamBroke(f"{server} broke off in the middle of its answer.")


def _translated(error: httpx.TransportError, target: Target) -> UpstreamError:
    """What befell a call whose reply had not begun. First match counts.

    Only what the system or our own limits say is passed on: the words of an HTTP library are for the log.
    """
    for kinds, ours, message in _FAILURES:
        if isinstance(error, kinds):
            if ours is UpstreamBroke:
                log.info("no proper answer from %s: %r", target.name, error)
            return ours(message.format(server=f"the model server at {target.name}", why=str(error)))
    raise AssertionError("the table ends with the base class") from error


_FAILURES: tuple[tuple[tuple[type[httpx.TransportError], ...], type[UpstreamError], str], ...] = (
    (
        (httpx.ConnectTimeout,),
        UpstreamRefused,
        "Cannot connect to {server}: it did not answer in time. Is it running, and is LLMPROXY_UPSTREAM its address?",
    ),
    (
        (httpx.ConnectError, httpx.UnsupportedProtocol),
        UpstreamRefused,
        "Cannot connect to {server}: {why}. Is it running, and is LLMPROXY_UPSTREAM its address?",
    ),
    ((httpx.TimeoutException,), UpstreamSlow, "No answer from {server}: {why}."),
    (
        (httpx.NetworkError, StaleConnection),
        UpstreamBroke,
        "No proper answer from {server}: the connection was closed before one came.",
    ),
    ((httpx.TransportError,), UpstreamBroke, "No proper answer from {server}: what it sent is not HTTP."),
)
