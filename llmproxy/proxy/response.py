"""What an exchange ends with: the outcome of an upstream call, and the answer to one caller in its own rendering."""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Self

import orjson

from llmproxy.cache.entry import Entry
from llmproxy.cache.single_flight import Flight
from llmproxy.config.settings import Replay, Settings
from llmproxy.proxy.broadcast import BroadcastBuffer, BroadcastReader
from llmproxy.proxy.offload import INLINE_BYTES
from llmproxy.proxy.request import CacheableRequest
from llmproxy.wire.dialect import Dialect, Filter
from llmproxy.wire.documents import Document, Malformed, dump, dump_leniently, peek, read_leniently
from llmproxy.wire.echo import event_with_echo, with_echo
from llmproxy.wire.errors import ProxyError, UpstreamStatus
from llmproxy.wire.exchange import NO_USAGE, Exchange, Usage
from llmproxy.wire.framing import sse_data, sse_event, sse_frame
from llmproxy.wire.headers import HeaderList
from llmproxy.wire.records import record
from llmproxy.wire.vocabulary import CacheStatus, Reason

#: members that an event has whose echo may have to change
_HOLDING = (b'"response"', b'"choices"', b'"id"')


@record
class View:
    """``usage``: whether usage frames are shown. ``echo``: what the answer repeats of this request, None if nothing."""

    dialect: Dialect
    usage: bool
    echo: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, request: CacheableRequest) -> Self:
        """The view of the caller who made this request."""
        return cls(request.endpoint.dialect, request.parsed.include_usage, request.parsed.echo)

    def document(self, body: bytes) -> bytes:
        """A plain answer as this caller gets it."""
        if self.echo is None:
            return body
        document = orjson.loads(body)
        echoed = with_echo(document, self.echo)
        return body if echoed is document else dump(echoed)

    def frames(self, frames: list[bytes]) -> list[bytes]:
        """All frames of a stream as this caller gets them."""
        stream_view = self.stream_view()
        return stream_view.feed(frames) + stream_view.close()

    def stream_view(self) -> "StreamView":
        """What shows a stream to this caller as it comes."""
        return StreamView(self, None if self.usage else self.dialect.usage_filter())

    def rendered(self, body: bytes) -> bytes:
        """A plain answer as the stream that amounts to it."""
        return b"".join(self.frames(self.dialect.render(orjson.loads(body))))

    @property
    def as_is(self) -> bool:
        """Whether frames are shown unchanged, but for what asking for usage leaves in them."""
        return self.echo is None


class StreamView:
    """One stream on its way to one caller."""

    def __init__(self, view: View, filter: Filter | None) -> None:
        self._view = view
        self._filter = filter

    def feed(self, frames: list[bytes]) -> list[bytes]:
        """Frames as the caller gets them."""
        if self._filter is not None:
            frames = self._filter.feed(frames)
        return self._echoing(frames)

    def close(self) -> list[bytes]:
        """What was held back, once there is no more."""
        return [] if self._filter is None else self._echoing(self._filter.close())

    def _echoing(self, frames: list[bytes]) -> list[bytes]:
        echo = self._view.echo
        return frames if echo is None else [_echoed(frame, echo) for frame in frames]


def _echoed(frame: bytes, echo: Mapping[str, Any]) -> bytes:
    # most events of a Response hold neither it nor an id
    if not any(name in frame for name in _HOLDING):
        return frame
    data, write = sse_data(frame), dump
    event = peek(data)
    if event is None:
        # an answer has one id, in the events that are no strict JSON too
        event, write = read_leniently(data), dump_leniently
    if event is None:
        return frame
    echoed = event_with_echo(event, echo)
    return frame if echoed is event else sse_frame(write(echoed), sse_event(frame))


@record
class Fetched:
    """An upstream call that came to its proper end. ``document`` is the plain answer.

    ``reason`` says whether it was kept: STORED, or why not. ``entries`` is what was kept of it. ``both``: whether it
    may serve callers of the other form than the one in which it came; ``serves`` finds out. ``parts`` are the entries
    of an answer that is kept input by input, kept or not, in the order of the inputs.

    ``type`` is the content type of what is no answer that its endpoint knows: it is given as it came, whoever asked. It
    is empty if the upstream named none, and None for an answer.
    """

    document: bytes
    reason: Reason
    usage: Usage = NO_USAGE
    seconds: float = 0.0
    entries: tuple[Entry, ...] = ()
    headers: tuple[tuple[bytes, bytes], ...] = ()
    both: bool = True
    parts: tuple[Entry, ...] = ()
    type: bytes | None = None

    def serves(self, dialect: Dialect, *, framed: bool, stream: bool) -> bool:
        """Whether a caller's form can be had from it, which came in ``framed``."""
        return framed == stream or (self.both and (framed or _gives_stream(dialect, self.document)))


@record
class Failed:
    """An upstream call that did not. ``error`` is what a caller is told who has not been sent anything yet."""

    error: ProxyError
    reason: Reason

    @property
    def leaders_own(self) -> bool:
        """Whether it says something about the leader rather than about the request: its key, its abandonment, the form
        it asked for. Who followed and was sent nothing yet can lead."""
        if self.reason in (Reason.ABANDONED, Reason.TOO_LARGE):
            return True
        return isinstance(self.error, UpstreamStatus) and self.error.http_status in (401, 403)


@dataclass(frozen=True, slots=True)
class TryAgain:
    """A flight is of no use to this caller: it has a stream and a plain answer was asked for, or the other way round,
    and neither can be made of the other; or it has vectors that cannot be put beside those that are known."""


Outcome = Fetched | Failed


@record
class AnswerFacts:
    """What is known of an answer once the whole of it is there: derived once, for all who count, log and keep.

    ``stored`` says why it was kept or not, None for one that was stored before. ``seconds`` is how long the upstream
    worked for it, None if it never did; ``document`` is the plain answer.
    """

    stored: Reason | None = None
    usage: Usage = NO_USAGE
    seconds: float | None = None
    document: bytes = b""


@record
class Whole:
    """An answer that is there as a whole."""

    status: int
    headers: HeaderList
    body: bytes
    facts: AnswerFacts = AnswerFacts()
    #: the body where it is not in one piece: parts of a stored one
    parts: Sequence[memoryview] = ()


@dataclass(frozen=True, slots=True)
class Paced:
    """A stored stream, replayed in its own time. ``pieces`` are (milliseconds since the start, bytes)."""

    headers: HeaderList
    pieces: list[tuple[int, bytes]]
    facts: AnswerFacts


@record
class Live:
    """An answer on its way. The one who delivers it leaves the flight at the end."""

    headers: HeaderList
    reader: BroadcastReader[Outcome]
    flight: Flight[BroadcastBuffer[Outcome]]
    dialect: Dialect
    view: View
    #: frames for a stream, raw pieces of one document otherwise
    stream: bool = True
    status: int = 200
    #: begins a flight in this caller's own form, for when this one turns out to be of no use
    own: Callable[[], Flight[BroadcastBuffer[Outcome]]] | None = None


Answer = Whole | Paced | Live


@record
class LookUp:
    """What a look-up ended with. Without an ``answer`` it is a miss."""

    answer: Whole | Paced | None
    cache: CacheStatus
    reason: Reason


JSON = b"application/json"


def type_headers(content_type: bytes, *, stream: bool) -> HeaderList:
    """``content_type`` is empty for an answer whose own headers have it, or that has none."""
    named = [(b"content-type", content_type)] if content_type else []
    if stream:
        return [*named, (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    return [*named, (b"cache-control", b"private")]


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


def replay(
    exchange: Exchange,
    request: CacheableRequest,
    entry: Entry,
    settings: Settings,
    now: float,
    cache: CacheStatus,
    reason: Reason,
) -> Whole | Paced:
    """A stored answer in this caller's rendering. ``cache`` and ``reason`` say what sort of hit it is."""
    usage = Usage(entry.prompt_tokens, entry.completion_tokens)
    facts = AnswerFacts(None, usage, entry.upstream_seconds, entry.document)
    stream = wants_frames(request, entry)
    headers = replay_headers(request, entry, cache, reason, now)
    headers.append(timing_header(perf_counter() - exchange.started))
    paced = settings.replay is Replay.PACED if request.directives.paced is None else request.directives.paced
    if stream and paced and entry.frames:
        return Paced(headers, _pieces(request, entry), facts)
    # parts of the stored frames can be shared by all who get them
    parts = list(_visible_parts(entry)) if stream and _hides(request, entry) else []
    body = b"" if parts else body_of(request, entry)
    headers.insert(0, (b"content-length", b"%d" % (sum(map(len, parts)) or len(body))))
    return Whole(200, headers, body, facts, parts)


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
    framed = bool(entry.frames)
    if framed == request.parsed.stream:
        return True
    return entry.both and (framed or _gives_stream(request.endpoint.dialect, entry.document))


def _gives_stream(dialect: Dialect, body: bytes) -> bool:
    """Whether a plain answer that may be rendered as a stream can be. Of a large one that was found out before."""
    if len(body) > INLINE_BYTES:
        return True
    document = dialect.read_answer(body, JSON)
    return document is not None and is_renderable(dialect, document)


def is_renderable(dialect: Dialect, document: Document) -> bool:
    """Whether a stream can be made of it that says all of it: one of which it can be made again."""
    if dialect.flaw(document) not in (None, Reason.INCOMPLETE):
        return False
    try:
        return _says_all(dialect.assemble(dialect.render(document)), document)
    except (Malformed, RecursionError):
        return False


def _says_all(made: Any, document: Any) -> bool:
    """Whether everything in ``document`` is in what was made of it; members that a server left out may be beside it."""
    if isinstance(document, dict) and isinstance(made, dict):
        return all(name in made and _says_all(made[name], value) for name, value in document.items())
    if isinstance(document, list) and isinstance(made, list):
        return len(made) == len(document) and all(map(_says_all, made, document))
    return bool(made == document)


def wants_frames(request: CacheableRequest, entry: Entry) -> bool:
    return request.parsed.stream and (bool(entry.frames) or request.endpoint.dialect.both)


def body_of(request: CacheableRequest, entry: Entry) -> bytes:
    """The whole body in this caller's rendering."""
    view = View.of(request)
    if not wants_frames(request, entry):
        return view.document(entry.document)
    if not entry.frames:
        return view.rendered(entry.document)
    if not view.as_is or (not view.usage and _is_rewritten(entry)):
        return b"".join(view.frames([frame for _, frame in _frames(entry)]))
    return b"".join(_visible_parts(entry)) if _hides(request, entry) else entry.frames


def _is_rewritten(entry: Entry) -> bool:
    """Whether leaving frames out does not make it what callers get who did not ask for usage."""
    return entry.hidden == array("I", (0, len(entry.frames))).tobytes()


def _hides(request: CacheableRequest, entry: Entry) -> bool:
    """Whether the stored frames are this caller's but for those that show usage."""
    view = View.of(request)
    return bool(entry.frames and entry.hidden) and view.as_is and not view.usage and not _is_rewritten(entry)


def _visible_parts(entry: Entry) -> Iterator[memoryview]:
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
    stream_view, pieces, millis = View.of(request).stream_view(), [], 0
    for millis, frame in _frames(entry):
        pieces.append((millis, b"".join(stream_view.feed([frame]))))
    pieces.append((millis, b"".join(stream_view.close())))
    return [(millis, piece) for millis, piece in pieces if piece]
