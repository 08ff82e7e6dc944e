"""Caching in headers: RFC 9111 and 5861 directives and ``X-LLMProxy-*`` of a request, RFC 9211 of an answer."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from llmproxy.wire.errors import BadRequest
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.vocabulary import CacheStatus, Reason

_LONGEST_NAME = 128
_MOST_TAGS = 32
_SECONDS = frozenset({"max_age", "min_fresh", "max_stale", "stale_if_error"})


@dataclass(frozen=True, slots=True)
class Directives:
    """What one request asks of the cache. Seconds throughout; None if the request does not say."""

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: float | None = None
    min_fresh: float | None = None
    #: infinity for a bare ``max-stale``
    max_stale: float | None = None
    stale_if_error: float | None = None
    ttl: float | None = None
    namespace: str = ""
    tags: tuple[str, ...] = ()
    session: str = ""
    user: str = ""
    #: ``X-LLMProxy-Replay: paced``
    paced: bool | None = None
    #: ``X-LLMProxy-Single-Flight: off``
    single_flight: bool = True

    @property
    def opts_in(self) -> bool:
        """Whether the request asks to be cached, for the policy ``opt-in``."""
        return bool(self.namespace or self.tags) or any(
            value is not None for value in (self.ttl, self.max_age, self.min_fresh, self.max_stale)
        )


PLAIN = Directives()


def parse_directives(headers: Iterable[tuple[bytes, bytes]]) -> Directives:
    """Reads headers with lower-case names. Raises ``BadRequest`` for a malformed header of the proxy's own."""
    fields: dict[str, object] = {}
    for name, value in headers:
        if name == b"cache-control":
            _cache_control(value.decode("latin-1"), fields)
        elif name.startswith(b"x-llmproxy-"):
            _own(name[11:].decode("latin-1"), _text(value), fields)
    return Directives(**fields) if fields else PLAIN  # type: ignore[arg-type]  # the names and types are set just below


def _cache_control(value: str, fields: dict[str, object]) -> None:
    for part in value.split(","):
        name, _, argument = part.strip().lower().partition("=")
        field = name.replace("-", "_")
        if field in ("no_cache", "no_store", "only_if_cached"):
            fields[field] = True
        elif field == "max_stale" and not argument:
            fields[field] = math.inf
        elif field in _SECONDS and (number := argument.strip('"')).isascii() and number.isdigit():
            fields[field] = float(number)


def _own(name: str, value: str, fields: dict[str, object]) -> None:
    header = f"X-LLMProxy-{'TTL' if name == 'ttl' else name.title()}"
    if name == "ttl":
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not (0 < seconds < 10**10):
            raise BadRequest(f"{header} must be a positive number of seconds, not {value[:40]!r}.", param=header)
        fields["ttl"] = seconds
    elif name in ("namespace", "session", "user"):
        fields[name] = _label(header, value)
    elif name == "tags":
        # a list in several lines is one list (RFC 9110 section 5.3)
        earlier = fields.get("tags")
        names = (_label(header, tag.strip()) for tag in value.split(",") if tag.strip())
        tags = tuple(dict.fromkeys((*(earlier if isinstance(earlier, tuple) else ()), *names)))
        if len(tags) > _MOST_TAGS:
            raise BadRequest(f"{header} takes at most {_MOST_TAGS} tags.", param=header)
        fields["tags"] = tags
    elif name == "replay":
        if value not in ("paced", "fast"):
            raise BadRequest(f"{header} must be 'paced' or 'fast', not {value[:40]!r}.", param=header)
        fields["paced"] = value == "paced"
    elif name == "single-flight":
        if value not in ("on", "off"):
            raise BadRequest(f"{header} must be 'on' or 'off', not {value[:40]!r}.", param=header)
        fields["single_flight"] = value == "on"


def _text(value: bytes) -> str:
    """Decodes UTF-8, or else Latin-1, as browsers and Node send it: two different names are never one."""
    try:
        return value.decode().strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()


def _label(header: str, value: str) -> str:
    if len(value) > _LONGEST_NAME or not value.isprintable():
        raise BadRequest(f"{header} takes up to {_LONGEST_NAME} printable characters.", param=header)
    return value


#: RFC 9211 section 2.2's words for our reasons to ask the upstream
_FORWARD = {
    Reason.ABSENT: b"uri-miss",
    Reason.EXPIRED: b"stale",
    Reason.NO_CACHE: b"request",
    Reason.CREDENTIAL: b"request",
}


def forward_headers(exchange: Exchange, stored: Reason | None) -> list[tuple[bytes, bytes]]:
    """``X-Cache`` and ``Cache-Status`` of a fetched answer. ``stored`` is None if the head is sent before that is
    known."""
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
    word = CacheStatus.MISS if cache is CacheStatus.ONLY_IF_CACHED else cache
    return [(b"x-cache", word.upper().encode()), (b"cache-status", status)]
