"""The parts of one upstream call: the attempts at it, its answer as it comes, as it is judged, and as it is stored."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import field, replace
from time import monotonic
from typing import Any, Protocol

from llmproxy.cache.entry import Entry
from llmproxy.cache.key import key_of, own_form
from llmproxy.config.settings import UpstreamStream
from llmproxy.proxy.broadcast import BroadcastBuffer, Head
from llmproxy.proxy.offload import offload
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.response import Fetched, Outcome
from llmproxy.proxy.services import ProxyServices
from llmproxy.proxy.settle import AnswerRecorder, settle_document, settle_frames
from llmproxy.upstream.errors import normalise
from llmproxy.upstream.headers import credentials, forwarded, relayed
from llmproxy.upstream.missing import MISSING_STATUSES, endpoint_missing, missing, translated
from llmproxy.upstream.target import Adapted, Call, Reply, Target
from llmproxy.upstream.upstreams import AnswerOrigin
from llmproxy.wire.errors import (
    NotFound,
    ProxyError,
    UpstreamBroke,
    UpstreamError,
    UpstreamRefused,
    UpstreamSlow,
    UpstreamStatus,
)
from llmproxy.wire.exchange import Exchange, Trace
from llmproxy.wire.framing import is_stream
from llmproxy.wire.headers import media_type
from llmproxy.wire.records import record
from llmproxy.wire.vocabulary import Reason

#: an error document larger than this says nothing more
_ERROR_BYTES = 1024 * 1024
#: Largest answer that is put together for a caller who needs the whole of it: a plain document, or embeddings. How much
#: of that is kept is another matter (``LLMPROXY_CACHE_ENTRY_BYTES``).
WHOLE_BYTES = 64 * 1024 * 1024
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


@record
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


class Attempts:
    """One call, to one server after the other until one answers, before anything has been sent to a client.

    A server that cannot be reached is followed by the next one that has the model, and so is one that breaks the
    connection before the first byte of its answer, unless the request may have done something there. A server without
    the endpoint is asked for what stands for it, if something does; that it has none is remembered for a while.
    """

    def __init__(self, plan: Plan, trace: Trace | None, services: ProxyServices) -> None:
        """Raises ``BadRequest`` for a request that has been here before."""
        request, settings = plan.request, services.settings
        self._plan = plan
        self._services = services
        self._headers = forwarded(request.headers, settings, request.peer, trace=trace)
        self._credentials = credentials(request.headers, settings)
        self._body = plan.body
        #: servers that failed
        self._failed: set[str] = set()
        #: the one without the endpoint, and what it is asked instead
        self._instead: tuple[Target, Adapted] | None = None
        self._adapted: Adapted

    async def pick(self) -> Target:
        """The server that is asked next. Raises ``UpstreamRefused``, ``NotFound``."""
        if self._instead is not None:
            return self._instead[0]
        request = self._plan.request
        return await self._services.upstreams.pick(
            request.parsed.model, request.path, self._credentials, without=self._failed
        )

    async def send(self, target: Target) -> Reply | None:
        """The reply whose head has come; None if there is another attempt to be made. Raises ``UpstreamError``."""
        request, upstreams = self._plan.request, self._services.upstreams
        self._adapted = adapted = await self._adapt(target)
        path = request.target if adapted.path is None else adapted.path
        try:
            reply = await upstreams.send(target, Call("POST", path, [*self._headers, *adapted.headers], adapted.body))
        except UpstreamError as error:
            self._failed.add(target.name)
            if not self._goes_on(error):
                raise
            self._services.upstream_failed(reason_of(error))
            self._instead = None
            return None
        if reply.status in MISSING_STATUSES and self._body is not None:
            await self._miss(target, reply)
            return None
        return reply

    async def recorder(self, buffer: BroadcastBuffer[Outcome], reply: Reply) -> AnswerRecorder:
        """What takes the answer. Raises ``UpstreamStatus`` for an error."""
        if reply.status >= 400:
            raise normalise(reply.status, reply.headers, await reply.read(_ERROR_BYTES))
        plan, settings = self._plan, self._services.settings
        return AnswerRecorder(plan.request, plan.key, plan.scope, buffer, self._adapted, reply, settings)

    async def _adapt(self, target: Target) -> Adapted:
        if self._instead is not None:
            return self._instead[1]
        plan, services = self._plan, self._services
        request, name, settings = plan.request, plan.request.endpoint.name, services.settings
        if not request.endpoint.dialect.json_requests:
            return Adapted(request.raw, request.parsed.stream, both=False)
        size = len(request.raw)
        if self._body is None:
            self._body = await offload(size, request.body)
        if services.upstreams.lacks(target, name) and (instead := await offload(size, translated, name, self._body)):
            return instead
        if plan.own:
            settings = settings.model_copy(update={"upstream_stream": UpstreamStream.AS_ASKED})
        return await offload(size, target.adapt, name, self._body, request.parsed.stream, settings)

    def _goes_on(self, error: UpstreamError) -> bool:
        """Whether another server may be asked after this failure."""
        request = self._plan.request
        if isinstance(error, UpstreamRefused):
            is_safe = True
        else:
            is_safe = isinstance(error, UpstreamBroke) and not request.parsed.traits.side_effect
        return is_safe and self._services.upstreams.has_other(request.parsed.model, request.path, self._failed)

    async def _miss(self, target: Target, reply: Reply) -> None:
        """Prepares to ask for what stands for an endpoint that is missing. Raises ``UpstreamStatus`` if it is not the
        endpoint that is missing, or nothing stands for it."""
        request, name = self._plan.request, self._plan.request.endpoint.name
        try:
            refusal = await reply.read(_ERROR_BYTES)
        finally:
            await reply.aclose()
        error = normalise(reply.status, reply.headers, refusal)
        if not endpoint_missing(reply.status, refusal):
            raise error
        self._services.upstreams.lacking(target, name)
        assert self._body is not None
        if (
            self._adapted.path is not None
            or (instead := await offload(len(request.raw), translated, name, self._body)) is None
        ):
            raise missing(error, target.name, request.target)
        self._instead = target, instead


class Storage:
    """Where a flight's answer is kept. Made when the call begins: what is flushed after that is not kept."""

    def __init__(self, plan: Plan, exchange: Exchange, services: ProxyServices) -> None:
        self._plan = plan
        self._exchange = exchange
        self._services = services
        self._begun = services.cache.position()

    def keep(self, fetched: Fetched, target: Target) -> Fetched:
        """Has a complete answer stored: at once if it is certain which model made it, else once the server has said so.

        Nobody waits for that: the listeners are told the end right after this. What they are told is that it is kept.
        """
        plan, services = self._plan, self._services
        model, path = plan.request.parsed.model, plan.request.path
        origin = AnswerOrigin(target, model, path, plan.identity, plan.keyed_at, monotonic())
        if not fetched.entries or services.upstreams.confirmed(origin):
            self._store(fetched.entries)
            return fetched
        if services.confirmations.full:
            return replace(fetched, reason=Reason.TOO_LARGE)
        keys = {plan.request.question_key(plan.scope), *(entry.key for entry in fetched.entries)}
        size = sum(entry.size for entry in fetched.entries)
        services.confirmations.begin(keys, size, self._decide(fetched, origin))
        return fetched

    async def _decide(self, fetched: Fetched, origin: AnswerOrigin) -> None:
        plan, request, services = self._plan, self._plan.request, self._services
        identity = await services.upstreams.confirm(origin, credentials(request.headers, services.settings))
        if identity is None:
            # another model may have made it than the one that the key speaks of
            self._exchange.stored = Reason.MODEL_CHANGED
        elif identity == plan.identity:
            self._store(fetched.entries)
        elif plan.split is not None:
            self._store(plan.split.under(identity, fetched))
        else:
            key = key_of(request.endpoint.name, identity, plan.scope, request.directives.namespace, request.digest)
            key = own_form(key, request.parsed.stream) if plan.own else key
            self._store(replace(entry, key=key) for entry in fetched.entries)

    def _store(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._services.cache.store(entry, self._begun)


async def tee(reply: Reply, recorder: AnswerRecorder) -> bytes:
    """The answer as it comes, to everybody who listens. Returns a plain body, b"" if it is too large to keep.

    Raises ``UpstreamBroke``, ``UpstreamSlow``, ``UpstreamFault``.
    """
    buffer = recorder.buffer
    if not recorder.is_answer:
        # neither an answer nor an error: a redirect, work that was only accepted. The client's to make sense of
        headers = [header for header in relayed(reply.headers) if header[0] not in _OF_ONE_MESSAGE]
        buffer.begin(Head(False, tuple(headers), both=False, status=reply.status))
        return await _tee_pieces(reply, recorder, b"")
    framed, opening = await _form(reply, recorder)
    requested, recorder.framed = recorder.framed, framed
    buffer.begin(Head(framed, recorder.answer_headers, recorder.both, requested))
    if framed:
        await _tee_frames(reply, recorder, opening)
        return b""
    body = await _tee_pieces(reply, recorder, opening)
    # JSON that was cut off is none; a text that was cut off is a text
    recorder.loose = not reply.delimited and not body.rstrip().endswith((b"}", b"]"))
    return body


async def settle(recorder: AnswerRecorder, plan: Plan, body: bytes) -> Fetched:
    """The answer as it is judged. ``body`` is a plain one. Raises ``UpstreamBroke``."""
    if not recorder.is_answer:
        return Fetched(body, Reason.STATUS, seconds=recorder.seconds, both=False, type=recorder.content_type)
    if recorder.framed:
        fetched = await offload(recorder.buffer.size, settle_frames, recorder)
    elif plan.split is None or recorder.is_coded:
        fetched = await offload(len(body), settle_document, recorder, body)
    else:
        fetched = await plan.split.settle(recorder, body)
    dialect, stream = plan.request.endpoint.dialect, plan.request.parsed.stream
    if plan.own and fetched.entries and not fetched.serves(dialect, framed=recorder.framed, stream=stream):
        # it cannot serve those who ask for what its key says
        return replace(fetched, entries=(), reason=Reason.MALFORMED)
    return fetched


async def read_on(reply: Reply, recorder: AnswerRecorder) -> None:
    """To the end of a stream's body, so that the connection can serve again. Everyone has their answer already."""
    if not recorder.framed:
        return
    with suppress(ProxyError, TimeoutError):
        async with asyncio.timeout(_READ_ON_SECONDS):
            async for _ in reply.chunks():
                pass


async def _form(reply: Reply, recorder: AnswerRecorder) -> tuple[bool, bytes]:
    """Whether the answer comes as a stream, and as much of it as had to be seen to know."""
    if recorder.is_coded:
        # in a way that is not known here
        return False, b""
    endpoint = recorder.request.endpoint
    kind = media_type(recorder.content_type)
    if not endpoint.dialect.document_type and kind != endpoint.dialect.stream_type:
        # a text may begin as an event does
        return False, b""
    opening, whole = b"", False
    while True:
        found = is_stream(endpoint.dialect.stream_type, kind, opening, requested=recorder.framed, complete=whole)
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
            await _wait_capacity(recorder)
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
            buffer.add(frames, notify=False)
            return
        if frames:
            buffer.add(frames)
        if buffer.overflowed:
            await _wait_capacity(recorder)
        chunk = await anext(chunks, b"")
    buffer.add(await recorder.close(delimited=reply.delimited), notify=False)


async def _wait_capacity(recorder: AnswerRecorder) -> None:
    try:
        async with asyncio.timeout(recorder.settings.idle_timeout):
            await recorder.buffer.wait_capacity()
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
