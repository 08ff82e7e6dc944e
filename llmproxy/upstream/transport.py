"""httpx's transport interface over aiohttp's connections.

A proxy needs neither of the two client layers above: no redirects, cookies, environment proxies, default headers,
decompression or retries. What is left is httpx's vocabulary for requests, responses and failures, at several times
the speed of its own connections (docs/decisions.md).
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

import aiohttp
import httpx
from aiohttp.client import ClientRequest, ClientTimeout
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from multidict import CIMultiDict
from yarl import URL

#: llama.cpp closes idle connections after 5.00 s: let go of them before.
KEEPALIVE_SECONDS = 4.0

#: aiohttp's limit of 8 KiB for a response header is too tight for a proxy.
_HEADER_BYTES = 64 * 1024

#: whether the connection of the request that this task sends is new
_fresh: ContextVar[bool] = ContextVar("fresh", default=True)

_OWN_HEADERS_ONLY = ("accept", "accept-encoding", "content-type", "user-agent")

#: First match counts.
_FAILURES: tuple[tuple[type[Exception], type[httpx.TransportError]], ...] = (
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
    kind = next(ours for theirs, ours in _FAILURES if isinstance(error, theirs))
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
