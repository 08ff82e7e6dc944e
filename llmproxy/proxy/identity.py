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
    exchange: Exchange, asked: CacheableRequest, verdict: Verdict, rooms: ProxyServices
) -> tuple[CacheableRequest, Verdict]:
    """The request with its model's identity, and the verdict that follows from it.

    An answer to the very same request that ended just now is waited for first: with it, what stands behind the name may
    be known better.
    """
    if verdict.look_up:
        await rooms.confirmations.wait((question_key(asked, exchange.caller.scope),))
    model = asked.draft.model
    if asked.any_case:
        return asked, Verdict(look_up=False, keep=False, reason=Reason.FIELD_CASE)
    shown = credentials(asked.headers, rooms.settings)
    identity = await rooms.upstreams.identify(model, asked.path, shown)
    if identity is None:
        return asked, Verdict(look_up=False, keep=False, reason=Reason.IDENTITY_UNKNOWN)
    exchange.identity = identity
    return replace(asked, identity=identity), verdict


def question_key(asked: CacheableRequest, scope: str) -> bytes:
    """The same for the same request, whatever stands behind the model's name."""
    return key_of(asked.endpoint.name, "", scope, asked.wishes.namespace, asked.digest)
