"""Phase ``read``, its second half: from the bytes of a request to what is asked."""

from dataclasses import replace

from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.services import ProxyServices
from llmproxy.upstream.headers import Peer
from llmproxy.wire.directives import parse_directives
from llmproxy.wire.endpoints import Endpoint
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.vocabulary import Phase


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
    parsed, any_case = await services.memo.parsed(endpoint, raw), False
    if (stream := parsed.any_case_stream) is not None:
        any_case = services.upstreams.any_case(parsed.model, exchange.path)
        parsed = replace(parsed, stream=stream) if any_case else parsed
    exchange.model, exchange.stream = parsed.model, parsed.stream
    exchange.namespace, exchange.session = directives.namespace, directives.session or exchange.session
    exchange.user = directives.user or parsed.user or exchange.user
    exchange.query = target.partition(b"?")[2]
    exchange.request_body = raw
    exchange.recorded = True
    exchange.mark(Phase.READ)
    return CacheableRequest(endpoint, parsed, directives, raw, target, headers, peer, any_case)
