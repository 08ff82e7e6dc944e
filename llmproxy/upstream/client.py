"""The HTTP client: HTTP/1.1 on connections that are kept, and every failure translated into ours.

A proxy needs no redirects, cookies, environment proxies, default headers, decompression or retries. What is left is a
parser (httptools, which the server uses too) and the loop's own transports, at a fraction of what a client library
spends on a call (docs/decisions.md).
"""

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Self

import httptools

from llmproxy.config.settings import Settings
from llmproxy.upstream.headers import end_to_end
from llmproxy.upstream.target import Address, Call, Target
from llmproxy.wire.errors import UpstreamBroke, UpstreamError, UpstreamRefused, UpstreamSlow
from llmproxy.wire.headers import HeaderList

log = logging.getLogger(__name__)

#: llama.cpp closes idle connections after 5.00 s: let go of them before.
KEEPALIVE_SECONDS = 4.0
#: RFC 9110 section 15: no other status ends a request. 101 would be an upgrade that nobody asked for
_STATUSES = range(200, 600)
_INTERIM = range(100, 200)
_SWITCHING = 101
#: of a response head
_MOST_HEADER_BYTES = 256 * 1024
#: so much of a body is held for a reader that is slow; then the server is made to wait
_HIGH_WATER = 128 * 1024
#: bodies up to this size go out in one piece with their head
_ONE_PIECE = 64 * 1024
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class ConnectFailed(Exception):
    """There is no connection to be had; the message says why."""


class ConnectTimedOut(ConnectFailed):
    """Nobody answered in time."""


class LimitReached(Exception):
    """The answer was longer in coming than it may be; the message says for how long."""


class ConnectionClosed(Exception):
    """The connection was closed before the answer's end."""


class NotHttp(Exception):
    """What came is no HTTP."""


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


class HttpClient:
    """Connections to servers, kept alive between calls, any number of them. Must be made inside a running loop."""

    def __init__(self) -> None:
        self._idle: dict[Address, list[HttpConnection]] = {}
        self._open: set[HttpConnection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None

    def take(self, address: Address) -> "HttpConnection | None":
        """A connection that is kept, the last one used first."""
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if not connection.is_closing:
                return connection
        return None

    async def connect(self, address: Address, seconds: float) -> "HttpConnection":
        """A new connection. Raises ``ConnectFailed``."""
        loop, failure = asyncio.get_running_loop(), ConnectFailed("the name stands for no address")
        ends = loop.time() + seconds
        try:
            async with asyncio.timeout_at(ends):
                found = await loop.getaddrinfo(address.host, address.port, type=1)
        except TimeoutError:
            raise ConnectTimedOut from None
        except OSError as error:
            raise ConnectFailed(_why(error)) from error
        hosts = [*dict.fromkeys(str(each[4][0]) for each in found)]
        for number, host in enumerate(hosts):
            try:
                # an address that never answers leaves the others their share
                async with asyncio.timeout((ends - loop.time()) / (len(hosts) - number)):
                    return await self._connect(address, host)
            except TimeoutError:
                failure = ConnectTimedOut()
            except (OSError, ssl.CertificateError) as error:
                failure = ConnectFailed(_why(error))
        raise failure

    async def _connect(self, address: Address, host: str) -> "HttpConnection":
        context = None
        if address.tls:
            context = self._tls = self._tls or ssl.create_default_context()
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: HttpConnection(lambda connection: self._keep(address, connection), self._open.discard),
            host,
            address.port,
            ssl=context,
            server_hostname=address.host if address.tls else None,
        )
        if not connection.is_closing:
            self._open.add(connection)
        return connection

    def _keep(self, address: Address, connection: "HttpConnection") -> None:
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.setdefault(address, []).append(connection)
        if self._timer is None:
            self._timer = loop.call_later(KEEPALIVE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Closes connections that have been idle for long enough; one timer for all of them."""
        loop = asyncio.get_running_loop()
        old = loop.time() - KEEPALIVE_SECONDS
        for connection in [each for idle in self._idle.values() for each in idle if each.idle_since <= old]:
            connection.close()
        self._idle = {
            address: usable
            for address, idle in self._idle.items()
            if (usable := [connection for connection in idle if not connection.is_closing])
        }
        # the first of each is the oldest
        due = [idle[0].idle_since + KEEPALIVE_SECONDS for idle in self._idle.values()]
        self._timer = loop.call_at(min(due), self._sweep) if due else None

    async def aclose(self) -> None:
        """Closes all of them, whatever they are used for."""
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._open):
            connection.close()
        self._idle.clear()


class HttpConnection(asyncio.Protocol):
    """One connection, for one call after the other. ``keep`` is called when it is free, ``lost`` when it is gone."""

    def __init__(self, keep: Callable[["HttpConnection"], None], lost: Callable[["HttpConnection"], None]) -> None:
        self._keep = keep
        self._lost = lost
        self._transport: asyncio.Transport
        self._parser = self._new_parser()
        self._reply: HttpReply | None = None
        self._headers: HeaderList = []
        #: of a body, while one read is being parsed
        self._pieces: list[bytes] = []
        self._received = 0
        #: whether the head of the answer under way is there; what has a header's form after it is a trailer
        self._in_body = False
        self._paused = False
        self._drained: asyncio.Future[None] | None = None
        #: of the loop's clock
        self.idle_since = 0.0

    def _new_parser(self) -> httptools.HttpResponseParser:
        parser = httptools.HttpResponseParser(self)
        parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        return parser

    @property
    def is_closing(self) -> bool:
        return self._transport.is_closing()

    @property
    def is_silent(self) -> bool:
        """Whether not a byte has come since the last call began."""
        return self._received == 0

    def begin(self, reply: "HttpReply", head: bytes, body: bytes) -> None:
        """Sends a request whose answer is for ``reply``."""
        self._reply, self._received, self._in_body = reply, 0, False
        if self.is_closing:
            self._reply = None
            reply.fail(ConnectionClosed())
        elif len(body) <= _ONE_PIECE:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    async def write(self, data: bytes) -> None:
        """Sends more of a body, and waits while the server does not take it. Raises ``ConnectionClosed``."""
        if self.is_closing:
            raise ConnectionClosed
        self._transport.write(data)
        if self._drained is not None:
            await self._drained

    def resume(self) -> None:
        """The reader has taken what was there."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """At once, without regard to what was not sent."""
        self._transport.abort()

    # the transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is none by name

    def connection_lost(self, error: Exception | None) -> None:
        self._lost(self)
        self.resume_writing()
        reply, self._reply = self._reply, None
        if reply is not None:
            if error is None and self._in_body and not reply.delimited:
                reply.end()
            else:
                reply.fail(ConnectionClosed(str(error or "")))

    def pause_writing(self) -> None:
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def data_received(self, data: bytes) -> None:
        reply = self._reply
        if reply is None:
            # nobody has asked: whatever it is, it is no answer
            self.close()
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._hand_over()
            self._fail(NotHttp(str(error)))
            return
        self._hand_over()
        if not self._in_body and self._received > _MOST_HEADER_BYTES and self._reply is not None:
            self._fail(NotHttp("a head without an end"))
        elif self._in_body and reply.bodiless and self._reply is not None:
            # the parser does not know that nothing follows
            self._complete(reply)
            self._parser = self._new_parser()
        elif reply.held > _HIGH_WATER and not self._paused and self._reply is not None:
            self._paused = True
            self._transport.pause_reading()

    def _hand_over(self) -> None:
        """What one read has brought of the body."""
        pieces, self._pieces = self._pieces, []
        if pieces and self._reply is not None and not self._reply.bodiless:
            self._reply.feed(pieces)

    def _fail(self, error: Exception) -> None:
        reply, self._reply = self._reply, None
        self.close()
        if reply is not None:
            reply.fail(error)

    def _complete(self, reply: "HttpReply") -> None:
        self._hand_over()
        self._reply = None
        is_kept = self._parser.should_keep_alive() and not reply.uploading and not self.is_closing
        reply.end()
        self.resume()
        if is_kept:
            self._keep(self)
        else:
            self.close()

    # the parser's callbacks

    def on_message_begin(self) -> None:
        if self._reply is None:
            raise NotHttp("more than the answer")
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._reply is not None and (status not in _INTERIM or status == _SWITCHING):
            self._in_body = True
            self._reply.begin(status, self._headers)

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self._in_body and self._reply is not None and not self._reply.bodiless:
            self._in_body = False
            self._complete(self._reply)


class HttpReply:
    """The ``Reply`` to one call. Once it has ended, the server's connection is free again, or closed.

    ``on_end`` is called once: when the call has failed, or the reply has been read to its end or closed.
    """

    def __init__(
        self,
        connection: HttpConnection,
        target: Target,
        limits: CallTimeouts,
        ends: float | None,
        *,
        fresh: bool,
        bodiless: bool,
    ) -> None:
        self.status = 0
        self.headers: HeaderList = []
        self.fresh = fresh
        self.delimited = True
        self.bodiless = bodiless
        self.on_end: Callable[[], None] = lambda: None
        #: bytes of the body that wait for the reader
        self.held = 0
        self._connection = connection
        self._target = target
        self._limits = limits
        self._pieces: list[bytes] = []
        self._began = self._done = self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._upload: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._watchdog = Watchdog(self._loop, limits.first_byte, ends, self._expire)

    # what the connection tells

    def begin(self, status: int, headers: HeaderList) -> None:
        self._began = True
        self.status = status
        self.headers = end_to_end(headers)
        self.delimited = not _FRAMING.isdisjoint([name.lower() for name, _ in headers])
        self._wake()

    def feed(self, pieces: list[bytes]) -> None:
        self._pieces += pieces
        self.held += sum(map(len, pieces))
        self._wake()

    def end(self) -> None:
        self._done = True
        self._watchdog.close()
        self._wake()

    def fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._watchdog.close()
        self._wake()

    # what the call does

    async def wait_head(self, chunks: AsyncIterator[bytes] | None, *, chunked: bool) -> None:
        """Returns once the head is there; sends the body meanwhile that is not sent yet. Raises what the call failed
        for: what the body's own source raises too, which is no failure of the server."""
        self._watchdog.wait()
        if chunks is not None:
            self._upload = self._loop.create_task(self._send(chunks, chunked=chunked))
        try:
            while not self._began:
                if self._error is not None:
                    raise self._error
                await self._wait()
        except BaseException:
            self._close()
            raise
        if not self._done:
            self._watchdog.limit(self._limits.idle)

    async def _send(self, chunks: AsyncIterator[bytes], *, chunked: bool) -> None:
        try:
            async for chunk in chunks:
                if chunk:
                    await self._connection.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                if not self._began:
                    # every piece of the body puts off the limit for the first byte of the answer
                    self._watchdog.wait()
            if chunked:
                await self._connection.write(b"0\r\n\r\n")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for whoever waits for the answer
            self.fail(error)
            self._connection.close()

    @property
    def uploading(self) -> bool:
        """Whether the request is still being sent."""
        return self._upload is not None and not self._upload.done()

    def chunks(self) -> AsyncIterator[bytes]:
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._done:
                self._end()
                raise StopAsyncIteration
            if self._error is not None:
                self._close()
                raise self._broken(self._error) from self._error
            self._watchdog.wait()
            try:
                await self._wait()
            finally:
                self._watchdog.fed()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces, self.held = [], 0
        if not self._done:
            self._connection.resume()
        return data

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
        self._close()

    def _close(self) -> None:
        if not self._done and self._error is None:
            self._error = ConnectionClosed("by this side")
            self._connection.close()
        if self._upload is not None:
            self._upload.cancel()
        self._end()

    def _end(self) -> None:
        self._watchdog.close()
        if not self._ended:
            self._ended = True
            self.on_end()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expire(self) -> None:
        total = self._watchdog.expired == "total"
        self.fail(LimitReached(f"nothing came within {self._limits.total if total else self._limits.first_byte:g} s"))
        self._connection.close()

    def _broken(self, error: Exception) -> UpstreamError:
        server = f"The model server at {self._target.name}"
        if self._watchdog.expired == "idle":
            return UpstreamSlow(f"{server} fell silent for {self._limits.idle:g} s in the middle of its answer.")
        if self._watchdog.expired == "total":
            return UpstreamSlow(f"{server} did not finish its answer within {self._limits.total:g} s.")
        log.info("%s broke off in the middle of its answer: %r", self._target.name, error)
        return UpstreamBroke(f"{server} broke off in the middle of its answer.")


class Watchdog:
    """The idle and the total limit of one reply, at the price of one timer.

    Calls ``expire`` once if a wait lasts ``idle`` seconds, or at loop time ``ends``; None sets no such limit.

    The timer is not moved at every wait: when it goes off too early, it is set again for the rest. Time in
    which nobody waits (the reader is busy with its own, slower reader) counts for ``ends`` only.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, idle: float | None, ends: float | None, expire: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._idle = idle
        self._ends = ends
        self._expire = expire
        self._since: float | None = None
        #: why it went off: "idle" or "total"; "" while it has not
        self.expired = ""
        self._timer = None if idle is None and ends is None else loop.call_at(self._due(loop.time()), self._check)

    def limit(self, idle: float | None) -> None:
        """Replaces the idle limit; nobody waits now."""
        self._idle, self._since = idle, None
        due = self._due(self._loop.time())
        if self._timer is not None and not self._timer.when() <= due < float("inf"):
            self._timer.cancel()
            self._timer = None if due == float("inf") else self._loop.call_at(due, self._check)

    def wait(self) -> None:
        """From now on somebody waits."""
        self._since = self._loop.time()

    def fed(self) -> None:
        """What was waited for is there."""
        self._since = None

    def close(self) -> None:
        """Safe to call twice."""
        # no circle of references is left: it would wait for the garbage collector, with the whole answer
        self._expire = _nothing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        now = self._loop.time()
        if self._ends is not None and now >= self._ends:
            self.expired = "total"
        elif self._idle is not None and self._since is not None and now >= self._since + self._idle:
            self.expired = "idle"
        else:
            self._timer = self._loop.call_at(self._due(now), self._check)
            return
        self._timer = None
        self._expire()

    def _due(self, now: float) -> float:
        due = float("inf") if self._idle is None else (now if self._since is None else self._since) + self._idle
        return due if self._ends is None else min(due, self._ends)


def _nothing() -> None:
    pass


async def send(
    client: HttpClient, target: Target, call: Call, limits: CallTimeouts, on_end: Callable[[], None] = lambda: None
) -> HttpReply:
    """The reply, once its head is there. ``on_end`` is called once: when the call has failed, or the reply has ended.

    A connection kept from an earlier call may turn out dead; then, and only then, the call is made once more.
    Raises ``UpstreamRefused``, ``UpstreamBroke``, ``UpstreamSlow``, and whatever the request's own body raises.
    """
    try:
        reply = await open_reply(client, target, call, limits)
    except BaseException as error:
        on_end()
        if isinstance(error, ConnectFailed | LimitReached | ConnectionClosed | NotHttp):
            raise _translated(error, target) from error
        raise
    reply.on_end = on_end
    if reply.status not in _STATUSES:
        await reply.aclose()
        raise UpstreamBroke(f"The model server at {target.name} answered with status {reply.status}, which is none.")
    return reply


async def open_reply(client: HttpClient, target: Target, call: Call, limits: CallTimeouts) -> HttpReply:
    """The same with failures as they are: ``ConnectFailed``, ``LimitReached``, ``ConnectionClosed``, ``NotHttp``."""
    ends = None if limits.total is None else asyncio.get_running_loop().time() + limits.total
    body, chunks = (call.body, None) if isinstance(call.body, bytes) else (b"", call.body)
    head, chunked = request_head(target, call)
    idle = client.take(target.address)
    while True:
        connection = idle if idle is not None else await client.connect(target.address, limits.connect)
        reply = HttpReply(connection, target, limits, ends, fresh=idle is None, bodiless=call.method == "HEAD")
        connection.begin(reply, head, body)
        try:
            await reply.wait_head(chunks, chunked=chunked)
        except ConnectionClosed:
            # a body that has begun to flow cannot be sent again
            if idle is None or chunks is not None or not connection.is_silent:
                raise
            idle = None
        else:
            return reply


def request_head(target: Target, call: Call) -> tuple[bytes, bool]:
    """The head of a request, and whether its body goes out in chunks. Raises ``ValueError`` for what cannot be sent."""
    authorization = target.authorization
    headers: Sequence[tuple[bytes, bytes]] = call.headers
    if authorization is not None:
        headers = [header for header in headers if header[0] != b"authorization"]
        headers.append((b"authorization", authorization))
    lines = [b"%b %b HTTP/1.1" % (call.method.encode(), _sendable(target.prefix + call.target))]
    lines.append(b"host: " + target.address.authority)
    lines += [b"%b: %b" % header for header in headers]
    chunked = False
    if not isinstance(call.body, bytes):
        if chunked := not any(name == b"content-length" for name, _ in headers):
            lines.append(b"transfer-encoding: chunked")
    elif call.body and not any(name == b"content-length" for name, _ in headers):
        lines.append(b"content-length: %d" % len(call.body))
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
        raise ValueError("a header with a line break cannot be sent")
    return head + b"\r\n\r\n", chunked


def _sendable(target: bytes) -> bytes:
    """Path and query as they are. Bytes that are no text are percent-encoded."""
    if target.isascii():
        return target
    try:
        target.decode()
    except UnicodeDecodeError:
        return b"".join(b"%c" % byte if byte < 0x80 else b"%%%02X" % byte for byte in target)
    return target


def _why(error: Exception) -> str:
    """Why there is no connection, in the system's standard words: event loops have their own."""
    if isinstance(error, ssl.SSLError | ssl.CertificateError) or not isinstance(error, OSError):
        return str(error)
    number = error.errno or 0
    return os.strerror(number) if number > 0 else error.strerror or str(error)


def _translated(error: Exception, target: Target) -> UpstreamError:
    """What befell a call whose reply had not begun. First match counts.

    Only what the system or our own limits say is passed on: the words of a parser are for the log.
    """
    kind, message = next((ours, message) for theirs, ours, message in _FAILURES if isinstance(error, theirs))
    if kind is UpstreamBroke:
        log.info("no proper answer from %s: %r", target.name, error)
    return kind(message.format(server=f"the model server at {target.name}", why=str(error)))


_FAILURES: tuple[tuple[type[Exception], type[UpstreamError], str], ...] = (
    (
        ConnectTimedOut,
        UpstreamRefused,
        "Cannot connect to {server}: it did not answer in time. Is it running, and is LLMPROXY_UPSTREAM its address?",
    ),
    (
        ConnectFailed,
        UpstreamRefused,
        "Cannot connect to {server}: {why}. Is it running, and is LLMPROXY_UPSTREAM its address?",
    ),
    (LimitReached, UpstreamSlow, "No answer from {server}: {why}."),
    (ConnectionClosed, UpstreamBroke, "No proper answer from {server}: the connection was closed before one came."),
    (NotHttp, UpstreamBroke, "No proper answer from {server}: what it sent is not HTTP."),
)
