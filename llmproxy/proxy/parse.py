"""Phase ``read``, its second half: from the bytes of a request to what is asked."""

from dataclasses import replace

from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.services import ProxyServices
from llmproxy.upstream.headers import Peer
from llmproxy.wire.directives import directives
from llmproxy.wire.endpoints import Endpoint
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.vocabulary import Phase


async def understand(
    exchange: Exchange,
    endpoint: Endpoint,
    raw: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    peer: Peer,
    rooms: ProxyServices,
) -> CacheableRequest:
    """Notes in the exchange what is known from now on. ``raw`` is the body, ``headers`` have lower-case names.

    Raises ``BadRequest``; what is refused here leaves no trace in the history.
    """
    exchange.endpoint = endpoint.name
    wishes = directives(headers)
    draft, any_case = await rooms.memo.draft(endpoint, raw), False
    if (stream := draft.any_case_stream) is not None:
        any_case = rooms.upstreams.any_case(draft.model, exchange.path)
        draft = replace(draft, stream=stream) if any_case else draft
    exchange.model, exchange.stream = draft.model, draft.stream
    exchange.namespace, exchange.session = wishes.namespace, wishes.session or exchange.session
    exchange.user = wishes.user or draft.user or exchange.user
    exchange.query = target.partition(b"?")[2]
    exchange.request_body = raw
    exchange.recorded = True
    exchange.mark(Phase.READ)
    return CacheableRequest(endpoint, draft, wishes, raw, target, headers, peer, any_case)
