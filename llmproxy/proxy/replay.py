"""A stored entry as the answer to one caller, in the rendering that caller asked for."""

from array import array
from collections.abc import Iterator
from time import perf_counter

from llmproxy.cache.entry import Entry
from llmproxy.config.settings import Replay, Settings
from llmproxy.proxy.headers import hit_headers, timing_header, type_headers
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.results import HeaderList, Paced, Whole
from llmproxy.wire.exchange import Exchange, Usage
from llmproxy.wire.vocabulary import CacheStatus, Reason


def replay(
    exchange: Exchange, request: CacheableRequest, entry: Entry, settings: Settings, now: float
) -> Whole | Paced:
    """Notes the hit in the exchange. ``exchange.cache`` and ``reason`` say which kind it was."""
    cache, reason = exchange.cache or CacheStatus.HIT, exchange.reason or Reason.MEMORY
    exchange.usage = Usage(entry.prompt_tokens, entry.completion_tokens)
    exchange.upstream_seconds = entry.upstream_seconds
    exchange.response_body = entry.document
    stream = wants_frames(request, entry)
    headers = replay_headers(request, entry, cache, reason, now)
    headers.append(timing_header(perf_counter() - exchange.started))
    paced = settings.replay is Replay.PACED if request.directives.paced is None else request.directives.paced
    if stream and paced and entry.frames:
        return Paced(headers, _pieces(request, entry))
    # parts of the stored frames can be shared by all who get them
    parts = list(_shown(entry)) if stream and _hides(request, entry) else []
    body = b"" if parts else body_of(request, entry)
    headers.insert(0, (b"content-length", b"%d" % (sum(map(len, parts)) or len(body))))
    return Whole(200, headers, body, parts)


def replay_headers(
    request: CacheableRequest, entry: Entry, cache: CacheStatus, reason: Reason, now: float
) -> HeaderList:
    """Everything but length, timing and id: the same for each request of one second."""
    dialect = request.endpoint.dialect
    stream = wants_frames(request, entry)
    return [
        *type_headers(dialect.stream_type if stream else dialect.document_type, stream=stream),
        *entry.headers,
        *hit_headers(entry, cache, reason, now),
    ]


def serves(request: CacheableRequest, entry: Entry) -> bool:
    """Whether this caller's form can be had from it."""
    return entry.both or bool(entry.frames) == request.parsed.stream


def wants_frames(request: CacheableRequest, entry: Entry) -> bool:
    return request.parsed.stream and (bool(entry.frames) or request.endpoint.dialect.both)


def body_of(request: CacheableRequest, entry: Entry) -> bytes:
    """The whole body in this caller's rendering."""
    view = request.view
    if not wants_frames(request, entry):
        return view.document(entry.document)
    if not entry.frames:
        return view.rendered(entry.document)
    if not view.as_is or (not view.usage and _is_rewritten(entry)):
        return b"".join(view.frames([frame for _, frame in _frames(entry)]))
    return b"".join(_shown(entry)) if _hides(request, entry) else entry.frames


def _is_rewritten(entry: Entry) -> bool:
    """Whether leaving frames out does not make it what callers get who did not ask for usage."""
    return entry.hidden == array("I", (0, len(entry.frames))).tobytes()


def _hides(request: CacheableRequest, entry: Entry) -> bool:
    """Whether the stored frames are this caller's but for those that show usage."""
    view = request.view
    return bool(entry.frames and entry.hidden) and view.as_is and not view.usage and not _is_rewritten(entry)


def _shown(entry: Entry) -> Iterator[memoryview]:
    """The frames but for those that show usage."""
    frames, at = memoryview(entry.frames), 0
    bounds = iter(array("I", entry.hidden))
    for start, end in zip(bounds, bounds, strict=True):
        yield frames[at:start]
        at = end
    yield frames[at:]


def _frames(entry: Entry) -> Iterator[tuple[int, bytes]]:
    """Each frame with the milliseconds at which it came."""
    at = 0
    for end, millis in zip(array("I", entry.ends), array("I", entry.millis), strict=True):
        yield millis, entry.frames[at:end]
        at = end


def _pieces(request: CacheableRequest, entry: Entry) -> list[tuple[int, bytes]]:
    shown, pieces, millis = request.view.shown(), [], 0
    for millis, frame in _frames(entry):
        pieces.append((millis, b"".join(shown.feed([frame]))))
    pieces.append((millis, b"".join(shown.close())))
    return [(millis, piece) for millis, piece in pieces if piece]
