"""What an answer that was not a hit says about the cache: ``X-Cache`` and RFC 9211's ``Cache-Status``."""

from llmproxy.wire.exchange import Exchange
from llmproxy.wire.vocabulary import CacheStatus, Reason

#: what RFC 9211 section 2.2 calls our reasons for going forward
_FORWARD = {
    Reason.ABSENT: b"uri-miss",
    Reason.EXPIRED: b"stale",
    Reason.NO_CACHE: b"request",
    Reason.CREDENTIAL: b"request",
}


def forward_headers(exchange: Exchange, stored: Reason | None) -> list[tuple[bytes, bytes]]:
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
