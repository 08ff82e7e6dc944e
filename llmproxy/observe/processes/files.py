"""prometheus-client's files of its multiprocess mode: a head, then entries of a key, a value and a time.

The library's own writer maps a file into memory: on a full disk that ends the process with SIGBUS, and an entry that
was written once never goes away. These are written as a whole and put in their place, so that readers see either the
old file or the new one.
"""

import struct
from collections.abc import Mapping
from pathlib import Path

#: a value, and when it was read in Unix seconds where that matters, else 0
Cell = tuple[float, float]
#: by the library's keys
Entries = dict[str, Cell]

#: a larger file is not read: no process has so many series
LARGEST = 16 * 1024 * 1024

#: bytes in use, these included; then four that are not
_HEAD = struct.Struct("ii")
_LENGTH = struct.Struct("i")
_CELL = struct.Struct("dd")


def write(path: Path, entries: Mapping[str, Cell]) -> None:
    """Replaces the file. Raises ``OSError``."""
    new = path.with_suffix(".new")
    new.write_bytes(encode(entries))
    new.replace(path)


def read(path: Path) -> Entries:
    """Raises ``OSError``, and ``ValueError`` for what is no such file."""
    with path.open("rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError("too large")
    return decode(data)


def encode(entries: Mapping[str, Cell]) -> bytes:
    parts: list[bytes] = []
    for key, cell in entries.items():
        encoded = key.encode()
        parts += _LENGTH.pack(len(encoded)), encoded, b" " * _padding(len(encoded)), _CELL.pack(*cell)
    body = b"".join(parts)
    return _HEAD.pack(_HEAD.size + len(body), 0) + body


def decode(data: bytes) -> Entries:
    """Raises ``ValueError``. What follows the bytes in use is of no interest: the library makes files longer."""
    entries: Entries = {}
    try:
        used, _ = _HEAD.unpack_from(data)
        at = _HEAD.size
        while at < used:
            (length,) = _LENGTH.unpack_from(data, at)
            if length < 0:
                raise ValueError("a key of less than nothing")
            at += _LENGTH.size
            key = data[at : at + length].decode()
            at += length + _padding(length)
            entries[key] = _CELL.unpack_from(data, at)
            at += _CELL.size
    except struct.error as error:
        raise ValueError(str(error)) from error
    if at != used:
        raise ValueError("it ends elsewhere than it says")
    return entries


def _padding(length: int) -> int:
    """Bytes after a key, so that its value lies at a multiple of eight."""
    return 8 - (length + _LENGTH.size) % 8
