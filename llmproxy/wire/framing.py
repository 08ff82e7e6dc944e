"""Byte streams cut into frames, however the network cut them: server-sent events and newline-delimited JSON.

A strict event is an optional ``event: name`` line, one or more ``data: text`` lines, and a blank line. SDKs fail on the
rest of the format: an event without data, ``id:``, ``retry:``, a byte-order mark. A line of NDJSON is one object and
its newline.
"""

import re
from io import BytesIO
from typing import ClassVar

from llmproxy.wire.documents import Malformed, read_leniently

_BOM = b"\xef\xbb\xbf"
_BLANK_LINES = re.compile(rb"\n{3,}")
_IGNORED_FIELDS = frozenset({b"id", b"retry"})
#: enough of a foreign text to recognise it; the rest is not kept
_FOREIGN_LIMIT = 1024

DEFAULT_LIMIT = 32 * 1024 * 1024


class _BoundedSplitter:
    """The half of a splitter that both formats share. One instance reads one stream.

    ``limit`` is the most bytes of one frame; ``feed`` raises ``Malformed`` above it.
    """

    #: a frame in an error message, with its article
    unit: ClassVar[str]

    def __init__(self, limit: int = DEFAULT_LIMIT):
        self._limit = limit
        self._partial = bytearray()
        #: text of another format, the beginning of it
        self._foreign = b""

    @property
    def waiting(self) -> int:
        """Bytes of the unfinished frame."""
        return len(self._partial)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise Malformed(f"{self.unit} is larger than {self._limit} bytes")

    def _keep_foreign(self, line: bytes) -> None:
        self._foreign = (self._foreign + line)[:_FOREIGN_LIMIT]


class SseSplitter(_BoundedSplitter):
    """Cuts server-sent events."""

    unit = "an event"

    def __init__(self, limit: int = DEFAULT_LIMIT):
        super().__init__(limit)
        #: how much of ``_partial`` is known to hold no blank line
        self._searched = 0
        self._after_cr = False
        self._first = True

    def feed(self, data: bytes) -> list[bytes]:
        """The strict frames that ``data`` completes. Raises ``Malformed`` when a frame is above the limit."""
        if b"\r" in data or self._after_cr:
            data = self._with_newlines(data)
        if self._partial:
            self._partial += data
            if self._partial.find(b"\n\n", max(0, self._searched - 1)) < 0:
                self._wait()
                return []
            data = bytes(self._partial)
            self._partial.clear()
        if b"\n\n\n" in data:
            # each blank line more would be an event without data
            data = _BLANK_LINES.sub(b"\n\n", data)
        frames: list[bytes] = []
        start = 0
        while (end := data.find(b"\n\n", start) + 2) > 1:
            if end - start > self._limit:
                self._check(end - start)
            frame = data[start:end]
            start = end
            if _is_strict(frame) or (frame := self._strict(frame)):
                frames.append(frame)
            self._first = False
        if start < len(data):
            self._partial += data[start:]
            self._wait()
        return frames

    def finish(self) -> list[bytes]:
        """Ends the body: returns the last frame if only its blank line is missing. A cut frame stays in ``rest``."""
        foreign = self._foreign
        frame = self._strict(bytes(self._partial)) if self._partial else b""
        text = sse_data(frame)
        if frame and (text.strip() == b"[DONE]" or read_leniently(text) is not None):
            self._partial.clear()
            return [frame]
        self._foreign = foreign
        return []

    def rest(self) -> bytes:
        """An unfinished frame, or text of another format. Empty after a clean end."""
        partial = bytes(self._partial)
        if self._first:
            partial = partial.removeprefix(_BOM)
        if all(line.startswith((b":", b"\n")) for line in BytesIO(partial)):
            partial = b""
        return self._foreign + partial

    def _wait(self) -> None:
        self._searched = len(self._partial)
        self._check(self._searched)

    def _with_newlines(self, data: bytes) -> bytes:
        """``data`` with LF for CRLF and CR, also if a CRLF is cut in two."""
        if not data:
            return data
        if self._after_cr and data.startswith(b"\n"):
            self._after_cr = False
            data = data[1:]
            if not data:
                return data
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _strict(self, frame: bytes) -> bytes:
        """The strict form of a frame, empty if it has no data."""
        if self._first:
            frame = frame.removeprefix(_BOM)
        name = b""
        payload: list[bytes] = []
        # not split at once: a frame may have millions of lines
        for line in BytesIO(frame):
            if line.startswith((b":", b"\n")):
                continue
            line = line.removesuffix(b"\n")
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                payload.append(value)
            elif field == b"event":
                name = value
            elif field not in _IGNORED_FIELDS:
                self._keep_foreign(line + b"\n")
        if not any(payload):
            return b""
        head = b"event: %b\n" % name if name else b""
        return head + b"".join(b"data: %b\n" % line for line in payload) + b"\n"


def _is_strict(frame: bytes) -> bool:
    """Whether a frame has the usual form already: one filled data line, perhaps an event line before it."""
    start = 0
    if frame.startswith(b"event: "):
        start = frame.find(b"\n") + 1
    return frame.startswith(b"data: ", start) and start + 6 < frame.find(b"\n", start) == len(frame) - 2


def sse_data(frame: bytes) -> bytes:
    """The data of a strict frame; several data lines are joined by newlines."""
    if frame.startswith(b"data: ") and frame.find(b"\n") == len(frame) - 2:
        return frame[6:-2]
    return b"\n".join(line[6:] for line in frame.split(b"\n") if line.startswith(b"data: "))


def sse_event(frame: bytes) -> bytes:
    """The event name of a strict frame, empty if it has none."""
    return frame[7 : frame.find(b"\n")] if frame.startswith(b"event: ") else b""


def sse_frame(data: bytes, event: bytes = b"") -> bytes:
    """The strict frame of one event."""
    head = b"event: %b\n" % event if event else b""
    return head + b"".join(b"data: %b\n" % line for line in data.split(b"\n")) + b"\n"


class NdjsonSplitter(_BoundedSplitter):
    """Cuts NDJSON. A frame is one line with its newline; blank lines are dropped."""

    unit = "a line"

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes. Raises ``Malformed`` when a line is above the limit."""
        if self._partial:
            self._partial += data
            if b"\n" not in data:
                self._check(len(self._partial))
                return []
            data = bytes(self._partial)
            self._partial.clear()
        frames: list[bytes] = []
        start = 0
        while end := data.find(b"\n", start) + 1:
            self._check(end - start)
            line = data[start:end]
            start = end
            if line.startswith(b"{") and not line.endswith(b"\r\n"):
                frames.append(line)
            elif stripped := line.strip():
                self._add(stripped + b"\n", frames)
        if start < len(data):
            self._partial += data[start:]
            self._check(len(self._partial))
        return frames

    def finish(self) -> list[bytes]:
        """Ends the body: returns the last line if only its newline is missing. A cut line stays in ``rest``."""
        line = bytes(self._partial).strip()
        if read_leniently(line) is None:
            return []
        self._partial.clear()
        return [line + b"\n"]

    def rest(self) -> bytes:
        """An unfinished line, or text of another format. Empty after a clean end."""
        return self._foreign + bytes(self._partial).strip()

    def _add(self, line: bytes, frames: list[bytes]) -> None:
        if line.startswith(b"{"):
            frames.append(line)
        else:
            self._keep_foreign(line)


SSE = b"text/event-stream"
NDJSON = b"application/x-ndjson"

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
#: blanks before the first byte of an answer; of more of them nothing is made
_MOST_BLANKS = 64 * 1024


def is_stream(stream_type: bytes, content_type: bytes, start: bytes, *, requested: bool, complete: bool) -> bool | None:
    """Whether an answer that begins with ``start`` comes as a stream; None if more of it must be seen.

    Servers send streams as JSON, and JSON as streams, so that the first bytes decide. ``stream_type`` is the content
    type of the endpoint's streams, ``content_type`` the answer's, in lower case and without parameters. ``requested``:
    whether a stream was asked for. ``complete``: whether ``start`` is the whole answer.
    """
    declared = content_type == stream_type
    text = start.removeprefix(_BOM).lstrip()
    if not text:
        return declared or (requested and not content_type) if complete or len(start) > _MOST_BLANKS else None
    if stream_type == NDJSON:
        return declared or _is_lines(text, content_type, requested=requested, complete=complete)
    if text.startswith(_FIELDS):
        return True
    if not complete and any(field.startswith(text) for field in _FIELDS):
        return None
    return declared and not text.startswith((b"{", b"["))


def _is_lines(text: bytes, content_type: bytes, *, requested: bool, complete: bool) -> bool | None:
    """Whether the first line is an object of its own. A caller without a stream waits for the whole answer anyway."""
    if content_type == SSE:
        return True
    if not requested or not text.startswith(b"{"):
        return False
    line, newline, _ = text.partition(b"\n")
    return read_leniently(line) is not None if newline or complete else None
