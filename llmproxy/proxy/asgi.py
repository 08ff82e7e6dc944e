"""The client of an ASGI request: its body, where it wants to go, and whether it is still there.

The body is read within bounds, its content coding undone (RFC 9110 section 8.4). The raw target goes upstream as it
came: it is never decoded and encoded again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol

from starlette.types import Message, Receive, Scope

from llmproxy.config.settings import Settings
from llmproxy.proxy.listen import ClientDisconnected
from llmproxy.upstream.headers import Peer
from llmproxy.wire.content_coding import Decoder, NotCoded, UnknownCoding, decoder
from llmproxy.wire.errors import BadRequest, TooLarge, TooSlow, Unsupported
from llmproxy.wire.exchange import CONNECTION


class Connection(Protocol):
    """What our own server tells of the connection beyond ASGI."""

    @property
    def is_received(self) -> bool:
        """Whether the whole body of the request is here."""
        ...

    def on_disconnect(self, left: Callable[[], None]) -> None:
        """Has ``left`` called once if the client leaves before its answer is complete."""
        ...


def _connection(scope: Scope) -> Connection | None:
    """None under another server."""
    connection: Connection | None = (scope.get("extensions") or {}).get(CONNECTION)
    return connection


class SocketClient:
    """The client at the other end of an ASGI request. It is watched once the request's body has been read."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._connection = _connection(scope)
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._wakes: list[Callable[[], None]] = []
        self.disconnected = False

    def watch(self, wake: Callable[[], None]) -> None:
        """Has ``wake`` called when the client leaves, at once if it has left."""
        is_first = not self._wakes
        self._wakes.append(wake)
        if self.disconnected:
            wake()
        elif is_first and self._connection is not None:
            self._connection.on_disconnect(self._leave)
        elif is_first:
            self._task = asyncio.get_running_loop().create_task(self._wait())

    def close(self) -> None:
        """Ends the watch. Every listener is closed by the one who made it."""
        self._wakes.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self.disconnected = True
        for wake in self._wakes:
            wake()


#: other requests get their turn after so many decoded bytes
_TURN_BYTES = 1024 * 1024


async def read(scope: Scope, receive: Receive, settings: Settings, limit: int | None = None) -> bytes:
    """The whole body, decoded; ``limit`` counts both what is received and what becomes of it.

    Raises ``TooLarge``, ``TooSlow``, ``Unsupported``, ``BadRequest``, ``ClientDisconnected``.
    """
    most = settings.max_body_bytes if limit is None else limit
    decode, connection = _decoder(scope["headers"]), _connection(scope)
    # what is here already needs no time limit
    is_here = connection is not None and connection.is_received
    first = _part(await receive()) if is_here else await _message(receive, settings)
    if decode is None and not first.get("more_body", False):
        # most bodies are here as one piece
        piece: bytes = first.get("body", b"")
        if len(piece) > most:
            raise _too_large(most)
        return bytes(piece)
    body = bytearray()
    async for chunk in _decoded(_received(first, receive, settings, most), decode):
        if len(body) + len(chunk) > most:
            raise _too_large(most)
        body += chunk
    return bytes(body)


async def received(receive: Receive, settings: Settings, limit: int | None = None) -> AsyncIterator[bytes]:
    """The body as it arrives, at constant memory. Raises ``ClientDisconnected``, ``TooSlow``, ``TooLarge``."""
    async for chunk in _received(await _message(receive, settings), receive, settings, limit):
        yield chunk


async def _received(message: Message, receive: Receive, settings: Settings, limit: int | None) -> AsyncIterator[bytes]:
    """The body from its first message on."""
    size = 0
    while True:
        if chunk := message.get("body", b""):
            size += len(chunk)
            if limit is not None and size > limit:
                raise _too_large(limit)
            yield chunk
        if not message.get("more_body", False):
            return
        message = await _message(receive, settings)


async def _message(receive: Receive, settings: Settings) -> Message:
    """The next part of a body. Raises ``ClientDisconnected``, ``TooSlow``."""
    try:
        async with asyncio.timeout(settings.request_body_timeout):
            message = await receive()
    except TimeoutError:
        raise TooSlow(f"The request body stopped for {settings.request_body_timeout:g} s.") from None
    return _part(message)


def _part(message: Message) -> Message:
    """Raises ``ClientDisconnected``."""
    if message["type"] == "http.disconnect":
        raise ClientDisconnected
    return message


async def decoded(chunks: AsyncIterator[bytes], headers: Iterable[tuple[bytes, bytes]]) -> AsyncIterator[bytes]:
    """The body without its content coding. Raises ``Unsupported``, ``BadRequest``."""
    async for chunk in _decoded(chunks, _decoder(headers)):
        yield chunk


def _decoder(headers: Iterable[tuple[bytes, bytes]]) -> Decoder | None:
    """Raises ``Unsupported``."""
    try:
        return decoder(headers)
    except UnknownCoding as coding:
        raise Unsupported(
            f"Content-Encoding {str(coding)[:40]!r} is not understood; gzip, deflate, zstd are."
        ) from None


async def _decoded(chunks: AsyncIterator[bytes], decode: Decoder | None) -> AsyncIterator[bytes]:
    turn = 0
    try:
        async for chunk in chunks:
            if decode is None:
                yield chunk
                continue
            for piece in decode.decode(chunk):
                yield piece
                turn += len(piece)
                if turn > _TURN_BYTES:
                    turn = 0
                    await asyncio.sleep(0)
        if decode is not None:
            decode.finish()
    except NotCoded as error:
        raise BadRequest(f"The request body is not what its Content-Encoding says: {error}.") from error


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than {limit} bytes (LLMPROXY_MAX_BODY_BYTES).")


def raw_target(scope: Scope) -> bytes:
    """Path and query as the client sent them."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope["query_string"]
    return raw + b"?" + query if query else raw


def peer_of(scope: Scope) -> Peer:
    client = scope.get("client")
    return Peer(client[0] if client else "unknown", scope["scheme"])
