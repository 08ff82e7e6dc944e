"""A caller on a flight: the wait until there is something to answer with."""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from llmproxy.cache.single_flight import Flight
from llmproxy.config.settings import Settings
from llmproxy.proxy.broadcast import BroadcastBuffer, BroadcastReader
from llmproxy.proxy.offload import offload
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.response import (
    Answer,
    AnswerFacts,
    Failed,
    Fetched,
    Live,
    Outcome,
    TryAgain,
    View,
    Whole,
    timing_header,
    type_headers,
)
from llmproxy.wire.cache_headers import forward_headers
from llmproxy.wire.dialect import Dialect
from llmproxy.wire.documents import Malformed, is_json, peek
from llmproxy.wire.errors import ProxyError, UpstreamBroke, UpstreamFault
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.formats.messages import MESSAGES, request_id_of
from llmproxy.wire.headers import HeaderList, media_type
from llmproxy.wire.vocabulary import Reason

_ANSWERED = 200

TOO_LARGE = "The answer is too large to be given in another form than the upstream's."


class ClientDisconnected(Exception):
    """The caller closed the connection before the answer was complete."""


class StreamAborted(Exception):
    """Half an answer is out and the rest will not come: only a broken connection tells."""


class Client(Protocol):
    """Someone who waits for an answer."""

    @property
    def disconnected(self) -> bool: ...

    def watch(self, wake: Callable[[], None]) -> None:
        """Calls ``wake`` once the caller is gone."""


async def follow(
    exchange: Exchange,
    request: CacheableRequest,
    flight: Flight[BroadcastBuffer[Outcome]],
    client: Client,
    settings: Settings,
    own: Callable[[], Flight[BroadcastBuffer[Outcome]]] | None,
) -> Answer | Failed | TryAgain:
    """The answer, as soon as its status can be told: at the first frame for a stream, at the end otherwise.

    ``own`` begins a flight in the caller's own form; with None the answer is given in the form in which it comes, where
    there is no other. Leaves the flight, but for a ``Live`` answer. Raises ``ClientDisconnected``.
    """
    reader = BroadcastReader(flight.work)
    client.watch(reader.wake_up)
    stays = False
    try:
        answer = await _first(exchange, request, flight, reader, client, settings, own)
        stays = isinstance(answer, Live)
        return answer
    finally:
        if not stays:
            reader.close()
            flight.leave()


async def wait_result(flight: Flight[BroadcastBuffer[Outcome]], client: Client) -> Outcome:
    """The flight's end, for one who needs the whole of it. Leaves the flight. Raises ``ClientDisconnected``."""
    reader = BroadcastReader(flight.work)
    client.watch(reader.wake_up)
    try:
        while flight.work.outcome is None:
            if client.disconnected:
                raise ClientDisconnected
            if flight.work.overflowed:
                # nobody reads it piece by piece: it would wait for a reader until it is given up
                return Failed(UpstreamBroke(TOO_LARGE), Reason.TOO_LARGE)
            await reader.wait()
        return flight.work.outcome
    finally:
        flight.leave()


async def _first(
    exchange: Exchange,
    request: CacheableRequest,
    flight: Flight[BroadcastBuffer[Outcome]],
    reader: BroadcastReader[Outcome],
    client: Client,
    settings: Settings,
    own: Callable[[], Flight[BroadcastBuffer[Outcome]]] | None,
) -> Answer | Failed | TryAgain:
    buffer, stream = flight.work, request.parsed.stream
    loop = asyncio.get_running_loop()
    # a stream's status is held back so that an upstream's error can still be one, but not so long that the
    # client gives up: pings need a head before them
    deadline = loop.time() + settings.head_seconds if stream and settings.ping_seconds else None
    while True:
        if client.disconnected:
            raise ClientDisconnected
        head = buffer.head
        if isinstance(buffer.outcome, Failed):
            under_way = stream and head is not None and head.stream and reader.behind
            if not under_way or not isinstance(buffer.outcome.error, UpstreamFault):
                return buffer.outcome
            # what the upstream said in its stream is told there, however quickly it came
        if head is not None and head.status != _ANSWERED:
            return _live(exchange, request, flight, reader, None, stream=False)
        if own is not None and other_form(buffer, request.endpoint.dialect, stream=stream):
            return TryAgain()
        if head is not None and reader.behind:
            if head.stream and stream:
                return _live(exchange, request, flight, reader, own)
            if buffer.overflowed and (head.stream or stream):
                return Failed(UpstreamBroke(TOO_LARGE), Reason.TOO_LARGE)
            if buffer.overflowed:
                return _live(exchange, request, flight, reader, own, stream=False)
        if isinstance(buffer.outcome, Fetched):
            outcome = buffer.outcome
            return await offload(len(outcome.document), _whole, exchange, request, buffer, outcome)
        wait = None if deadline is None else deadline - loop.time()
        if wait is not None and wait <= 0:
            return _live(exchange, request, flight, reader, own)
        await reader.wait(wait)


def other_form(buffer: BroadcastBuffer[Outcome], dialect: Dialect, *, stream: bool) -> bool:
    """Whether it is known that the answer comes in the other form and cannot be given in this one. Not where it was
    asked for in this form: to ask again would change nothing."""
    head, outcome = buffer.head, buffer.outcome
    if head is None or stream in (head.stream, head.request):
        return False
    if not head.both:
        return True
    return isinstance(outcome, Fetched) and not outcome.serves(dialect, framed=head.stream, stream=stream)


def refusal(dialect: Dialect, fetched: Fetched) -> ProxyError | None:
    """Why a plain answer cannot be given to a caller who asked for a stream even as it came: read as one it would be an
    empty success. None where there is more to it."""
    body = fetched.document
    if fetched.type is not None:
        kind = media_type(fetched.type)
        torn = kind.endswith(b"json") and not is_json(body)
        if torn or kind == b"text/html" or not body.strip():
            return UpstreamBroke("The upstream answered a request for a stream with a body that is no answer.")
        return None
    document = peek(body)
    flaw = None if document is None else dialect.flaw(document)
    if document is not None and flaw is Reason.ERROR:
        return UpstreamFault(document.get("error") or document, request_id=request_id_of(document))
    if flaw is Reason.MALFORMED or dialect is MESSAGES:
        return UpstreamBroke("The upstream answered a request for a stream with a document that is no answer.")
    return None


def _whole(
    exchange: Exchange, request: CacheableRequest, buffer: BroadcastBuffer[Outcome], fetched: Fetched
) -> Whole | Failed:
    dialect = request.endpoint.dialect
    framed = buffer.head is not None and buffer.head.stream
    if fetched.type is not None or not fetched.serves(dialect, framed=framed, stream=request.parsed.stream):
        error = refusal(dialect, fetched) if request.parsed.stream and not framed else None
        if error is not None:
            return Failed(error, fetched.reason)
        # there is no other form: better as it came than not at all
        body = b"".join(buffer.frames)
        kind = dialect.document_type if fetched.type is None else fetched.type
        headers = type_headers(dialect.stream_type if framed else kind, stream=framed)
    else:
        try:
            body, headers = _rendered(request, fetched)
        except (Malformed, TypeError, RecursionError):
            return Failed(UpstreamBroke("The upstream's answer is nested too deeply to be given on."), Reason.MALFORMED)
    headers = [(b"content-length", b"%d" % len(body)), *headers, *fetched.headers, *exchange.upstream_headers]
    headers += forward_headers(exchange, fetched.reason)
    headers.append(timing_header(perf_counter() - exchange.started, fetched.seconds))
    return Whole(200, headers, body, facts_of(fetched))


def facts_of(fetched: Fetched) -> AnswerFacts:
    """What a flight's answer is known by."""
    return AnswerFacts(fetched.reason, fetched.usage, fetched.seconds, fetched.document)


def _rendered(request: CacheableRequest, fetched: Fetched) -> tuple[bytes, HeaderList]:
    dialect = request.endpoint.dialect
    if request.parsed.stream and dialect.both:
        return View.of(request).rendered(fetched.document), type_headers(dialect.stream_type, stream=True)
    return View.of(request).document(fetched.document), type_headers(dialect.document_type, stream=False)


def _live(
    exchange: Exchange,
    request: CacheableRequest,
    flight: Flight[BroadcastBuffer[Outcome]],
    reader: BroadcastReader[Outcome],
    own: Callable[[], Flight[BroadcastBuffer[Outcome]]] | None,
    *,
    stream: bool = True,
) -> Live:
    dialect, head = request.endpoint.dialect, flight.work.head
    headers: HeaderList = []
    if head is None or head.status == _ANSWERED:
        headers += type_headers(dialect.stream_type if stream else dialect.document_type, stream=stream)
    if head is not None:
        headers += [*head.headers, *exchange.upstream_headers]
    headers += forward_headers(exchange, None)
    status = _ANSWERED if head is None else head.status
    return Live(headers, reader, flight, dialect, View.of(request), stream, status, own)
