"""A stored entry as the answer to one caller, in the rendering that caller asked for."""

from array import array
from time import perf_counter

import orjson

from llmproxy.cache.entry import Entry
from llmproxy.config.settings import Replay, Settings
from llmproxy.proxy.answer import HeaderList, Paced, Whole
from llmproxy.proxy.asked import Asked
from llmproxy.proxy.headers import JSON, hit_headers, timing_header, type_headers
from llmproxy.wire.dialect import Dialect
from llmproxy.wire.exchange import Exchange, Usage
from llmproxy.wire.vocabulary import CacheStatus, Reason


def replay(exchange: Exchange, asked: Asked, entry: Entry, settings: Settings, now: float) -> Whole | Paced:
    """Notes the hit in the exchange. ``exchange.cache`` and ``reason`` say which kind it was."""
    cache, reason = exchange.cache or CacheStatus.HIT, exchange.reason or Reason.MEMORY
    exchange.usage = Usage(entry.prompt_tokens, entry.completion_tokens)
    exchange.upstream_seconds = entry.upstream_seconds
    exchange.response_body = entry.document
    stream = wants_frames(asked, entry)
    headers = replay_headers(asked, entry, cache, reason, now)
    headers.append(timing_header(perf_counter() - exchange.started))
    paced = settings.replay is Replay.PACED if asked.wishes.paced is None else asked.wishes.paced
    if stream and paced and entry.frames:
        return Paced(headers, _pieces(asked, entry))
    body = body_of(asked, entry)
    headers.insert(0, (b"content-length", b"%d" % len(body)))
    return Whole(200, headers, body)


def replay_headers(asked: Asked, entry: Entry, cache: CacheStatus, reason: Reason, now: float) -> HeaderList:
    """Everything but length, timing and id: the same for each request of one second."""
    dialect = asked.endpoint.dialect
    stream = wants_frames(asked, entry)
    return [
        *type_headers(dialect.stream_type if stream else JSON, stream=stream),
        *entry.headers,
        *hit_headers(entry, cache, reason, now),
    ]


def wants_frames(asked: Asked, entry: Entry) -> bool:
    return asked.draft.stream and (bool(entry.frames) or asked.endpoint.dialect.both)


def body_of(asked: Asked, entry: Entry) -> bytes:
    """The whole body in this caller's rendering."""
    if not wants_frames(asked, entry):
        return entry.document
    if not entry.frames:
        return b"".join(shown(asked.endpoint.dialect, _rendered(asked, entry), asked.draft.include_usage))
    if asked.draft.include_usage or not entry.hidden:
        return entry.frames
    return _without(entry)


def shown(dialect: Dialect, frames: list[bytes], usage: bool) -> list[bytes]:
    """The frames that a caller gets who did or did not ask for usage."""
    return frames if usage else [frame for frame in frames if not dialect.usage_only(frame)]


def _rendered(asked: Asked, entry: Entry) -> list[bytes]:
    return asked.endpoint.dialect.render(orjson.loads(entry.document))


def _without(entry: Entry) -> bytes:
    kept, at = [], 0
    for start, end in entry.hidden:
        kept.append(entry.frames[at:start])
        at = end
    kept.append(entry.frames[at:])
    return b"".join(kept)


def _pieces(asked: Asked, entry: Entry) -> list[tuple[int, bytes]]:
    ends, millis = array("I", entry.ends), array("I", entry.millis)
    hidden = set() if asked.draft.include_usage else {start for start, _ in entry.hidden}
    pieces, at = [], 0
    for end, when in zip(ends, millis, strict=True):
        if at not in hidden:
            pieces.append((when, entry.frames[at:end]))
        at = end
    return pieces
