"""A caller's wait on a flight, until there is something to answer with."""

import asyncio
from collections.abc import Callable
from time import perf_counter

from llmproxy.cache.single_flight import Flight
from llmproxy.config.settings import Settings
from llmproxy.proxy.broadcast import BroadcastBuffer, BroadcastReader
from llmproxy.proxy.client_state import Client, ClientDisconnected
from llmproxy.proxy.headers import timing_header, type_headers
from llmproxy.proxy.offload import offload
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.results import Answer, Failed, Fetched, HeaderList, Live, OtherForm, Outcome, Whole
from llmproxy.wire.cache_status import forward_headers
from llmproxy.wire.dialect import Dialect, Malformed
from llmproxy.wire.documents import is_json, peek
from llmproxy.wire.errors import ProxyError, UpstreamBroke, UpstreamFault
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.messages import MESSAGES
from llmproxy.wire.vocabulary import Reason

_ANSWERED = 200

TOO_LARGE = "The answer is too large to be given in another form than the upstream's."


async def follow(
    exchange: Exchange,
    asked: CacheableRequest,
    flight: Flight[BroadcastBuffer[Outcome]],
    listener: Client,
    settings: Settings,
    own: Callable[[], Flight[BroadcastBuffer[Outcome]]] | None,
) -> Answer | Failed | OtherForm:
    """The answer, as soon as its status can be told: at the first frame for a stream, at the end otherwise.

    ``own`` begins a flight in the caller's own form; with None the answer is given in the form in which it comes, where
    there is no other. Leaves the flight, but for a ``Live`` answer. Raises ``ClientDisconnected``.
    """
    reader = BroadcastReader(flight.work)
    listener.watch(reader.poke)
    stays = False
    try:
        answer = await _first(exchange, asked, flight, reader, listener, settings, own)
        stays = isinstance(answer, Live)
        return answer
    finally:
        if not stays:
            flight.leave()


async def landing(flight: Flight[BroadcastBuffer[Outcome]], listener: Client) -> Outcome:
    """The flight's end, for one who needs the whole of it. Leaves the flight. Raises ``ClientDisconnected``."""
    reader = BroadcastReader(flight.work)
    listener.watch(reader.poke)
    try:
        while flight.work.outcome is None:
            if listener.gone:
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
    asked: CacheableRequest,
    flight: Flight[BroadcastBuffer[Outcome]],
    reader: BroadcastReader[Outcome],
    listener: Client,
    settings: Settings,
    own: Callable[[], Flight[BroadcastBuffer[Outcome]]] | None,
) -> Answer | Failed | OtherForm:
    capture, stream = flight.work, asked.draft.stream
    loop = asyncio.get_running_loop()
    # a stream's status is held back so that an upstream's error can still be one, but not so long that the
    # client gives up: pings need a head before them
    deadline = loop.time() + settings.head_seconds if stream and settings.ping_seconds else None
    while True:
        if listener.gone:
            raise ClientDisconnected
        head = capture.head
        if isinstance(capture.outcome, Failed):
            under_way = stream and head is not None and head.stream and reader.behind
            if not under_way or not isinstance(capture.outcome.error, UpstreamFault):
                return capture.outcome
            # what the upstream said in its stream is told there, however quickly it came
        if head is not None and head.status != _ANSWERED:
            return _live(exchange, asked, flight, reader, None, stream=False)
        if own is not None and other_form(capture, stream=stream):
            return OtherForm()
        if head is not None and reader.behind:
            if head.stream and stream:
                return _live(exchange, asked, flight, reader, own)
            if capture.overflowed and (head.stream or stream):
                return Failed(UpstreamBroke(TOO_LARGE), Reason.TOO_LARGE)
            if capture.overflowed:
                return _live(exchange, asked, flight, reader, own, stream=False)
        if isinstance(capture.outcome, Fetched):
            outcome = capture.outcome
            return await offload(len(outcome.document), _whole, exchange, asked, capture, outcome)
        wait = None if deadline is None else deadline - loop.time()
        if wait is not None and wait <= 0:
            return _live(exchange, asked, flight, reader, own)
        await reader.wait(wait)


def other_form(capture: BroadcastBuffer[Outcome], *, stream: bool) -> bool:
    """Whether it is known that the answer comes in the other form and cannot be given in this one. Not where it was
    asked for in this form: to ask again would change nothing."""
    head, outcome = capture.head, capture.outcome
    if head is None or stream in (head.stream, head.asked):
        return False
    return not head.both or (isinstance(outcome, Fetched) and not outcome.both)


def refusal(dialect: Dialect, landed: Fetched) -> ProxyError | None:
    """Why a plain answer cannot be given to a caller who asked for a stream even as it came: read as one it would be an
    empty success. None where there is more to it."""
    body = landed.document
    if landed.type is not None:
        kind = landed.type.partition(b";")[0].strip().lower()
        torn = kind.endswith(b"json") and not is_json(body)
        if torn or kind == b"text/html" or not body.strip():
            return UpstreamBroke("The upstream answered a request for a stream with a body that is no answer.")
        return None
    document = peek(body)
    flaw = None if document is None else dialect.flaw(document)
    if document is not None and flaw is Reason.ERROR:
        return UpstreamFault(document.get("error") or document)
    if flaw is Reason.MALFORMED or dialect is MESSAGES:
        return UpstreamBroke("The upstream answered a request for a stream with a document that is no answer.")
    return None


def _whole(
    exchange: Exchange, asked: CacheableRequest, capture: BroadcastBuffer[Outcome], landed: Fetched
) -> Whole | Failed:
    exchange.stored, exchange.usage = landed.reason, landed.usage
    exchange.upstream_seconds, exchange.response_body = landed.seconds, landed.document
    dialect = asked.endpoint.dialect
    framed = capture.head is not None and capture.head.stream
    if landed.type is not None or (not landed.both and framed != asked.draft.stream):
        error = refusal(dialect, landed) if asked.draft.stream and not framed else None
        if error is not None:
            return Failed(error, landed.reason)
        # there is no other form: better as it came than not at all
        body = b"".join(capture.frames)
        kind = dialect.document_type if landed.type is None else landed.type
        headers = type_headers(dialect.stream_type if framed else kind, stream=framed)
        headers = [header for header in headers if header[1]]
    else:
        try:
            body, headers = _rendered(asked, landed)
        except (Malformed, TypeError, RecursionError):
            return Failed(UpstreamBroke("The upstream's answer is nested too deeply to be given on."), Reason.MALFORMED)
    headers = [(b"content-length", b"%d" % len(body)), *headers, *landed.headers, *exchange.upstream_headers]
    headers += forward_headers(exchange, landed.reason)
    headers.append(timing_header(perf_counter() - exchange.started, landed.seconds))
    return Whole(200, headers, body)


def _rendered(asked: CacheableRequest, landed: Fetched) -> tuple[bytes, HeaderList]:
    dialect = asked.endpoint.dialect
    if asked.draft.stream and dialect.both:
        return asked.view.rendered(landed.document), type_headers(dialect.stream_type, stream=True)
    return asked.view.document(landed.document), type_headers(dialect.document_type, stream=False)


def _live(
    exchange: Exchange,
    asked: CacheableRequest,
    flight: Flight[BroadcastBuffer[Outcome]],
    reader: BroadcastReader[Outcome],
    own: Callable[[], Flight[BroadcastBuffer[Outcome]]] | None,
    *,
    stream: bool = True,
) -> Live:
    dialect, head = asked.endpoint.dialect, flight.work.head
    headers: HeaderList = []
    if head is None or head.status == _ANSWERED:
        headers += type_headers(dialect.stream_type if stream else dialect.document_type, stream=stream)
    if head is not None:
        headers += [*head.headers, *exchange.upstream_headers]
    headers += forward_headers(exchange, None)
    status = _ANSWERED if head is None else head.status
    return Live(headers, reader, flight, dialect, asked.view, stream, status, own)
