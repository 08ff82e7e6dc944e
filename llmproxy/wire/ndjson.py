"""Newline-delimited JSON: cutting a byte stream into lines, one object a line."""

from llmproxy.wire.dialect import Malformed
from llmproxy.wire.documents import read_leniently

#: enough of a foreign text to recognise it; the rest is not kept
_FOREIGN_LIMIT = 1024

DEFAULT_LIMIT = 32 * 1024 * 1024


class NdjsonSplitter:
    """Cuts NDJSON however it was cut on its way. A frame is one line with its newline; blank lines are dropped.

    ``limit`` is the most bytes one line may have; ``feed`` raises ``Malformed`` above it.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT):
        self._limit = limit
        self._partial = bytearray()
        self._foreign = b""

    @property
    def waiting(self) -> int:
        """Bytes of the line that is not whole yet."""
        return len(self._partial)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes. Raises ``Malformed`` when a line is above the limit."""
        if self._partial:
            self._partial += data
            if b"\n" not in data:
                self._bound(len(self._partial))
                return []
            data = bytes(self._partial)
            self._partial.clear()
        frames: list[bytes] = []
        start = 0
        while end := data.find(b"\n", start) + 1:
            self._bound(end - start)
            line = data[start:end]
            start = end
            if line.startswith(b"{") and not line.endswith(b"\r\n"):
                frames.append(line)
            elif stripped := line.strip():
                self._add(stripped + b"\n", frames)
        if start < len(data):
            self._partial += data[start:]
            self._bound(len(self._partial))
        return frames

    def finish(self) -> list[bytes]:
        """The last line, where its newline is all that is missing. One that was cut in the middle stays the rest."""
        line = bytes(self._partial).strip()
        if read_leniently(line) is None:
            return []
        self._partial.clear()
        return [line + b"\n"]

    def rest(self) -> bytes:
        """What is no line: an unfinished one, or text that is not in the format. Empty after a clean end."""
        return self._foreign + bytes(self._partial).strip()

    def _add(self, line: bytes, frames: list[bytes]) -> None:
        if line.startswith(b"{"):
            frames.append(line)
        else:
            self._foreign = (self._foreign + line)[:_FOREIGN_LIMIT]

    def _bound(self, size: int) -> None:
        if size > self._limit:
            raise Malformed(f"a line is larger than {self._limit} bytes")
