"""One upstream call, from pick to store: the work that a flight does, whoever listens."""

import asyncio
import logging
from asyncio import CancelledError
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Protocol

from llmproxy.cache.entry import Entry
from llmproxy.cache.key import key_of, own_form
from llmproxy.config.settings import UpstreamStream
from llmproxy.proxy.broadcast import BroadcastBuffer, Head
from llmproxy.proxy.offload import offload
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.response import Failed, Fetched, Outcome
from llmproxy.proxy.services import ProxyServices
from llmproxy.proxy.settle import AnswerRecorder, settle_document, settle_frames
from llmproxy.upstream.errors import normalise
from llmproxy.upstream.headers import coding_of, credentials, forwarded, kept_headers, live_headers, relayed
from llmproxy.upstream.missing import MISSING_STATUSES, endpoint_missing, missing, translated
from llmproxy.upstream.target import Adapted, Call, HeaderList, Reply, Target
from llmproxy.upstream.upstreams import AnswerOrigin
from llmproxy.wire.errors import (
    InternalError,
    NotFound,
    ProxyError,
    UpstreamBroke,
    UpstreamError,
    UpstreamSlow,
    UpstreamStatus,
)
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.framing import is_stream
from llmproxy.wire.headers import content_type
from llmproxy.wire.vocabulary import Phase, Reason

log = logging.getLogger(__name__)

#: an error document larger than this says nothing more
_ERROR_BYTES = 1024 * 1024
#: Largest answer that is put together for a caller who needs the whole of it: a plain document, or embeddings. How much
#: of that is kept is another matter (``LLMPROXY_CACHE_ENTRY_BYTES``).
WHOLE_BYTES = 64 * 1024 * 1024
_ANSWERED = 200
#: headers of a reply that several may get, each with a framing of its own
_OF_ONE_MESSAGE = frozenset({b"content-length", b"set-cookie"})
#: how long the end of a body may take after the end of the answer in it
_READ_ON_SECONDS = 1.0


class Split(Protocol):
    """The parts of an answer that is not kept as a whole."""

    async def settle(self, recorder: AnswerRecorder, body: bytes) -> Fetched:
        """The answer with its entries. Raises ``UpstreamBroke``."""
        ...

    def under(self, identity: str, fetched: Fetched) -> Iterable[Entry]:
        """The entries of an answer, for a more precise identity of the model that made it."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What one flight is to do."""

    request: CacheableRequest
    #: what is sent; None for the body that was asked with
    body: dict[str, Any] | None
    #: the entry's key; None for an answer that is not to be kept as it is
    key: bytes | None
    scope: str
    #: the model's identity when the key was made
    identity: str = ""
    #: under which others join; None if nobody can
    flight_key: bytes | None = None
    #: what an answer is split by that is kept in parts
    split: Split | None = None
    #: whether the call must be made in the form that was asked: the other one was of no use
    own: bool = False
    #: when that was, on the monotonic clock
    keyed_at: float = field(default_factory=monotonic)


async def run_fetch(plan: Plan, buffer: BroadcastBuffer[Outcome], exchange: Exchange, services: ProxyServices) -> None:
    """Never raises but for its own cancellation; whatever happens, the capture gets an outcome.

    ``exchange`` is the leader's: it notes the phases and the upstream's time.
    """

    def finish(outcome: Outcome) -> None:
        # the key is given up before the end is told: who asks again from now on finds the stored answer, or leads
        services.flights.release(plan.flight_key, buffer)
        if buffer.outcome is None:
            buffer.finish(outcome)

    try:
        await _fetch(plan, buffer, exchange, services, finish)
    except ProxyError as error:
        reason = reason_of(error)
        if isinstance(error, UpstreamError):
            services.upstream_failed(reason)
        finish(Failed(error, reason))
    except CancelledError:
        finish(Failed(UpstreamBroke("The call was given up: nobody was listening."), Reason.ABANDONED))
        raise
    except Exception:  # a defect of ours must reach the listeners as an error, not as silence
        log.exception("a flight crashed")
        finish(Failed(InternalError("The proxy failed while it fetched the answer."), Reason.ERROR))


async def _fetch(
    plan: Plan,
    buffer: BroadcastBuffer[Outcome],
    exchange: Exchange,
    services: ProxyServices,
    finish: Callable[[Fetched], None],
) -> None:
    request, settings, begun = plan.request, services.settings, services.cache.position()
    shown = credentials(request.headers, settings)
    target = await services.upstreams.pick(request.parsed.model, request.path, shown)
    exchange.upstream = target.name
    headers = forwarded(request.headers, settings, request.peer, trace=exchange.trace)
    exchange.mark(Phase.PICK)
    adapted, reply = await _sent(plan, target, headers, services)
    services.accepted.note(target.name, exchange.caller.credential, reply.status)
    exchange.mark(Phase.SEND)
    try:
        if reply.status >= 400:
            raise normalise(reply.status, reply.headers, await reply.read(_ERROR_BYTES))
        if reply.status == _ANSWERED:
            exchange.upstream_headers = tuple(live_headers(reply.headers))
        kept, kind = [*kept_headers(reply.headers), *coding_of(reply.headers)], content_type(reply.headers)
        recorder = AnswerRecorder(request, buffer, adapted, plan.key, plan.scope, kept, settings, kind)
        fetched = await _tee(reply, recorder, adapted, exchange, plan)
        if plan.own and fetched.entries and not fetched.both and recorder.framed != request.parsed.stream:
            # it cannot serve those who ask for what its key says
            fetched = replace(fetched, entries=(), reason=Reason.MALFORMED)
        exchange.mark(Phase.SETTLE)

        def store(entries: Iterable[Entry]) -> None:
            for entry in entries:
                services.cache.store(entry, begun)
            exchange.mark(Phase.STORE)

        finish(_keep(fetched, target, plan, store, exchange, services))
        await _read_on(reply)
    finally:
        await reply.aclose()


async def _sent(plan: Plan, target: Target, headers: HeaderList, services: ProxyServices) -> tuple[Adapted, Reply]:
    """The reply whose head has come. A server without the endpoint is asked for what stands for it, where there is
    something; that it has none is remembered for a while. Raises ``UpstreamStatus`` for one that can do neither."""
    request, name = plan.request, plan.request.endpoint.name
    if not request.endpoint.dialect.json_requests:
        adapted = Adapted(request.raw, request.parsed.stream, both=False)
        return adapted, await services.upstreams.send(target, Call("POST", request.target, headers, adapted.body))
    size = len(request.raw)
    body = plan.body if plan.body is not None else await offload(size, request.body)
    instead = await offload(size, translated, name, body) if services.upstreams.lacks(target, name) else None
    settings = services.settings
    form = settings.model_copy(update={"upstream_stream": UpstreamStream.AS_ASKED}) if plan.own else settings
    adapted = await offload(size, target.adapt, name, body, request.parsed.stream, form) if instead is None else instead
    while True:
        path = request.target if adapted.path is None else adapted.path
        reply = await services.upstreams.send(target, Call("POST", path, [*headers, *adapted.headers], adapted.body))
        if reply.status not in MISSING_STATUSES:
            return adapted, reply
        try:
            refusal = await reply.read(_ERROR_BYTES)
        finally:
            await reply.aclose()
        error = normalise(reply.status, reply.headers, refusal)
        if not endpoint_missing(reply.status, refusal):
            raise error
        services.upstreams.lacking(target, name)
        if adapted.path is not None or (instead := await offload(size, translated, name, body)) is None:
            raise missing(error, target.name, request.target)
        adapted = instead


def _keep(
    fetched: Fetched,
    target: Target,
    plan: Plan,
    store: Callable[[Iterable[Entry]], None],
    exchange: Exchange,
    services: ProxyServices,
) -> Fetched:
    """Has a complete answer stored: at once if it is certain which model made it, else once the server has said so.

    Nobody waits for that: the listeners are told the end right after this. What they are told is that it is kept.
    """
    request = plan.request
    origin = AnswerOrigin(target, request.parsed.model, request.path, plan.identity, plan.keyed_at, monotonic())
    if not fetched.entries or services.upstreams.confirmed(origin):
        store(fetched.entries)
        return fetched
    if services.confirmations.full:
        return replace(fetched, reason=Reason.TOO_LARGE)

    async def decide() -> None:
        shown = credentials(request.headers, services.settings)
        identity = await services.upstreams.confirm(origin, shown)
        if identity is None:
            # another model may have made it than the one that the key speaks of
            exchange.stored = Reason.MODEL_CHANGED
        elif identity == plan.identity:
            store(fetched.entries)
        elif plan.split is not None:
            store(plan.split.under(identity, fetched))
        else:
            key = key_of(request.endpoint.name, identity, plan.scope, request.directives.namespace, request.digest)
            key = own_form(key, request.parsed.stream) if plan.own else key
            store(replace(entry, key=key) for entry in fetched.entries)

    keys = {request.question_key(plan.scope), *(entry.key for entry in fetched.entries)}
    services.confirmations.begin(keys, sum(entry.size for entry in fetched.entries), decide())
    return fetched


async def _read_on(reply: Reply) -> None:
    """To the end of the body, so that the connection can serve again. Everyone has their answer already."""
    with suppress(ProxyError, TimeoutError):
        async with asyncio.timeout(_READ_ON_SECONDS):
            async for _ in reply.chunks():
                pass


async def _tee(reply: Reply, recorder: AnswerRecorder, adapted: Adapted, exchange: Exchange, plan: Plan) -> Fetched:
    buffer = recorder.buffer
    if reply.status != _ANSWERED:
        return await _as_it_comes(reply, recorder)
    framed, opening = await _form(reply, recorder, adapted)
    recorder.framed = framed
    buffer.begin(Head(framed, recorder.answer_headers, adapted.both, adapted.stream))
    if framed:
        await _tee_frames(reply, recorder, opening)
        exchange.mark(Phase.TEE)
        return await offload(buffer.size, settle_frames, recorder)
    body = await _tee_pieces(reply, recorder, opening)
    exchange.mark(Phase.TEE)
    # JSON that was cut off is none; a text that was cut off is a text
    recorder.loose = not reply.delimited and not body.rstrip().endswith((b"}", b"]"))
    if plan.split is None or coding_of(reply.headers):
        return await offload(len(body), settle_document, recorder, body)
    return await plan.split.settle(recorder, body)


async def _as_it_comes(reply: Reply, recorder: AnswerRecorder) -> Fetched:
    """Neither an answer nor an error: a redirect, work that was only accepted. It is the client's to make sense of."""
    headers = [header for header in relayed(reply.headers) if header[0] not in _OF_ONE_MESSAGE]
    recorder.buffer.begin(Head(False, tuple(headers), both=False, status=reply.status))
    body = await _tee_pieces(reply, recorder, b"")
    return Fetched(body, Reason.STATUS, seconds=recorder.seconds, both=False, type=recorder.content_type)


async def _form(reply: Reply, recorder: AnswerRecorder, adapted: Adapted) -> tuple[bool, bytes]:
    """Whether the answer comes as a stream, and as much of it as had to be seen to know."""
    if coding_of(reply.headers):
        # in a way that is not known here
        return False, b""
    endpoint = recorder.request.endpoint
    kind = recorder.content_type.partition(b";")[0].strip().lower()
    if not endpoint.dialect.document_type and kind != endpoint.dialect.stream_type:
        # a text may begin as an event does
        return False, b""
    opening, whole = b"", False
    while True:
        found = is_stream(endpoint.dialect.stream_type, kind, opening, requested=adapted.stream, complete=whole)
        if not endpoint.streams or found is not None:
            return endpoint.streams and bool(found), opening
        chunk = await anext(reply.chunks(), b"")
        opening, whole = opening + chunk, not chunk


async def _tee_pieces(reply: Reply, recorder: AnswerRecorder, opening: bytes) -> bytes:
    """All of a plain body; nothing where it is too large to keep: it goes through the capture piece by piece then."""
    buffer = recorder.buffer
    pieces: list[bytes] = []
    chunks = reply.chunks()
    chunk = opening or await anext(chunks, b"")
    while chunk:
        if not buffer.overflowed:
            pieces.append(chunk)
        buffer.add((chunk,))
        if buffer.overflowed:
            pieces.clear()
            await _room(recorder)
        chunk = await anext(chunks, b"")
    return b"".join(pieces)


async def _tee_frames(reply: Reply, recorder: AnswerRecorder, opening: bytes) -> None:
    """Raises ``UpstreamBroke`` for a stream that ends in one of the ways that look clean and are not."""
    buffer = recorder.buffer
    chunks = reply.chunks()
    chunk = opening or await anext(chunks, b"")
    while chunk:
        frames = await recorder.take(chunk)
        if recorder.complete:
            # listeners are told of the last frames once the answer is stored: who has seen the end and asks again
            # is to find a hit
            buffer.add(frames, tell=False)
            return
        if frames:
            buffer.add(frames)
        if buffer.overflowed:
            await _room(recorder)
        chunk = await anext(chunks, b"")
    buffer.add(await recorder.close(delimited=reply.delimited), tell=False)


async def _room(recorder: AnswerRecorder) -> None:
    try:
        async with asyncio.timeout(recorder.settings.idle_timeout):
            await recorder.buffer.room()
    except TimeoutError:
        raise UpstreamBroke("The answer was given up: nobody read on.") from None


#: the words for a failed upstream call
FAILURES = (Reason.TIMEOUT, Reason.STATUS, Reason.UPSTREAM_FAILED)


def reason_of(error: ProxyError) -> Reason:
    """One of ``FAILURES``."""
    if isinstance(error, UpstreamSlow):
        return Reason.TIMEOUT
    if isinstance(error, UpstreamStatus | NotFound):
        # or no server has the model
        return Reason.STATUS
    return Reason.UPSTREAM_FAILED
