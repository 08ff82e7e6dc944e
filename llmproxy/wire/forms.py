"""In which form an answer comes. Servers send streams as JSON, and JSON as streams: its first bytes tell. Pure."""

from llmproxy.wire.documents import read_leniently

SSE = b"text/event-stream"
NDJSON = b"application/x-ndjson"

_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
#: blanks before the first byte of an answer; of more of them nothing is made
_MOST_BLANKS = 64 * 1024


def is_stream(stream_type: bytes, content_type: bytes, start: bytes, *, asked: bool, whole: bool) -> bool | None:
    """Whether an answer that begins with ``start`` comes as a stream; None where more of it must be seen.

    ``stream_type`` is that of the endpoint's streams, ``content_type`` the answer's, in lower case and without
    parameters. ``asked``: whether a stream was asked for. ``whole``: whether ``start`` is all there is.
    """
    said = content_type == stream_type
    text = start.removeprefix(_BOM).lstrip()
    if not text:
        return said or (asked and not content_type) if whole or len(start) > _MOST_BLANKS else None
    if stream_type == NDJSON:
        return said or _is_lines(text, content_type, asked=asked, whole=whole)
    if text.startswith(_FIELDS):
        return True
    if not whole and any(field.startswith(text) for field in _FIELDS):
        return None
    return said and not text.startswith((b"{", b"["))


def _is_lines(text: bytes, content_type: bytes, *, asked: bool, whole: bool) -> bool | None:
    """Whether the first line is an object of its own. A caller who asked for no stream waits for the whole anyway."""
    if content_type == SSE:
        return True
    if not asked or not text.startswith(b"{"):
        return False
    line, newline, _ = text.partition(b"\n")
    return read_leniently(line) is not None if newline or whole else None
