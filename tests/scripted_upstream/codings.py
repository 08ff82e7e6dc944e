"""Content codings of answers, by the name that a script uses: the header's value, and how the body is coded."""

import gzip
import zlib
from collections.abc import Callable

import zstandard

Coding = tuple[str, Callable[[bytes], bytes]]


def _raw(body: bytes) -> bytes:
    """Deflate without the wrapper that belongs to it."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()


def _members(body: bytes) -> bytes:
    return gzip.compress(body[:100]) + gzip.compress(body[100:])


CODINGS: dict[str, Coding] = {
    "identity": ("identity", bytes),
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "members": ("gzip", _members),
    "deflate": ("deflate", zlib.compress),
    "raw-deflate": ("deflate", _raw),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "unknown": ("rot13", lambda body: body[::-1]),
    "cut": ("gzip", lambda body: gzip.compress(body)[:-9]),
    "wrong": ("gzip", bytes),
}
