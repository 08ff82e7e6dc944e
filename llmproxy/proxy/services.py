"""What the life of a request needs, put together once by ``app``."""

from collections.abc import Callable
from dataclasses import dataclass

from llmproxy.cache.raw_requests import RawRequestIndex
from llmproxy.cache.single_flight import Flights
from llmproxy.cache.tiers import Cache
from llmproxy.config.settings import Settings
from llmproxy.proxy.broadcast import BroadcastBuffer
from llmproxy.proxy.confirmations import Confirmations
from llmproxy.proxy.credential_memory import AcceptedCredentials
from llmproxy.proxy.request import BodyMemo, CacheableRequest
from llmproxy.proxy.response import Outcome
from llmproxy.upstream.target import Target
from llmproxy.upstream.upstreams import Upstreams
from llmproxy.wire.exchange import Exchange, Tracer


@dataclass(frozen=True, slots=True)
class ProxyServices:
    settings: Settings
    cache: Cache
    upstreams: Upstreams
    flights: Flights[BroadcastBuffer[Outcome]]
    memo: BodyMemo
    hot: RawRequestIndex
    accepted: AcceptedCredentials
    confirmations: Confirmations
    #: told of every failed upstream call, by reason
    upstream_failed: Callable[[str], None]
    #: begins a request's part in a distributed trace, None while nobody traces
    tracer: Tracer | None = None

    def is_accepted(self, exchange: Exchange, request: CacheableRequest) -> bool:
        """Whether the caller may be given what others' requests brought."""
        credential = exchange.caller.credential
        if not credential:
            return True
        takes = {target.name: self.upstreams.takes(target, credential) for target in self.targets(request)}
        return self.accepted.is_accepted(credential, takes)

    def targets(self, request: CacheableRequest) -> list[Target]:
        """The servers whose answers the request may be given."""
        return self.upstreams.with_model(request.parsed.model, request.path) or self.upstreams.targets_for(request.path)
