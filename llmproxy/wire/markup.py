"""HTML as text. Linear in its length for any input. Pure."""

from collections.abc import Iterator

#: elements whose content is not text, with what ends them; comments are written like one
_OPAQUE = ((b"<!--", b"-->"), (b"<script", b"</script"), (b"<style", b"</style"))


def text_of(markup: bytes) -> str:
    """The words of the title, or of the whole page where there is none."""
    # bytes.lower keeps every offset, which str.lower does not
    lower = markup.lower()
    title = _title(markup, lower)
    words = title.split() or b" ".join(_texts(markup, lower)).split()
    return b" ".join(words).decode("utf-8", "replace")


def _title(markup: bytes, lower: bytes) -> bytes:
    start = lower.find(b"<title")
    start = lower.find(b">", start) + 1 if start >= 0 else 0
    end = lower.find(b"</title", start) if start else -1
    return markup[start:end] if end >= 0 else b""


def _texts(markup: bytes, lower: bytes) -> Iterator[bytes]:
    """What stands between tags. Each search begins where the last one ended, and one that finds nothing is the last."""
    at = 0
    while (start := markup.find(b"<", at)) >= 0:
        yield markup[at:start]
        closing = next((end for begin, end in _OPAQUE if lower.startswith(begin, start)), None)
        inner = start if closing is None else lower.find(closing, start)
        end = markup.find(b">", inner) if inner >= 0 else -1
        if end < 0:
            if closing is None:
                # no tag after all
                yield markup[start:]
            return
        at = end + 1
    yield markup[at:]
