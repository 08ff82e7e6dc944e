"""Content codings decoded, a bounded piece at a time (RFC 9110 section 8.4). Pure."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import zstandard

#: Decoded at a time. These few bytes become 512 KiB at most with deflate, 16 MiB with zstd: a small body cannot turn
#: into a large one unnoticed.
_STEP = 512
_MOST_WINDOW = 2**27


class UnknownCoding(ValueError):
    """A coding, or a list of codings, that the proxy does not decode."""


class NotCoded(ValueError):
    """The body does not have the coding that its header names."""


class Decoder:
    """Decodes one content coding. ``start`` makes the library's decoder from the first bytes.

    ``many`` says whether several coded members may follow each other (RFC 1952, RFC 8878).
    """

    def __init__(self, start: Callable[[memoryview], Any], *, many: bool) -> None:
        self._start = start
        self._many = many
        #: of zlib or zstandard; None before the first byte
        self._stream: Any = None

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        """Raises ``NotCoded``."""
        view = memoryview(chunk)
        for at in range(0, len(chunk), _STEP):
            rest = view[at : at + _STEP]
            while rest:
                if self._stream is None or (self._stream.eof and self._many):
                    self._stream = self._start(rest)
                elif self._stream.eof:
                    raise NotCoded("something follows its end")
                try:
                    piece = self._stream.decompress(rest)
                except (zlib.error, zstandard.ZstdError) as error:
                    # the words of the library say nothing to whoever reads the answer
                    raise NotCoded("it cannot be decoded") from error
                rest = memoryview(self._stream.unused_data)
                if piece:
                    yield piece

    def finish(self) -> None:
        """Raises ``NotCoded`` if the body was cut off."""
        if self._stream is not None and not self._stream.eof:
            raise NotCoded("its end is missing")


def decoder(headers: Iterable[tuple[bytes, bytes]]) -> Decoder | None:
    """The decoder of the coding in ``headers`` (lower-case names), None if there is none. Raises ``UnknownCoding``."""
    coding = b", ".join([value for name, value in headers if name == b"content-encoding"]).strip().lower()
    if coding in (b"", b"identity"):
        return None
    if coding in (b"gzip", b"x-gzip"):
        return Decoder(lambda _: zlib.decompressobj(wbits=31), many=True)
    if coding == b"deflate":
        return Decoder(_deflate, many=False)
    if coding == b"zstd":
        return Decoder(lambda _: zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW).decompressobj(), many=True)
    raise UnknownCoding(coding.decode("latin-1"))


def _deflate(first: memoryview) -> Any:
    """Reads the zlib wrapper of the standard, or raw deflate, as some servers send it (RFC 9110 section 8.4.1.2)."""
    return zlib.decompressobj() if first[0] & 0x8F == 0x08 else zlib.decompressobj(wbits=-zlib.MAX_WBITS)
