"""The life of a request, in order. This file is the map: every phase once, one call a line.

``name``, ``watch``, ``guard``, ``identify`` and ``limit`` come before it, in ``ingress``; ``read`` in ``endpoint``.
``pick``, ``send``, ``tee``, ``settle`` and ``store`` are the flight's, in ``fetch``: it outlives the caller who began
it. ``record`` and ``count`` close the exchange, in ``ingress.access``.
"""

import logging
import time
from dataclasses import dataclass, replace
from functools import partial

from llmproxy.cache.entry import Entry
from llmproxy.cache.key import key_of, own_form
from llmproxy.cache.policy import Freshness, Verdict, admit, freshness
from llmproxy.cache.single_flight import Flight, Subscription
from llmproxy.proxy.broadcast import BroadcastBuffer
from llmproxy.proxy.embeddings import embed
from llmproxy.proxy.fetch import WHOLE_BYTES, Plan, run_fetch
from llmproxy.proxy.listen import Client, follow
from llmproxy.proxy.offload import offload
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.response import Answer, Failed, OtherForm, Outcome, replay, serves
from llmproxy.proxy.services import ProxyServices
from llmproxy.upstream.headers import Peer, credentials
from llmproxy.wire.cache_headers import parse_directives
from llmproxy.wire.endpoints import Endpoint
from llmproxy.wire.errors import OnlyIfCached
from llmproxy.wire.exchange import NO_USAGE, Exchange
from llmproxy.wire.headers import content_type
from llmproxy.wire.vocabulary import CacheStatus, Phase, Reason

log = logging.getLogger(__name__)


async def handle(exchange: Exchange, request: CacheableRequest, services: ProxyServices, client: Client) -> Answer:
    """One request to a cached endpoint. Raises ``ProxyError`` for an answer that is an error, ``ClientLeft``."""
    verdict = admit(services.settings.cache_policy, request.parsed.traits, request.directives)
    exchange.mark(Phase.ADMIT)
    if verdict.keep:
        request, verdict = await identified(exchange, request, verdict, services)
        if verdict.look_up and not await _is_accepted(exchange, request, services):
            verdict = replace(verdict, look_up=False, reason=Reason.CREDENTIAL)
    if request.parsed.each and verdict.keep:
        body = await offload(len(request.raw), request.body)
        return await embed(exchange, request, body, verdict, services, client)
    place = _key(exchange, request, verdict, services)
    exchange.mark(Phase.KEY)
    stale, since = None, services.cache.position()
    if verdict.look_up:
        hit, stale, place = await _look_up(exchange, request, place, services)
        exchange.mark(Phase.LOOK_UP)
        if hit is not None and (answer := await _given(exchange, request, hit, services)) is not None:
            return answer
    if request.directives.only_if_cached:
        exchange.stored = Reason.ONLY_IF_CACHED
        raise OnlyIfCached("Nothing stored can answer this request, and it forbids to ask the upstream.")
    result = await _fetch_or_join(exchange, request, verdict, place, services, client)
    if isinstance(result, Failed):
        spare = stale if stale is not None and services.cache.still_holds(stale, since) else None
        return await _failed(exchange, request, result, spare, services)
    return result


async def _is_accepted(exchange: Exchange, request: CacheableRequest, services: ProxyServices) -> bool:
    """Whether the caller may be given what is stored: what is not known yet is asked of the server's own pages."""
    if services.is_accepted(exchange, request):
        return True
    if presented := credentials(request.headers, services.settings):
        await services.upstreams.show(services.targets(request), presented)
    return services.is_accepted(exchange, request)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an answer is looked up, joined and kept; without a key, nowhere.

    ``own``: it is the place of one form, since what the request's key finds serves the other form only.
    """

    key: bytes | None
    own: bool = False

    def of_form(self, exchange: Exchange, request: CacheableRequest) -> "_Place":
        """The place of this caller's form."""
        if self.own or self.key is None:
            return _Place(self.key, own=True)
        key = own_form(self.key, request.parsed.stream)
        exchange.key = key.hex()
        return _Place(key, own=True)


async def _fetch_or_join(
    exchange: Exchange,
    request: CacheableRequest,
    verdict: Verdict,
    place: _Place,
    services: ProxyServices,
    client: Client,
) -> Answer | Failed:
    known = None if place.key is None else services.cache.peek(place.key)
    if known is not None and not serves(request, known):
        place = place.of_form(exchange, request)
    subscription = _join(exchange, request, verdict, place, services)
    exchange.mark(Phase.JOIN)
    if isinstance(subscription, Entry):
        if (answer := await _given(exchange, request, subscription, services)) is not None:
            return answer
        subscription = Subscription(_launch(exchange, request, None, place, services), led=True)

    def lead_own() -> Flight[BroadcastBuffer[Outcome]]:
        own = place.of_form(exchange, request)
        return _launch(exchange, request, None, own, services)

    result = await follow(
        exchange, request, subscription.flight, client, services.settings, None if place.own else lead_own
    )
    if isinstance(result, Failed) and not subscription.led and result.leaders_own:
        # nothing was sent to this caller yet, and the failure was the leader's: lead
        flight = _launch(exchange, request, None, place, services)
        result = await follow(exchange, request, flight, client, services.settings, None if place.own else lead_own)
    if isinstance(result, OtherForm):
        place, hit = place.of_form(exchange, request), None
        if verdict.look_up:
            hit, _, place = await _look_up(exchange, request, place, services)
        if hit is not None and (answer := await _given(exchange, request, hit, services)) is not None:
            return answer
        return await _fetch_or_join(exchange, request, verdict, place, services, client)
    return result


def _key(exchange: Exchange, request: CacheableRequest, verdict: Verdict, services: ProxyServices) -> _Place:
    if not verdict.keep:
        exchange.cache, exchange.reason = CacheStatus.BYPASS, verdict.reason
        return _Place(None)
    scope, namespace = exchange.caller.scope, request.directives.namespace
    key = key_of(request.endpoint.name, request.identity, scope, namespace, request.digest)
    exchange.key = key.hex()
    exchange.cache, exchange.reason = CacheStatus.MISS, verdict.reason or Reason.ABSENT
    return _Place(key)


async def _look_up(
    exchange: Exchange, request: CacheableRequest, place: _Place, services: ProxyServices
) -> tuple[Entry | None, Entry | None, _Place]:
    """The entry that answers, the one that may answer if the upstream fails, and the place to go on with."""
    found = None if place.key is None else await services.cache.find(place.key)
    if found is not None and not place.own and not serves(request, found[0]):
        place = place.of_form(exchange, request)
        return await _look_up(exchange, request, place, services)
    if found is None or not serves(request, found[0]):
        return None, None, place
    entry, tier = found
    match freshness(entry, request.directives, time.time()):
        case Freshness.FRESH:
            exchange.cache, exchange.reason = CacheStatus.HIT, Reason(tier)
            return entry, None, place
        case Freshness.STALE:
            exchange.cache, exchange.reason = CacheStatus.STALE, Reason(tier)
            return entry, None, place
        case Freshness.IF_ERROR:
            exchange.reason = Reason.EXPIRED
            return None, entry, place
        case Freshness.NO:
            exchange.reason = Reason.EXPIRED
            return None, None, place


def _join(
    exchange: Exchange, request: CacheableRequest, verdict: Verdict, place: _Place, services: ProxyServices
) -> Subscription[BroadcastBuffer[Outcome]] | Entry:
    """Follow the flight in the air, or lead one.

    Between the look-up and here another leader may have landed: what it stored is in the memory tier by then, because
    a flight stores before it gives its key up. Nothing is awaited between these two looks.
    """
    key, shared = place.key, services.settings.single_flight and request.directives.single_flight
    if key is not None and shared and verdict.look_up:
        flight = services.flights.find(key)
        if flight is not None and not flight.work.overflowed:
            flight.listen()
            exchange.cache = CacheStatus.JOINED
            return Subscription(flight, led=False)
        entry = services.cache.peek(key)
        if (
            entry is not None
            and serves(request, entry)
            and freshness(entry, request.directives, time.time()) is Freshness.FRESH
        ):
            exchange.cache, exchange.reason = CacheStatus.HIT, Reason.MEMORY
            return entry
    return Subscription(_launch(exchange, request, key if shared else None, place, services), led=True)


def _launch(
    exchange: Exchange, request: CacheableRequest, flight_key: bytes | None, place: _Place, services: ProxyServices
) -> Flight[BroadcastBuffer[Outcome]]:
    """Starts the upstream call. Without a ``flight_key`` nobody can join it; without a place its answer is not kept."""
    if place.own and exchange.cache is CacheStatus.JOINED:
        # what was joined is of no use
        exchange.cache = CacheStatus.MISS
    plan = Plan(request, None, place.key, exchange.caller.scope, request.identity, flight_key, own=place.own)
    kept = services.settings.cache_entry_bytes
    # a stream can go out piece by piece, whatever its size; a plain answer may have to be put together from one
    buffer: BroadcastBuffer[Outcome] = BroadcastBuffer(kept if request.parsed.stream else max(WHOLE_BYTES, kept))
    return services.flights.launch(buffer, partial(run_fetch, plan, exchange=exchange, services=services), flight_key)


async def _failed(
    exchange: Exchange, request: CacheableRequest, failed: Failed, stale: Entry | None, services: ProxyServices
) -> Answer:
    exchange.stored = failed.reason
    if stale is not None and failed.error.http_status >= 500:
        exchange.cache, exchange.reason = CacheStatus.STALE, Reason.UPSTREAM_DOWN
        if (answer := await _given(exchange, request, stale, services)) is not None:
            return answer
    raise failed.error


async def _given(exchange: Exchange, request: CacheableRequest, entry: Entry, services: ProxyServices) -> Answer | None:
    """A stored answer in this caller's rendering. None, a miss, for one that cannot be given: an earlier version may
    have stored it."""
    try:
        return await offload(entry.size, replay, exchange, request, entry, services.settings, time.time())
    except Exception as error:  # noqa: BLE001 - a fault of what is stored is never the client's
        log.warning("a stored answer cannot be given, and is fetched anew: %r", error)
        exchange.cache, exchange.reason = CacheStatus.MISS, Reason.ABSENT
        exchange.usage, exchange.upstream_seconds, exchange.response_body = NO_USAGE, None, b""
        return None


async def parse_request(
    exchange: Exchange,
    endpoint: Endpoint,
    raw: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    peer: Peer,
    services: ProxyServices,
) -> CacheableRequest:
    """Notes in the exchange what is known from now on. ``raw`` is the body, ``headers`` have lower-case names.

    Raises ``BadRequest``; what is refused here leaves no trace in the history.
    """
    exchange.endpoint = endpoint.name
    directives = parse_directives(headers)
    form = b"" if endpoint.dialect.json_requests else content_type(headers)
    parsed, any_case = await services.memo.parsed(endpoint, raw, form), False
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
    return CacheableRequest(endpoint, parsed, directives, raw, target, headers, peer, any_case)


async def identified(
    exchange: Exchange, request: CacheableRequest, verdict: Verdict, services: ProxyServices
) -> tuple[CacheableRequest, Verdict]:
    """The request with its model's identity, and the verdict that follows from it.

    An answer to the very same request that ended just now is waited for first: with it, what stands behind the name may
    be known better.
    """
    if verdict.look_up and services.confirmations.pending:
        await services.confirmations.wait((request.question_key(exchange.caller.scope),))
    model = request.parsed.model
    if request.any_case:
        return request, Verdict(look_up=False, keep=False, reason=Reason.FIELD_CASE)
    shown = credentials(request.headers, services.settings)
    identity = await services.upstreams.identify(model, request.path, shown)
    if identity is None:
        return request, Verdict(look_up=False, keep=False, reason=Reason.IDENTITY_UNKNOWN)
    exchange.identity = identity
    return replace(request, identity=identity), verdict
