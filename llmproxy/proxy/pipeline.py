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
from llmproxy.proxy.client_state import Client
from llmproxy.proxy.embeddings import embed
from llmproxy.proxy.fetch import WHOLE_BYTES, Plan, fly
from llmproxy.proxy.follow import follow
from llmproxy.proxy.identity import identified
from llmproxy.proxy.offload import offload
from llmproxy.proxy.replay import replay, serves
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.results import Answer, Failed, OtherForm, Outcome
from llmproxy.proxy.services import ProxyServices
from llmproxy.upstream.headers import credentials
from llmproxy.wire.errors import OnlyIfCached
from llmproxy.wire.exchange import NO_USAGE, Exchange
from llmproxy.wire.vocabulary import CacheStatus, Phase, Reason

log = logging.getLogger(__name__)


async def live(exchange: Exchange, asked: CacheableRequest, rooms: ProxyServices, listener: Client) -> Answer:
    """One request to a cached endpoint. Raises ``ProxyError`` for an answer that is an error, ``ClientLeft``."""
    verdict = admit(rooms.settings.cache_policy, asked.draft.traits, asked.wishes)
    exchange.mark(Phase.ADMIT)
    if verdict.keep:
        asked, verdict = await identified(exchange, asked, verdict, rooms)
        if verdict.look_up and not await _is_accepted(exchange, asked, rooms):
            verdict = replace(verdict, look_up=False, reason=Reason.CREDENTIAL)
    if asked.draft.each and verdict.keep:
        body = await offload(len(asked.raw), asked.body)
        return await embed(exchange, asked, body, verdict, rooms, listener)
    place = _key(exchange, asked, verdict, rooms)
    exchange.mark(Phase.KEY)
    stale, since = None, rooms.cache.position()
    if verdict.look_up:
        hit, stale, place = await _look_up(exchange, asked, place, rooms)
        exchange.mark(Phase.LOOK_UP)
        if hit is not None and (answer := await _given(exchange, asked, hit, rooms)) is not None:
            return answer
    if asked.wishes.only_if_cached:
        exchange.stored = Reason.ONLY_IF_CACHED
        raise OnlyIfCached("Nothing stored can answer this request, and it forbids to ask the upstream.")
    result = await _flown(exchange, asked, verdict, place, rooms, listener)
    if isinstance(result, Failed):
        spare = stale if stale is not None and rooms.cache.still_holds(stale, since) else None
        return await _failed(exchange, asked, result, spare, rooms)
    return result


async def _is_accepted(exchange: Exchange, asked: CacheableRequest, rooms: ProxyServices) -> bool:
    """Whether the caller may be given what is stored: what is not known yet is asked of the server's own pages."""
    if rooms.is_accepted(exchange, asked):
        return True
    if presented := credentials(asked.headers, rooms.settings):
        await rooms.upstreams.show(rooms.targets(asked), presented)
    return rooms.is_accepted(exchange, asked)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an answer is looked up, joined and kept; without a key, nowhere.

    ``own``: it is the place of one form, since what the request's key finds serves the other form only.
    """

    key: bytes | None
    own: bool = False

    def of_form(self, exchange: Exchange, asked: CacheableRequest) -> "_Place":
        """The place of this caller's form."""
        if self.own or self.key is None:
            return _Place(self.key, own=True)
        key = own_form(self.key, asked.draft.stream)
        exchange.key = key.hex()
        return _Place(key, own=True)


async def _flown(
    exchange: Exchange, asked: CacheableRequest, verdict: Verdict, place: _Place, rooms: ProxyServices, listener: Client
) -> Answer | Failed:
    known = None if place.key is None else rooms.cache.peek(place.key)
    if known is not None and not serves(asked, known):
        place = place.of_form(exchange, asked)
    seat = _join(exchange, asked, verdict, place, rooms)
    exchange.mark(Phase.JOIN)
    if isinstance(seat, Entry):
        if (answer := await _given(exchange, asked, seat, rooms)) is not None:
            return answer
        seat = Subscription(_launch(exchange, asked, None, place, rooms), led=True)

    def lead_own() -> Flight[BroadcastBuffer[Outcome]]:
        own = place.of_form(exchange, asked)
        return _launch(exchange, asked, None, own, rooms)

    result = await follow(exchange, asked, seat.flight, listener, rooms.settings, None if place.own else lead_own)
    if isinstance(result, Failed) and not seat.led and result.leaders_own:
        # nothing was sent to this caller yet, and the failure was the leader's: lead
        flight = _launch(exchange, asked, None, place, rooms)
        result = await follow(exchange, asked, flight, listener, rooms.settings, None if place.own else lead_own)
    if isinstance(result, OtherForm):
        place, hit = place.of_form(exchange, asked), None
        if verdict.look_up:
            hit, _, place = await _look_up(exchange, asked, place, rooms)
        if hit is not None and (answer := await _given(exchange, asked, hit, rooms)) is not None:
            return answer
        return await _flown(exchange, asked, verdict, place, rooms, listener)
    return result


def _key(exchange: Exchange, asked: CacheableRequest, verdict: Verdict, rooms: ProxyServices) -> _Place:
    if not verdict.keep:
        exchange.cache, exchange.reason = CacheStatus.BYPASS, verdict.reason
        return _Place(None)
    scope, namespace = exchange.caller.scope, asked.wishes.namespace
    key = key_of(asked.endpoint.name, asked.identity, scope, namespace, asked.digest)
    exchange.key = key.hex()
    exchange.cache, exchange.reason = CacheStatus.MISS, verdict.reason or Reason.ABSENT
    return _Place(key)


async def _look_up(
    exchange: Exchange, asked: CacheableRequest, place: _Place, rooms: ProxyServices
) -> tuple[Entry | None, Entry | None, _Place]:
    """The entry that answers, the one that may answer if the upstream fails, and the place to go on with."""
    found = None if place.key is None else await rooms.cache.find(place.key)
    if found is not None and not place.own and not serves(asked, found[0]):
        place = place.of_form(exchange, asked)
        return await _look_up(exchange, asked, place, rooms)
    if found is None or not serves(asked, found[0]):
        return None, None, place
    entry, tier = found
    match freshness(entry, asked.wishes, time.time()):
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
    exchange: Exchange, asked: CacheableRequest, verdict: Verdict, place: _Place, rooms: ProxyServices
) -> Subscription[BroadcastBuffer[Outcome]] | Entry:
    """Follow the flight in the air, or lead one.

    Between the look-up and here another leader may have landed: what it stored is in the memory tier by then, because
    a flight stores before it gives its key up. Nothing is awaited between these two looks.
    """
    key, shared = place.key, rooms.settings.single_flight and asked.wishes.single_flight
    if key is not None and shared and verdict.look_up:
        flight = rooms.flights.find(key)
        if flight is not None and not flight.work.overflowed:
            flight.listen()
            exchange.cache = CacheStatus.JOINED
            return Subscription(flight, led=False)
        entry = rooms.cache.peek(key)
        if (
            entry is not None
            and serves(asked, entry)
            and freshness(entry, asked.wishes, time.time()) is Freshness.FRESH
        ):
            exchange.cache, exchange.reason = CacheStatus.HIT, Reason.MEMORY
            return entry
    return Subscription(_launch(exchange, asked, key if shared else None, place, rooms), led=True)


def _launch(
    exchange: Exchange, asked: CacheableRequest, flight_key: bytes | None, place: _Place, rooms: ProxyServices
) -> Flight[BroadcastBuffer[Outcome]]:
    """Starts the upstream call. Without a ``flight_key`` nobody can join it; without a place its answer is not kept."""
    if place.own and exchange.cache is CacheStatus.JOINED:
        # what was joined is of no use
        exchange.cache = CacheStatus.MISS
    plan = Plan(asked, None, place.key, exchange.caller.scope, asked.identity, flight_key, own=place.own)
    kept = rooms.settings.cache_entry_bytes
    # a stream can go out piece by piece, whatever its size; a plain answer may have to be put together from one
    capture: BroadcastBuffer[Outcome] = BroadcastBuffer(kept if asked.draft.stream else max(WHOLE_BYTES, kept))
    return rooms.flights.launch(capture, partial(fly, plan, exchange=exchange, rooms=rooms), flight_key)


async def _failed(
    exchange: Exchange, asked: CacheableRequest, failed: Failed, stale: Entry | None, rooms: ProxyServices
) -> Answer:
    exchange.stored = failed.reason
    if stale is not None and failed.error.http_status >= 500:
        exchange.cache, exchange.reason = CacheStatus.STALE, Reason.UPSTREAM_DOWN
        if (answer := await _given(exchange, asked, stale, rooms)) is not None:
            return answer
    raise failed.error


async def _given(exchange: Exchange, asked: CacheableRequest, entry: Entry, rooms: ProxyServices) -> Answer | None:
    """A stored answer in this caller's rendering. None, a miss, for one that cannot be given: an earlier version may
    have stored it."""
    try:
        return await offload(entry.size, replay, exchange, asked, entry, rooms.settings, time.time())
    except Exception as error:  # noqa: BLE001 - a fault of what is stored is never the client's
        log.warning("a stored answer cannot be given, and is fetched anew: %r", error)
        exchange.cache, exchange.reason = CacheStatus.MISS, Reason.ABSENT
        exchange.usage, exchange.upstream_seconds, exchange.response_body = NO_USAGE, None, b""
        return None
