"""uvicorn's HTTP protocol with limits, deaf to offers of another protocol, and with our envelope for its own answers.

uvicorn itself sets no limit on a request's head nor on the time that it takes, and stops reading at an ``Upgrade``.
"""

import asyncio
import heapq
import resource
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from fcntl import ioctl
from struct import pack, unpack
from termios import TIOCOUTQ
from typing import Any, ClassVar, Self
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from llmproxy.config.settings import Settings
from llmproxy.middleware.response_cycle import ResponseCycle
from llmproxy.wire.errors import BadRequest, HeaderTooLarge, ProxyError, TooSlow, error_response
from llmproxy.wire.exchange import CONNECTION

#: no more descriptors than this are asked of the system; each is a connection
_MOST_DESCRIPTORS = 65_536
#: descriptors that new connections leave to calls upstream, to the database and to files: at least, and as a share
_LEAST_RESERVE, _RESERVE_SHARE = 32, 8
#: this share of all connections is closed at once if there is no room
_EVICTED_SHARE = 16

#: how long a refused client may take to read why, and how much of what it goes on to send is thrown away for that
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 512 * 1024
#: the application tells a client by itself that its body has stopped; this much later the connection is closed
_GRACE_SECONDS = 5.0
#: a client that has sent or read nothing for so long counts as stopped, if others need its place
_STALL_SECONDS = 2.0
_FRAMING = (b"content-length", b"transfer-encoding")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds for one connection; seconds and bytes. ``descriptor`` is the first one that says that room is scarce."""

    header_bytes: int
    header_seconds: float
    body_seconds: float
    write_seconds: float
    keep_alive_seconds: float
    descriptor: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if most == resource.RLIM_INFINITY:
            most = _MOST_DESCRIPTORS
        return cls(
            settings.max_header_bytes,
            settings.request_header_timeout,
            settings.request_body_timeout,
            settings.response_write_timeout,
            settings.keep_alive_timeout,
            most - max(_LEAST_RESERVE, most // _RESERVE_SHARE),
        )


class ConnectionStage(Enum):
    """What of a request is being received."""

    NOTHING = "nothing"
    HEAD = "head"
    BODY = "body"


class Protocol(HttpToolsProtocol):
    """``limits`` are given by the subclass that ``bound`` makes."""

    limits: ClassVar[ConnectionLimits]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: uvicorn has none before the first request line; a client may be refused before it
        self.url = b""
        self.stage = ConnectionStage.NOTHING
        #: when (``loop.time()``) the connection came into its present state
        self.since = self.loop.time()
        #: bytes since a head began, or since the last piece of a body
        self._received = 0
        #: bytes of the newest piece, of whatever
        self._piece = 0
        #: what this client was refused for; nothing that it sends is read any more
        self._refusal: ProxyError | None = None
        #: while a head is read a second time, without its offer of an upgrade
        self._rereading = False
        #: the request in work; ``cycle`` is the last one that came, which may wait for it
        self._running: RequestResponseCycle | None = None
        #: called when the client of that one leaves
        self._left: Callable[[], None] | None = None
        #: bytes that wait to be read by the client, and since when there have not been fewer
        self._unread, self._unread_since = 0, 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if transport.get_extra_info("socket").fileno() >= self.limits.descriptor:
            make_room(self.connections, self)  # type: ignore[arg-type]  # all are of this class

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_cycles()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running, self._left = cycle, None
        super()._start_asgi_task(cycle, app)

    # for the application: the extension ``CONNECTION`` of the ASGI scope

    @property
    def is_received(self) -> bool:
        """Whether the whole body of the request in work is here."""
        return self._running is not None and not self._running.more_body

    def on_disconnect(self, left: Callable[[], None]) -> None:
        """Has ``left`` called if the client of the request in work leaves before the answer is complete. A task that
        waits for the message "http.disconnect" would cost a twentieth of a cached miss."""
        if self._running is not None and self._running.disconnected:
            left()
            return
        self._left = left
        # a client is seen to leave while it is read from
        self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._refusal is not None:
            self._discard(data)
            return
        if self.stage is not ConnectionStage.HEAD:
            self.since = self.loop.time()
            if self.stage is ConnectionStage.NOTHING:
                self.stage = ConnectionStage.HEAD
        self._piece = len(data)
        self._received += self._piece
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            # what a callback raised, or what the parser itself found
            cause = error.__context__
            self._refuse(cause if isinstance(cause, ProxyError) else BadRequest("Invalid HTTP request received."))
            return
        if self._received > self.limits.header_bytes and self.stage is not ConnectionStage.NOTHING:
            self._refuse(self._header_too_large())

    def _feed(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        while True:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as stopped:
                rest = memoryview(rest)[stopped.args[0] :]
                if self.parser.get_method() == b"CONNECT":
                    # what follows is no HTTP
                    self._refusal = BadRequest("There are no tunnels here.")
                    self.cycle.keep_alive = False
                    return
                self._decline_upgrade()
            else:
                return

    def _decline_upgrade(self) -> None:
        """Ignores the offer (RFC 9110 section 7.8).

        The parser takes the head for the end of the request, even if it announces a body, and that cannot be changed: a
        new parser reads the framing headers alone.
        """
        framing = b"".join(b"%b: %b\r\n" % header for header in self.headers if header[0] in _FRAMING)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._rereading = True
        try:
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing)
        finally:
            self._rereading = False

    # the parser's callbacks

    def on_message_begin(self) -> None:
        if not self._rereading:
            self.stage = ConnectionStage.HEAD
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._rereading:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        # behind a body are trailers: nobody here reads them, and they must not pass for headers
        if not self._rereading and self.stage is ConnectionStage.HEAD:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._rereading:
            return
        most = self.limits.header_bytes
        # a head that ends in this piece is no larger than the piece and what came before it
        if self._received + self._piece > most and _head_size(self.url, self.headers) > most:
            raise self._header_too_large()
        self._begin_cycle()
        self.stage, self._received = ConnectionStage.BODY, 0

    def _begin_cycle(self) -> None:
        """What uvicorn does at the end of a head, without WebSockets, and with our ``ResponseCycle``."""
        scope, version, url = self.scope, self.parser.get_http_version(), httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["method"], scope["http_version"] = self.parser.get_method().decode("ascii"), version
        scope["path"], scope["raw_path"] = unquote(path) if "%" in path else path, url.path
        scope["query_string"] = url.query or b""
        scope["extensions"] = self.extensions()
        waits = self.answering
        self.cycle = ResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if waits:
            # pipelined behind the one in work
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))
        else:
            self._start_asgi_task(self.cycle, self.app)

    def extensions(self) -> dict[str, Any]:
        """Those of the ASGI scope of a request."""
        return {CONNECTION: self}

    def on_body(self, body: bytes) -> None:
        self._received = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            return
        self.stage, self._received, self.since = ConnectionStage.NOTHING, 0, self.loop.time()
        super().on_message_complete()

    # limits

    @property
    def answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    @property
    def idle(self) -> bool:
        """Whether no request is being received or answered."""
        return (
            self.stage is ConnectionStage.NOTHING and not self.answering and not self.transport.get_write_buffer_size()
        )

    @property
    def expendable(self) -> bool:
        """Whether no whole request is lost with this connection."""
        return self.stage is ConnectionStage.HEAD and not self.answering

    @property
    def stalled(self) -> bool:
        """Whether the client has stopped in the middle, for longer than a network takes."""
        now = self.loop.time()
        if self._unread:
            return now - self._unread_since > _STALL_SECONDS
        return self.stage is ConnectionStage.BODY and not self.flow.read_paused and now - self.since > _STALL_SECONDS

    @property
    def closing(self) -> bool:
        return self.transport.is_closing()

    def close(self) -> None:
        """Without regard to what the client has not read."""
        self._end_cycles()
        self.transport.abort()

    def _end_cycles(self) -> None:
        """Stops writing, and reports to the application that its client has gone.

        uvicorn reports it to the last request of the connection only, which may still wait for the one in work.
        """
        for cycle in (self.cycle, self._running):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
                left, self._left = self._left, None
                if left is not None:
                    left()

    def check(self, now: float) -> None:
        """Ends what has outlived its limits."""
        if self._refusal is not None:
            if now - self.since > _LINGER_SECONDS and not self.answering:
                self.close()
        elif self._unread_for(now) > self.limits.write_seconds:
            self.close()
        elif self.flow.read_paused or (self.answering and self.stage is ConnectionStage.NOTHING):
            # it is not the client who is waited for
            self.since = now
        elif self.stage is ConnectionStage.HEAD and now - self.since > self.limits.header_seconds:
            self._refuse(TooSlow(f"The request's head was not there after {self.limits.header_seconds:g} s."))
        elif self.stage is ConnectionStage.BODY and now - self.since > self.limits.body_seconds + _GRACE_SECONDS:
            self._refuse(TooSlow(f"The request body stopped for {self.limits.body_seconds:g} s."))
        elif self.idle and now - self.since > self.limits.keep_alive_seconds:
            self.transport.close()

    def _unread_for(self, now: float) -> float:
        """Seconds for which the client has read nothing of what is there for it."""
        waiting = self.transport.get_write_buffer_size()
        if not waiting:
            self._unread = 0
            return 0.0
        waiting += _unacknowledged(self.transport)
        if not self._unread or waiting < self._unread:
            self._unread_since = now
        self._unread = waiting
        return now - self._unread_since

    def _header_too_large(self) -> ProxyError:
        return HeaderTooLarge(
            f"The head of the request is larger than {self.limits.header_bytes} bytes (LLMPROXY_MAX_HEADER_BYTES)."
        )

    def _refuse(self, error: ProxyError) -> None:
        """Answers with the error if that is still possible, and closes."""
        self._refusal, self._received, self.since = error, 0, self.loop.time()
        own = self.stage is ConnectionStage.BODY
        if not own and self.answering:
            # requests before this one are answered first
            self.flow.pause_reading()
            self.cycle.keep_alive = False
            return
        if own and (self.pipeline or self.cycle.response_started):
            self.transport.close()
            return
        if own:
            self._end_cycles()
        # as far as a path has come
        path = self.url.partition(b"?")[0].decode("latin-1")
        content_type, body = error_response(error, path, "")
        head = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (content_type, len(body))
        self.transport.write(STATUS_LINE[error.http_status] + head + body)
        # closed at once, the answer would be lost to a client that is still sending
        self.transport.write_eof()

    def _discard(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > _LINGER_BYTES:
            self.flow.pause_reading()


def raise_descriptor_limit() -> None:
    """Takes what the system's administrator allows, as servers in Go do: the usual soft limit is that of a shell."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def make_room(connections: Iterable[Protocol], new: Protocol) -> None:
    """Closes the connections that have been idle, or slow to send a head, for longest; if there are none, those whose
    clients stopped in the middle of a body or of an answer; else the new one, because calls upstream need descriptors,
    too."""
    others = [each for each in connections if each is not new and not each.closing]
    candidates = [each for each in others if each.idle or each.expendable] or [each for each in others if each.stalled]
    for connection in heapq.nsmallest(1 + len(others) // _EVICTED_SHARE, candidates, key=lambda each: each.since):
        connection.close()
    if not candidates:
        new.close()


def sweep(connections: Iterable[Protocol], now: float) -> None:
    """Checks each. Called every half second: a timer for each connection would cost each request two."""
    for connection in list(connections):
        connection.check(now)


def bound(limits: ConnectionLimits) -> type[Protocol]:
    """The protocol with these limits."""
    return type("BoundProtocol", (Protocol,), {"limits": limits})


def _head_size(url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    return len(url) + sum(len(name) + len(value) + 4 for name, value in headers)


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes that the system holds for the client; 0 if it does not report them."""
    try:
        answer = ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, pack("i", 0))
    except OSError:
        return 0
    return int(unpack("i", answer)[0])
