"""The life of a request, in order. This file is the map: every phase is marked here, one call a line.

``parse_request`` is phase ``read``. ``handle`` is the caller's way from ``admit`` to ``join``. ``fetch`` is the
flight's way from ``pick`` to ``store``: a task of its own, which outlives the caller who began it. ``relay`` is the way
of what is passed through as it is. What surrounds them, from ``name`` to ``limit`` and ``record`` and ``count`` at the
end, is ``middleware``'s and ``observe``'s. Who is below this file does not write to the exchange.
"""

import logging
from asyncio import CancelledError
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from llmproxy.cache.entry import Entry
from llmproxy.cache.policy import Verdict, admit
from llmproxy.cache.single_flight import Flight, Subscription
from llmproxy.proxy.broadcast import BroadcastBuffer
from llmproxy.proxy.embeddings import InputByInput
from llmproxy.proxy.fetch import WHOLE_BYTES, Attempts, Plan, Storage, read_on, reason_of, settle, tee
from llmproxy.proxy.listen import Client
from llmproxy.proxy.offload import offload
from llmproxy.proxy.passthrough import Passage, PassedRequest, Relayed
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.response import Answer, AnswerFacts, Failed, Live, LookUp, Outcome, TryAgain
from llmproxy.proxy.services import ProxyServices
from llmproxy.proxy.whole import WholeAnswers
from llmproxy.upstream.headers import Peer, credentials, live_headers
from llmproxy.wire.cache_headers import parse_directives
from llmproxy.wire.endpoints import Endpoint
from llmproxy.wire.errors import InternalError, OnlyIfCached, ProxyError, UpstreamBroke, UpstreamError
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.headers import content_type
from llmproxy.wire.vocabulary import CacheStatus, Phase, Reason

log = logging.getLogger(__name__)

Work = BroadcastBuffer[Outcome]


class Strategy(Protocol):
    """How the answers to one kind of request are kept: as a whole, or input by input. It only reads the exchange."""

    @property
    def key(self) -> str:
        """Of what the request is looked up and kept under, in hex; "" if nothing is kept."""
        ...

    async def look_up(self) -> LookUp:
        """What the tiers have."""
        ...

    async def again(self, verdict: Verdict) -> LookUp:
        """The same after a flight that was of no use to this caller."""
        ...

    def plan(self, *, shared: bool) -> Plan:
        """What a flight is to do. ``shared``: whether others may join it."""
        ...

    def own_plan(self) -> Plan:
        """The same for this caller's form alone."""
        ...

    def late_entry(self) -> Entry | None:
        """What has been stored since the look-up, as seen when the plan was made."""
        ...

    async def give(self, entry: Entry) -> LookUp:
        """The answer that an entry holds."""
        ...

    async def follow(
        self, flight: Flight[Work], client: Client, lead_own: Callable[[], Flight[Work]]
    ) -> Answer | Failed | TryAgain:
        """What becomes of a flight for this caller. ``lead_own`` begins one for its form alone.

        Leaves the flight, but for a ``Live`` answer. Raises ``ClientDisconnected``.
        """
        ...

    async def spare(self, error: ProxyError) -> LookUp | None:
        """An answer past its lifetime in place of an error of the upstream's."""
        ...


async def parse_request(
    exchange: Exchange,
    endpoint: Endpoint,
    raw: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    peer: Peer,
    services: ProxyServices,
) -> CacheableRequest:
    """Phase ``read``, from bytes to a request. ``raw`` is the body, ``headers`` have lower-case names.

    Raises ``BadRequest``; what is refused here leaves no trace in the history.
    """
    exchange.endpoint = endpoint.name
    directives = parse_directives(headers)
    form = b"" if endpoint.dialect.json_requests else content_type(headers)
    (parsed, document), any_case = await services.memo.read(endpoint, raw, form), False
    if (stream := parsed.any_case_stream) is not None:
        any_case = services.upstreams.any_case(parsed.model, exchange.path)
        parsed = replace(parsed, stream=stream) if any_case else parsed
    exchange.model, exchange.stream = parsed.model, parsed.stream
    exchange.namespace, exchange.session = directives.namespace, directives.session or exchange.session
    exchange.user = directives.user or parsed.user or exchange.user
    exchange.query = target.partition(b"?")[2]
    exchange.request_body = parsed.described or raw
    exchange.recorded = True
    exchange.mark(Phase.READ)
    return CacheableRequest(endpoint, parsed, directives, raw, target, headers, peer, any_case, document)


async def handle(exchange: Exchange, request: CacheableRequest, services: ProxyServices, client: Client) -> Answer:
    """One request for an answer that may be cached: of a client's, or of a job's.

    Raises ``ProxyError`` for an answer that is an error, ``ClientDisconnected``.
    """
    verdict = admit(services.settings.cache_policy, request.parsed.traits, request.directives)
    exchange.mark(Phase.ADMIT)
    verdict = await _identify(exchange, request, verdict, services)
    strategy = await _strategy(exchange, request, verdict, services)
    exchange.mark(Phase.KEY)
    if verdict.look_up:
        answer = _take(exchange, strategy, await strategy.look_up())
        exchange.mark(Phase.LOOK_UP)
        if answer is not None:
            return answer
    if request.directives.only_if_cached:
        exchange.stored = Reason.ONLY_IF_CACHED
        if exchange.cache is CacheStatus.MISS:
            exchange.cache = CacheStatus.ONLY_IF_CACHED
        raise OnlyIfCached("Nothing stored can answer this request, and it forbids to ask the upstream.")
    while True:
        flight = await _join(exchange, strategy, verdict, services)
        exchange.mark(Phase.JOIN)
        if not isinstance(flight, Subscription):
            return flight
        result = await _follow(exchange, strategy, flight, services, client)
        if not isinstance(result, TryAgain):
            break
        if (answer := _take(exchange, strategy, await strategy.again(verdict))) is not None:
            return answer
    return await _failed(exchange, strategy, result) if isinstance(result, Failed) else result


async def fetch(plan: Plan, buffer: Work, exchange: Exchange, services: ProxyServices) -> None:
    """The work of a flight. Never raises but for its own cancellation; whatever happens, the buffer gets an outcome.

    ``exchange`` is the leader's: it notes the phases and the upstream's time.
    """

    def finish(outcome: Outcome) -> None:
        # the key is given up before the end is told: who asks again from now on finds the stored answer, or leads
        services.flights.release(plan.flight_key, buffer)
        if buffer.outcome is None:
            buffer.finish(outcome)

    try:
        storage, attempts = Storage(plan, exchange, services), Attempts(plan, exchange.trace, services)
        while True:
            target = await attempts.pick()
            exchange.upstream = target.name
            exchange.mark(Phase.PICK)
            reply = await attempts.send(target)
            exchange.mark(Phase.SEND)
            if reply is not None:
                break
        try:
            services.accepted.note(target.name, exchange.caller.credential, reply.status)
            recorder = await attempts.recorder(buffer, reply)
            exchange.upstream_headers = tuple(live_headers(reply.headers)) if recorder.is_answer else ()
            body = await tee(reply, recorder)
            exchange.mark(Phase.TEE)
            fetched = await settle(recorder, plan, body)
            exchange.mark(Phase.SETTLE)
            fetched = storage.keep(fetched, target)
            exchange.mark(Phase.STORE)
            finish(fetched)
            await read_on(reply, recorder)
        finally:
            await reply.aclose()
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


async def relay(exchange: Exchange, request: PassedRequest, services: ProxyServices) -> Relayed:
    """One request that a model server answers as it came. Raises ``ProxyError``, ``ClientDisconnected``."""
    exchange.cache, exchange.reason = CacheStatus.BYPASS, request.reason
    request.check()
    exchange.recorded = True
    exchange.mark(Phase.ADMIT)
    passage = Passage(request, services, exchange.trace)
    try:
        async with request.presence.required():
            while True:
                target = await passage.pick()
                exchange.upstream = target.name
                exchange.mark(Phase.PICK)
                reply = await passage.send(target)
                exchange.mark(Phase.SEND)
                if reply is not None:
                    break
    except UpstreamError as error:
        exchange.stored = reason_of(error)
        services.upstream_failed(exchange.stored)
        raise
    services.accepted.note_refusal(target.name, exchange.caller.credential, reply.status)
    if reply.status >= 400:
        exchange.stored = Reason.STATUS
        services.upstream_failed(Reason.STATUS)
    return Relayed(reply, passage, partial(exchange.mark, Phase.TEE))


def note(exchange: Exchange, facts: AnswerFacts) -> None:
    """Writes what is known of an answer once the whole of it is there: all who count, log and keep read it there."""
    exchange.stored = facts.stored or exchange.stored
    exchange.usage, exchange.upstream_seconds = facts.usage, facts.seconds
    exchange.response_body = facts.document


async def _identify(
    exchange: Exchange, request: CacheableRequest, verdict: Verdict, services: ProxyServices
) -> Verdict:
    """The verdict that follows from the identity of the request's model, which is noted, and from who asks.

    An answer to the very same request that ended just now is waited for first: with it, what stands behind the name may
    be known better.
    """
    if not verdict.keep:
        return verdict
    if verdict.look_up and services.confirmations.pending:
        await services.confirmations.wait((request.question_key(exchange.caller.scope),))
    model = request.parsed.model
    if request.any_case:
        return Verdict(look_up=False, keep=False, reason=Reason.FIELD_CASE)
    presented = credentials(request.headers, services.settings)
    identity = await services.upstreams.identify(model, request.path, presented)
    if identity is None:
        return Verdict(look_up=False, keep=False, reason=Reason.IDENTITY_UNKNOWN)
    exchange.identity = identity
    if verdict.look_up and not services.is_accepted(exchange, request):
        # what is not known yet is asked of the server's own pages
        if presented:
            await services.upstreams.show(services.targets(request), presented)
        if not services.is_accepted(exchange, request):
            verdict = replace(verdict, look_up=False, reason=Reason.CREDENTIAL)
    return verdict


async def _strategy(
    exchange: Exchange, request: CacheableRequest, verdict: Verdict, services: ProxyServices
) -> Strategy:
    """How the answer is kept, with the keys made for it."""
    if not verdict.keep:
        exchange.cache, exchange.reason = CacheStatus.BYPASS, verdict.reason
    else:
        exchange.cache, exchange.reason = CacheStatus.MISS, verdict.reason or Reason.ABSENT
    strategy: Strategy
    if request.parsed.each and verdict.keep:
        strategy = InputByInput(exchange, request, await offload(len(request.raw), request.body), services)
    else:
        strategy = WholeAnswers(exchange, request, services, is_kept=verdict.keep)
    exchange.key = strategy.key
    return strategy


def _take(exchange: Exchange, strategy: Strategy, found: LookUp) -> Answer | None:
    """The answer that was found, noted; None for a miss."""
    exchange.key, exchange.cache, exchange.reason = strategy.key, found.cache, found.reason
    if found.answer is not None:
        note(exchange, found.answer.facts)
    return found.answer


async def _join(
    exchange: Exchange, strategy: Strategy, verdict: Verdict, services: ProxyServices
) -> Subscription[Work] | Answer:
    """Follow the flight in the air, or lead one.

    Between the look-up and here another leader may have landed: what it stored is in the memory tier by then, because
    a flight stores before it gives its key up. Nothing is awaited between these two looks.
    """
    plan = strategy.plan(shared=services.settings.single_flight)
    if plan.flight_key is not None and verdict.look_up:
        flight = services.flights.find(plan.flight_key)
        if flight is not None and not flight.work.overflowed:
            flight.listen()
            exchange.key, exchange.cache = strategy.key, CacheStatus.JOINED
            return Subscription(flight, led=False)
        if (entry := strategy.late_entry()) is not None:
            if (answer := _take(exchange, strategy, await strategy.give(entry))) is not None:
                return answer
            plan = replace(plan, flight_key=None)
    return Subscription(_launch(exchange, strategy, plan, services), led=True)


def _launch(exchange: Exchange, strategy: Strategy, plan: Plan, services: ProxyServices) -> Flight[Work]:
    """Starts the upstream call. Without a flight key nobody can join it; without a key its answer is not kept."""
    exchange.key = strategy.key
    if plan.own and exchange.cache is CacheStatus.JOINED:
        # what was joined is of no use
        exchange.cache = CacheStatus.MISS
    kept = services.settings.cache_entry_bytes
    # a stream can go out piece by piece, whatever its size; a plain answer may have to be put together from one
    buffer: Work = BroadcastBuffer(kept if plan.request.parsed.stream else max(WHOLE_BYTES, kept))
    return services.flights.launch(buffer, partial(fetch, plan, exchange=exchange, services=services), plan.flight_key)


async def _follow(
    exchange: Exchange,
    strategy: Strategy,
    subscription: Subscription[Work],
    services: ProxyServices,
    client: Client,
) -> Answer | Failed | TryAgain:
    def lead_own() -> Flight[Work]:
        return _launch(exchange, strategy, strategy.own_plan(), services)

    result = await strategy.follow(subscription.flight, client, lead_own)
    if isinstance(result, Failed) and not subscription.led and result.leaders_own:
        # nothing was sent to this caller yet, and the failure was the leader's: lead
        flight = _launch(exchange, strategy, strategy.plan(shared=False), services)
        result = await strategy.follow(flight, client, lead_own)
    if not isinstance(result, Failed | TryAgain | Live):
        exchange.key = strategy.key
        note(exchange, result.facts)
    return result


async def _failed(exchange: Exchange, strategy: Strategy, failed: Failed) -> Answer:
    """An answer past its lifetime if there is one and the request allows it. Raises what the call failed for."""
    exchange.stored = failed.reason
    found = await strategy.spare(failed.error)
    if found is not None and (answer := _take(exchange, strategy, found)) is not None:
        return answer
    raise failed.error
