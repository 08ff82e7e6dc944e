"""The headers of an answer: its type, what a hit says of itself, ``Server-Timing``."""

from llmproxy.cache.entry import Entry
from llmproxy.proxy.results import HeaderList
from llmproxy.wire.vocabulary import CacheStatus, Reason

JSON = b"application/json"


def type_headers(content_type: bytes, *, stream: bool) -> HeaderList:
    if stream:
        return [(b"content-type", content_type), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    return [(b"content-type", content_type), (b"cache-control", b"private")]


def hit_headers(entry: Entry, status: CacheStatus, reason: Reason, now: float) -> HeaderList:
    """For an answer from a tier. Same seconds, same bytes."""
    return [
        (b"x-cache", status.upper().encode()),
        (
            b"cache-status",
            b'llmproxy; hit; ttl=%d; key="%s"; detail=%s'
            % (int(entry.expires - now), entry.key.hex().encode(), reason.encode()),
        ),
        (b"age", b"%d" % max(0, int(now - entry.created))),
    ]


def timing_header(total: float, upstream: float | None = None, queue: float | None = None) -> tuple[bytes, bytes]:
    """Seconds in, milliseconds out (W3C Server Timing)."""
    parts = [b"total;dur=%.3f" % (total * 1000)]
    if upstream is not None:
        parts.insert(0, b"upstream;dur=%.3f" % (upstream * 1000))
    if queue is not None:
        parts.insert(0, b"queue;dur=%.3f" % (queue * 1000))
    return b"server-timing", b", ".join(parts)
