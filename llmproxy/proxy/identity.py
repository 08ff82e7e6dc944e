"""Phase ``key``, its first half: what stands behind the model's name, before anything is looked up under it."""

from dataclasses import replace

from llmproxy.cache.key import key_of
from llmproxy.cache.policy import Verdict
from llmproxy.proxy.request import CacheableRequest
from llmproxy.proxy.services import ProxyServices
from llmproxy.upstream.headers import credentials
from llmproxy.wire.exchange import Exchange
from llmproxy.wire.vocabulary import Reason


async def identified(
    exchange: Exchange, request: CacheableRequest, verdict: Verdict, services: ProxyServices
) -> tuple[CacheableRequest, Verdict]:
    """The request with its model's identity, and the verdict that follows from it.

    An answer to the very same request that ended just now is waited for first: with it, what stands behind the name may
    be known better.
    """
    if verdict.look_up and services.confirmations.pending:
        await services.confirmations.wait((question_key(request, exchange.caller.scope),))
    model = request.parsed.model
    if request.any_case:
        return request, Verdict(look_up=False, keep=False, reason=Reason.FIELD_CASE)
    shown = credentials(request.headers, services.settings)
    identity = await services.upstreams.identify(model, request.path, shown)
    if identity is None:
        return request, Verdict(look_up=False, keep=False, reason=Reason.IDENTITY_UNKNOWN)
    exchange.identity = identity
    return replace(request, identity=identity), verdict


def question_key(request: CacheableRequest, scope: str) -> bytes:
    """The same for the same request, whatever stands behind the model's name."""
    return key_of(request.endpoint.name, "", scope, request.directives.namespace, request.digest)
