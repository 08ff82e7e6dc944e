"""One attempt at a call: request out, reply in, and every failure of the client translated into ours."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import httpx

from llmproxy.config.settings import Settings
from llmproxy.upstream.headers import end_to_end
from llmproxy.upstream.target import Call, HeaderList, Target
from llmproxy.upstream.transport import Bytes, StaleConnection
from llmproxy.upstream.watchdog import Watchdog
from llmproxy.wire.errors import UpstreamBroke, UpstreamError, UpstreamRefused, UpstreamSlow

log = logging.getLogger(__name__)

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
