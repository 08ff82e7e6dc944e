"""The requests in work: their number by endpoint, and the limits on it."""

from collections import Counter

from llmproxy.config.settings import Settings
from llmproxy.wire.errors import TooMany
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.headers import retry_after

_RETRY = (retry_after(1),)


class InFlight:
    """The requests in work, to be counted by endpoint."""

    def __init__(self) -> None:
        self._by_id: dict[int, Exchange] = {}
        #: every endpoint that ever had one, so that an idle one is shown as 0
        self._seen: set[str] = set()

    def enter(self, exchange: Exchange) -> None:
        self._by_id[id(exchange)] = exchange

    def leave(self, exchange: Exchange) -> None:
        self._seen.add(exchange.endpoint)
        del self._by_id[id(exchange)]

    def __len__(self) -> int:
        return len(self._by_id)

    def by_endpoint(self) -> dict[str, int]:
        now = Counter(exchange.endpoint for exchange in self._by_id.values())
        return dict.fromkeys(self._seen, 0) | now


class RequestLimits:
    """Bounds the requests in work, in all and for each caller."""

    def __init__(self, settings: Settings) -> None:
        self._most = settings.max_in_flight
        #: 0 for no limit
        self._most_each = settings.max_in_flight_per_caller
        self._total = 0
        self._each: dict[str, int] = {}

    def enter(self, caller: str) -> None:
        """Counts a request that ``leave`` must end. Raises ``TooMany``, and counts nothing then."""
        if self._total >= self._most:
            raise TooMany(f"{self._most} requests are in work already (LLMPROXY_MAX_IN_FLIGHT).", headers=_RETRY)
        if self._most_each:
            count = self._each.get(caller, 0)
            if count >= self._most_each:
                raise TooMany(
                    f"This caller has {self._most_each} requests in work already (LLMPROXY_MAX_IN_FLIGHT_PER_CALLER).",
                    headers=_RETRY,
                )
            self._each[caller] = count + 1
        self._total += 1

    def leave(self, caller: str) -> None:
        self._total -= 1
        if self._most_each:
            self._each[caller] -= 1
            if not self._each[caller]:
                del self._each[caller]
