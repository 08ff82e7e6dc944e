"""The strategy for answers that are kept as a whole: all but embeddings."""

import logging
import time
from collections.abc import Callable

from llmproxy.cache.entry import Entry
from llmproxy.cache.key import key_of, own_form
from llmproxy.cache.policy import Freshness, Verdict, freshness
from llmproxy.cache.single_flight import Flight
from llmproxy.proxy.broadcast import BroadcastBuffer
from llmproxy.proxy.fetch import Plan
from llmproxy.proxy.listen import Client, follow
from llmproxy.proxy.offload import offload
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.response import Answer, Failed, LookUp, Outcome, TryAgain, replay, serves
from llmproxy.proxy.services import ProxyServices
from llmproxy.wire.errors import ProxyError
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.vocabulary import CacheStatus, Reason

log = logging.getLogger(__name__)


class WholeAnswers:
    """One key for an answer in both forms; one for each form once it is known that neither can be made of the other."""

    def __init__(
        self, exchange: Exchange, request: CacheableRequest, services: ProxyServices, *, is_kept: bool
    ) -> None:
        """``exchange`` is only read. If the answer is not kept there is no key."""
        self._exchange = exchange
        self._request = request
        self._services = services
        self._key: bytes | None = None
        if is_kept:
            scope, namespace = exchange.caller.scope, request.directives.namespace
            self._key = key_of(request.endpoint.name, exchange.identity, scope, namespace, request.digest)
        #: whether the key is that of one form, since what the request's key finds serves the other form only
        self._own = False
        self._since = services.cache.position()
        #: what may answer if the upstream fails
        self._stale: Entry | None = None
        self._peeked: Entry | None = None

    @property
    def key(self) -> str:
        """Of what the request is looked up and kept under, "" if nothing is kept."""
        return "" if self._key is None else self._key.hex()

    async def look_up(self) -> LookUp:
        """What the tiers have."""
        found = None if self._key is None else await self._services.cache.find(self._key)
        if found is not None and not self._own and not serves(self._request, found[0]):
            self._use_own_key()
            return await self.look_up()
        if found is None or not serves(self._request, found[0]):
            return self._miss(self._exchange.reason or Reason.ABSENT)
        entry, reason = found
        match freshness(entry, self._request.directives, time.time()):
            case Freshness.FRESH:
                return await self.give(entry, CacheStatus.HIT, reason)
            case Freshness.STALE:
                return await self.give(entry, CacheStatus.STALE, reason)
            case Freshness.IF_ERROR:
                self._stale = entry
            case Freshness.NO:
                pass
        return self._miss(Reason.EXPIRED)

    async def again(self, verdict: Verdict) -> LookUp:
        """The answer in this caller's own form, after one in the other form was of no use."""
        self._use_own_key()
        return await self.look_up() if verdict.look_up else self._miss(self._exchange.reason or Reason.ABSENT)

    def plan(self, *, shared: bool) -> Plan:
        """What a flight is to do. ``shared``: whether others may join it."""
        self._peeked = None if self._key is None else self._services.cache.peek(self._key)
        if self._peeked is not None and not serves(self._request, self._peeked):
            self._use_own_key()
            self._peeked = None if self._key is None else self._services.cache.peek(self._key)
        return self._plan(self._key if shared and self._request.directives.single_flight else None)

    def own_plan(self) -> Plan:
        """The same for this caller's form alone."""
        self._use_own_key()
        return self._plan(None)

    def late_entry(self) -> Entry | None:
        """What has been stored since the look-up, as seen when the plan was made."""
        entry = self._peeked
        if entry is None or not serves(self._request, entry):
            return None
        return entry if freshness(entry, self._request.directives, time.time()) is Freshness.FRESH else None

    async def give(self, entry: Entry, cache: CacheStatus = CacheStatus.HIT, reason: Reason = Reason.MEMORY) -> LookUp:
        """A stored answer in this caller's rendering. A miss for one that cannot be given: an earlier version may have
        stored it."""
        exchange, settings = self._exchange, self._services.settings
        try:
            answer = await offload(
                entry.size, replay, exchange, self._request, entry, settings, time.time(), cache, reason
            )
        except Exception as error:  # noqa: BLE001 - a fault of what is stored is never the client's
            log.warning("a stored answer cannot be given, and is fetched anew: %r", error)
            return LookUp(None, CacheStatus.MISS, Reason.ABSENT)
        return LookUp(answer, cache, reason)

    async def follow(
        self,
        flight: Flight[BroadcastBuffer[Outcome]],
        client: Client,
        lead_own: Callable[[], Flight[BroadcastBuffer[Outcome]]],
    ) -> Answer | Failed | TryAgain:
        """What becomes of a flight for this caller. ``lead_own`` begins one for its form alone."""
        own = None if self._own else lead_own
        return await follow(self._exchange, self._request, flight, client, self._services.settings, own)

    async def spare(self, error: ProxyError) -> LookUp | None:
        """An answer past its lifetime in place of an error of the upstream's."""
        entry = self._stale
        if entry is None or error.http_status < 500 or not self._services.cache.still_holds(entry, self._since):
            return None
        return await self.give(entry, CacheStatus.STALE, Reason.UPSTREAM_DOWN)

    def _plan(self, flight_key: bytes | None) -> Plan:
        exchange = self._exchange
        return Plan(self._request, None, self._key, exchange.caller.scope, exchange.identity, flight_key, own=self._own)

    def _use_own_key(self) -> None:
        if not self._own:
            self._own = True
            self._key = None if self._key is None else own_form(self._key, self._request.parsed.stream)

    def _miss(self, reason: Reason) -> LookUp:
        return LookUp(None, self._exchange.cache or CacheStatus.MISS, reason)
