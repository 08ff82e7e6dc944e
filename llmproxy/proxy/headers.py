"""The headers of an answer: RFC 9211 ``Cache-Status``, ``X-Cache``, ``Age``, ``Server-Timing``."""

from llmproxy.cache.entry import Entry
from llmproxy.proxy.answer import HeaderList
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.vocabulary import CacheStatus, Reason

JSON = b"application/json"

#: what RFC 9211 section 2.2 calls our reasons for going forward
_FORWARD = {
    Reason.ABSENT: b"uri-miss",
    Reason.EXPIRED: b"stale",
    Reason.NO_CACHE: b"request",
}


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


def forward_headers(exchange: Exchange, stored: Reason | None) -> HeaderList:
    """For an answer that was fetched. ``stored`` is None where the head leaves before that is known."""
    cache, reason = exchange.cache or CacheStatus.BYPASS, exchange.reason or Reason.PASS_THROUGH
    if cache is CacheStatus.BYPASS:
        status = b"llmproxy; fwd=bypass; detail=%s" % reason.encode()
    else:
        status = b"llmproxy; fwd=%s" % _FORWARD.get(reason, b"miss")
        if exchange.key:
            status += b'; key="%s"' % exchange.key.encode()
        if stored is Reason.STORED:
            status += b"; stored"
        elif stored is not None:
            status += b"; detail=%s" % stored.encode()
        if cache is CacheStatus.JOINED:
            status += b"; collapsed"
    return [(b"x-cache", cache.upper().encode()), (b"cache-status", status)]


def timing_header(total: float, upstream: float | None = None, queue: float | None = None) -> tuple[bytes, bytes]:
    """Seconds in, milliseconds out (W3C Server Timing)."""
    parts = [b"total;dur=%.3f" % (total * 1000)]
    if upstream is not None:
        parts.insert(0, b"upstream;dur=%.3f" % (upstream * 1000))
    if queue is not None:
        parts.insert(0, b"queue;dur=%.3f" % (queue * 1000))
    return b"server-timing", b", ".join(parts)
