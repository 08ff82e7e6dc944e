"""Request bodies: read within bounds, their content coding undone (RFC 9110 section 8.4)."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterable

import zstandard
from starlette.types import Receive

from llmproxy.proxy.listener import ClientLeft
from llmproxy.wire.errors import BadRequest, TooLarge, TooSlow, Unsupported

#: decompressed at a time, so that a small body cannot turn into a large one unnoticed
_STEP = 64 * 1024

#: how long a client may pause within its body
_PATIENCE_SECONDS = 60.0

Decoder = Callable[[bytes], Iterable[bytes]]


async def read(receive: Receive, headers: Iterable[tuple[bytes, bytes]], limit: int) -> bytes:
    """The whole body, decoded. Raises ``TooLarge``, ``Unsupported``, ``BadRequest``, ``ClientLeft``."""
    decode = decoder(headers)
    pieces: list[bytes] = []
    size = 0
    async for chunk in received(receive):
        for piece in decode(chunk) if decode is not None else (chunk,):
            size += len(piece)
            if size > limit:
                raise TooLarge(f"The request body is larger than {limit} bytes (LLMPROXY_MAX_BODY_BYTES).")
            pieces.append(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def received(receive: Receive) -> AsyncIterator[bytes]:
    """The body as it arrives, at constant memory. Raises ``ClientLeft``, ``TooSlow``."""
    while True:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                message = await receive()
        except TimeoutError:
            raise TooSlow(f"The request body stopped for {_PATIENCE_SECONDS:g} s.") from None
        if message["type"] == "http.disconnect":
            raise ClientLeft
        if chunk := message.get("body", b""):
            yield chunk
        if not message.get("more_body", False):
            return


async def decoded(chunks: AsyncIterator[bytes], decode: Decoder) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        for piece in decode(chunk):
            yield piece


def decoder(headers: Iterable[tuple[bytes, bytes]]) -> Decoder | None:
    """What undoes the body's content coding, None where there is none. Raises ``Unsupported``."""
    coding = b", ".join(value for name, value in headers if name == b"content-encoding").strip().lower()
    if coding in (b"", b"identity"):
        return None
    if coding in (b"gzip", b"x-gzip"):
        return _zlib(zlib.decompressobj(wbits=31))
    if coding == b"deflate":
        return _zlib(zlib.decompressobj())
    if coding == b"zstd":
        return _zstd()
    raise Unsupported(f"Content-Encoding {coding.decode('latin-1')[:40]!r} is not understood; gzip, deflate, zstd are.")


def _zlib(stream: "zlib._Decompress") -> Decoder:
    def decode(chunk: bytes) -> Iterable[bytes]:
        try:
            while chunk:
                yield stream.decompress(chunk, _STEP)
                chunk = stream.unconsumed_tail
        except zlib.error as error:
            raise BadRequest(f"The request body is not what its Content-Encoding says: {error}.") from error

    return decode


def _zstd() -> Decoder:
    stream = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj()

    def decode(chunk: bytes) -> Iterable[bytes]:
        try:
            # a step at a time here too: the library has no output limit, so the input is fed in small pieces
            for at in range(0, len(chunk), 1024):
                yield stream.decompress(chunk[at : at + 1024])
        except zstandard.ZstdError as error:
            raise BadRequest(f"The request body is not what its Content-Encoding says: {error}.") from error

    return decode
