"""Request bodies: read within bounds, their content coding undone (RFC 9110 section 8.4)."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import zstandard
from starlette.types import Receive

from llmproxy.config.settings import Settings
from llmproxy.proxy.listener import ClientLeft
from llmproxy.wire.errors import BadRequest, TooLarge, TooSlow, Unsupported

#: Decoded at a time. These few bytes become 512 KiB at most with deflate, 16 MiB with zstd: a small body cannot turn
#: into a large one unnoticed.
_STEP = 512
#: other requests get their turn after so many decoded bytes
_TURN_BYTES = 1024 * 1024
_MOST_WINDOW = 2**27


async def read(
    receive: Receive, headers: Iterable[tuple[bytes, bytes]], settings: Settings, limit: int | None = None
) -> bytes:
    """The whole body, decoded; ``limit`` counts both what is received and what becomes of it.

    Raises ``TooLarge``, ``TooSlow``, ``Unsupported``, ``BadRequest``, ``ClientLeft``.
    """
    most = settings.max_body_bytes if limit is None else limit
    body = bytearray()
    async for chunk in decoded(received(receive, settings, most), headers):
        if len(body) + len(chunk) > most:
            raise _too_large(most)
        body += chunk
    return bytes(body)


async def received(receive: Receive, settings: Settings, limit: int | None = None) -> AsyncIterator[bytes]:
    """The body as it arrives, at constant memory. Raises ``ClientLeft``, ``TooSlow``, ``TooLarge``."""
    seconds, size = settings.request_body_timeout, 0
    while True:
        try:
            async with asyncio.timeout(seconds):
                message = await receive()
        except TimeoutError:
            raise TooSlow(f"The request body stopped for {seconds:g} s.") from None
        if message["type"] == "http.disconnect":
            raise ClientLeft
        if chunk := message.get("body", b""):
            size += len(chunk)
            if limit is not None and size > limit:
                raise _too_large(limit)
            yield chunk
        if not message.get("more_body", False):
            return


async def decoded(chunks: AsyncIterator[bytes], headers: Iterable[tuple[bytes, bytes]]) -> AsyncIterator[bytes]:
    """The body without its content coding. Raises ``Unsupported``, ``BadRequest``."""
    decoder = _decoder(headers)
    turn = 0
    async for chunk in chunks:
        if decoder is None:
            yield chunk
            continue
        for piece in decoder.decode(chunk):
            yield piece
            turn += len(piece)
            if turn > _TURN_BYTES:
                turn = 0
                await asyncio.sleep(0)
    if decoder is not None:
        decoder.finish()


class _Decoder:
    """Undoes one content coding. ``many``: whether what is coded may follow upon another (RFC 1952, RFC 8878)."""

    def __init__(self, start: Callable[[], Any], *, many: bool) -> None:
        self._start = start
        self._many = many
        #: of zlib or zstandard; None before the first byte
        self._stream: Any = None

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        """Raises ``BadRequest``."""
        view = memoryview(chunk)
        for at in range(0, len(chunk), _STEP):
            rest = view[at : at + _STEP]
            while rest:
                if self._stream is None or (self._stream.eof and self._many):
                    self._stream = self._start()
                elif self._stream.eof:
                    raise _not_coded("something follows its end")
                try:
                    piece = self._stream.decompress(rest)
                except (zlib.error, zstandard.ZstdError) as error:
                    raise _not_coded(str(error)) from error
                rest = self._stream.unused_data
                if piece:
                    yield piece

    def finish(self) -> None:
        """Raises ``BadRequest`` for a body that was cut off."""
        if self._stream is not None and not self._stream.eof:
            raise _not_coded("its end is missing")


def _decoder(headers: Iterable[tuple[bytes, bytes]]) -> _Decoder | None:
    """None where there is no coding. Raises ``Unsupported``."""
    coding = b", ".join(value for name, value in headers if name == b"content-encoding").strip().lower()
    if coding in (b"", b"identity"):
        return None
    if coding in (b"gzip", b"x-gzip"):
        return _Decoder(lambda: zlib.decompressobj(wbits=31), many=True)
    if coding == b"deflate":
        return _Decoder(zlib.decompressobj, many=False)
    if coding == b"zstd":
        return _Decoder(lambda: zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW).decompressobj(), many=True)
    raise Unsupported(f"Content-Encoding {coding.decode('latin-1')[:40]!r} is not understood; gzip, deflate, zstd are.")


def _not_coded(why: str) -> BadRequest:
    return BadRequest(f"The request body is not what its Content-Encoding says: {why}.")


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than {limit} bytes (LLMPROXY_MAX_BODY_BYTES).")
