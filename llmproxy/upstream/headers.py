"""Which headers pass, in both directions. Names are lower-case bytes throughout. Pure."""

from collections.abc import Iterable

from llmproxy.config.settings import Settings
from llmproxy.wire.errors import BadRequest
from llmproxy.wire.exchange import Trace
from llmproxy.wire.headers import CREDENTIALS, HeaderList, sendable
from llmproxy.wire.records import record

_VIA = b"1.1 llmproxy"

#: RFC 9110 section 7.6.1: they speak of one connection, not of the message.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

#: Set by the proxy, or harmful upstream: Ollama refuses a foreign ``origin`` or ``host``, a browser's cookies are those
#: of every program at this address.
_NOT_FORWARDED = frozenset(
    {
        b"cookie",
        b"expect",
        b"forwarded",
        b"host",
        b"origin",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)
#: names a stream that llama.cpp keeps, and goes on generating, for a client that may come back for it
RESUMABLE = b"x-conversation-id"
#: Matters of a cache and of the body that it gives, where this proxy is one.
_NOT_FORWARDED_BY_A_CACHE = frozenset(
    {b"accept-encoding", b"age", b"cache-control", b"content-encoding", b"content-length", RESUMABLE}
)
_OUR_OWN = b"x-llmproxy-"
_NEVER = _HOP_BY_HOP | _NOT_FORWARDED
_NEVER_BY_A_CACHE = _NEVER | _NOT_FORWARDED_BY_A_CACHE
_NONE: frozenset[bytes] = frozenset()

#: The proxy's server, its CORS rules and its cache speak for themselves; ``cache-status`` is a list to which every
#: cache adds (RFC 9211).
_NOT_RELAYED = frozenset({b"date", b"server", b"x-cache"})
_CORS = b"access-control-"

#: What a fetched answer's own headers say of the body and of its way through caches: the proxy says it anew.
_OF_THE_BODY = frozenset(
    {
        b"accept-ranges",
        b"age",
        b"cache-control",
        b"content-digest",
        b"content-disposition",
        b"content-encoding",
        b"content-length",
        b"content-md5",
        b"content-range",
        b"content-type",
        b"digest",
        b"etag",
        b"expires",
        b"last-modified",
        b"pragma",
        b"repr-digest",
        b"x-accel-buffering",
    }
)

#: Not the content type: that is a matter of the rendering.
_KEPT = frozenset({b"openai-model", b"openai-version"})
_NOT_OF_AN_ANSWER = _NOT_RELAYED | _OF_THE_BODY
_NOT_LIVE = _NOT_OF_AN_ANSWER | _KEPT


@record
class Peer:
    """Where a request came from: the client's address and the scheme it used."""

    address: str
    scheme: str = "http"


def forwarded(
    headers: Iterable[tuple[bytes, bytes]],
    settings: Settings,
    peer: Peer | None = None,
    *,
    passed: bool = False,
    trace: Trace | None = None,
) -> HeaderList:
    """A client's headers as the upstream gets them.

    ``passed`` says that the body goes up as it came, and that the answer comes down as it is: length, codings and
    caching are between those two. Without a ``trace`` of ours what the client says of its own is passed on.
    Raises ``BadRequest`` for a request that has been here before.
    """
    headers = list(headers)
    dropped = (_NEVER if passed else _NEVER_BY_A_CACHE) | _named_by_connection(headers)
    key = settings.upstream_api_key
    if not settings.forwards_credentials:
        dropped |= CREDENTIALS
    sent = [header for header in headers if header[0] not in dropped and not header[0].startswith(_OUR_OWN)]
    if not passed:
        sent.append((b"accept-encoding", b"identity"))
    sent.append((b"via", _via(headers)))
    if key is not None:
        sent.append((b"authorization", b"Bearer " + key.get_secret_value().encode()))
    if peer is not None:
        sent += _origin(headers, peer)
    return sent if trace is None else trace.propagate(sent)


def credentials(headers: Iterable[tuple[bytes, bytes]], settings: Settings) -> HeaderList:
    """What a client shows to the upstream itself to be let in; [] where the proxy's own key takes its place."""
    if not settings.forwards_credentials:
        return []
    return [header for header in headers if header[0] in CREDENTIALS]


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> HeaderList:
    """An upstream's headers without those of its connection and those that cannot be sent on, names in lower case."""
    lowered = [(name.lower(), value) for name, value in sendable(headers)]
    dropped = _named_by_connection(lowered)
    return [header for header in lowered if header[0] not in _HOP_BY_HOP and header[0] not in dropped]


def relayed(headers: Iterable[tuple[bytes, bytes]]) -> HeaderList:
    """The headers of a reply that is passed through as it is, as the client gets them."""
    return [header for header in headers if header[0] not in _NOT_RELAYED and not header[0].startswith(_CORS)]


def answer_headers(headers: Iterable[tuple[bytes, bytes]]) -> HeaderList:
    """The headers of a reply whose body is given by the proxy: limits, processing times, ids, and whatever else."""
    return _without(headers, _NOT_OF_AN_ANSWER)


def live_headers(headers: Iterable[tuple[bytes, bytes]]) -> HeaderList:
    """Those of them that only the caller gets whose call it was: what ``kept_headers`` has is everybody's."""
    return _without(headers, _NOT_LIVE)


def _without(headers: Iterable[tuple[bytes, bytes]], names: frozenset[bytes]) -> HeaderList:
    return [header for header in headers if header[0] not in names and not header[0].startswith((_CORS, _OUR_OWN))]


def kept_headers(headers: Iterable[tuple[bytes, bytes]]) -> HeaderList:
    """The headers of a reply that say something about the answer itself, and may be stored with it."""
    return [header for header in headers if header[0] in _KEPT]


def coding_of(headers: Iterable[tuple[bytes, bytes]]) -> HeaderList:
    """The content coding of a reply, [] where it has none."""
    return [header for header in headers if header[0] == b"content-encoding"]


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    values = [value for name, value in headers if name == b"connection"]
    return frozenset(word.strip().lower() for value in values for word in value.split(b",")) if values else _NONE


def _via(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The request's way so far and we (RFC 9110 section 7.6.3)."""
    values = [value for name, value in headers if name == b"via"]
    if not values:
        return _VIA
    stations = [part.strip() for value in values for part in value.split(b",") if part.strip()]
    if any(station.split()[1:2] == [b"llmproxy"] for station in stations):
        raise BadRequest(
            "This request has passed through llmproxy before: LLMPROXY_UPSTREAM leads back to the proxy itself.",
            code="proxy_loop",
        )
    return b", ".join([*stations, _VIA])


def _origin(headers: Iterable[tuple[bytes, bytes]], peer: Peer) -> HeaderList:
    origin = [(b"x-forwarded-for", peer.address.encode()), (b"x-forwarded-proto", peer.scheme.encode())]
    host = next((value for name, value in headers if name == b"host"), None)
    return origin if host is None else [*origin, (b"x-forwarded-host", host)]
