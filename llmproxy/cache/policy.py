"""Decides whether a request may be answered from the cache and its answer kept, with a reason. Pure."""

from enum import Enum

from llmproxy.cache.entry import Entry
from llmproxy.config.settings import CachePolicy
from llmproxy.wire.cache_headers import Directives
from llmproxy.wire.records import record
from llmproxy.wire.vocabulary import Reason


@record
class RequestTraits:
    """What the policy needs to know of a request body."""

    #: temperature 0, or an explicit seed
    deterministic: bool = False
    #: asks for what must happen every time
    side_effect: bool = False
    #: asks for vectors in a form that is passed on, and not kept
    other_numbers: bool = False


@record
class Verdict:
    """Whether to look the request up and whether to keep its answer. ``reason`` is set where not both."""

    look_up: bool
    keep: bool
    reason: Reason | None = None


_CACHED = Verdict(look_up=True, keep=True)


def admit(policy: CachePolicy, traits: RequestTraits, directives: Directives) -> Verdict:
    """The first reason that applies decides."""
    if directives.no_store:
        return Verdict(look_up=False, keep=False, reason=Reason.NO_STORE)
    if policy is CachePolicy.OFF:
        return Verdict(look_up=False, keep=False, reason=Reason.POLICY_OFF)
    if traits.side_effect:
        return Verdict(look_up=False, keep=False, reason=Reason.SIDE_EFFECT)
    if traits.other_numbers:
        return Verdict(look_up=False, keep=False, reason=Reason.NOT_FLOAT32)
    if policy is CachePolicy.DETERMINISTIC and not traits.deterministic:
        return Verdict(look_up=False, keep=False, reason=Reason.NOT_DETERMINISTIC)
    if policy is CachePolicy.OPT_IN and not directives.opts_in:
        return Verdict(look_up=False, keep=False, reason=Reason.NOT_OPTED_IN)
    if directives.no_cache:
        return Verdict(look_up=False, keep=True, reason=Reason.NO_CACHE)
    return _CACHED


class Freshness(Enum):
    """Whether an entry may answer a request now."""

    FRESH = "fresh"
    #: past its lifetime, within the request's ``max-stale``
    STALE = "stale"
    #: only if the upstream fails (``stale-if-error``)
    IF_ERROR = "if-error"
    NO = "no"


def freshness(entry: Entry, directives: Directives, now: float) -> Freshness:
    """RFC 9111 section 5.2.1 and RFC 5861 section 4. ``now`` in Unix seconds."""
    age = now - entry.created
    left = entry.expires - now
    if directives.min_fresh is not None and left < directives.min_fresh:
        pass
    elif directives.max_age is not None and age > directives.max_age and directives.max_stale is None:
        pass
    elif left > 0:
        return Freshness.FRESH
    elif directives.max_stale is not None and -left <= directives.max_stale:
        return Freshness.STALE
    if directives.stale_if_error is not None and -left <= directives.stale_if_error:
        return Freshness.IF_ERROR
    return Freshness.NO
