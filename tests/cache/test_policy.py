"""Look up or bypass, keep or not, fresh or stale: the table."""

import pytest

from llmproxy.cache.entry import Entry
from llmproxy.cache.policy import Freshness, RequestTraits, Verdict, admit, freshness
from llmproxy.config.settings import CachePolicy
from llmproxy.wire.cache_headers import PLAIN, Directives
from llmproxy.wire.vocabulary import Reason

ANY, FIXED = RequestTraits(), RequestTraits(deterministic=True)


def bypass(reason: Reason) -> Verdict:
    return Verdict(look_up=False, keep=False, reason=reason)


CACHED = Verdict(look_up=True, keep=True)


@pytest.mark.parametrize(
    ("policy", "traits", "directives", "verdict"),
    [
        (CachePolicy.ALL, ANY, PLAIN, CACHED),
        (CachePolicy.ALL, ANY, Directives(no_store=True), bypass(Reason.NO_STORE)),
        (CachePolicy.OFF, FIXED, PLAIN, bypass(Reason.POLICY_OFF)),
        (CachePolicy.ALL, RequestTraits(side_effect=True), PLAIN, bypass(Reason.SIDE_EFFECT)),
        (CachePolicy.ALL, RequestTraits(other_numbers=True), PLAIN, bypass(Reason.NOT_FLOAT32)),
        (CachePolicy.DETERMINISTIC, ANY, PLAIN, bypass(Reason.NOT_DETERMINISTIC)),
        (CachePolicy.DETERMINISTIC, FIXED, PLAIN, CACHED),
        (CachePolicy.OPT_IN, FIXED, PLAIN, bypass(Reason.NOT_OPTED_IN)),
        (CachePolicy.OPT_IN, ANY, Directives(ttl=5), CACHED),
        (CachePolicy.OPT_IN, ANY, Directives(namespace="a"), CACHED),
        (CachePolicy.OPT_IN, ANY, Directives(tags=("a",)), CACHED),
        (CachePolicy.OPT_IN, ANY, Directives(max_age=0), CACHED),
        (CachePolicy.OPT_IN, ANY, Directives(min_fresh=0), CACHED),
        (CachePolicy.OPT_IN, ANY, Directives(max_stale=0), CACHED),
        (CachePolicy.OPT_IN, ANY, Directives(stale_if_error=5, user="u", session="s"), bypass(Reason.NOT_OPTED_IN)),
        (CachePolicy.ALL, ANY, Directives(no_cache=True), Verdict(look_up=False, keep=True, reason=Reason.NO_CACHE)),
        (CachePolicy.ALL, ANY, Directives(no_cache=True, no_store=True), bypass(Reason.NO_STORE)),
    ],
)
def test_admit(policy: CachePolicy, traits: RequestTraits, directives: Directives, verdict: Verdict) -> None:
    assert admit(policy, traits, directives) == verdict


def test_the_first_reason_that_applies_decides() -> None:
    everything = RequestTraits(side_effect=True, other_numbers=True)
    assert admit(CachePolicy.OFF, everything, Directives(no_store=True)).reason is Reason.NO_STORE
    assert admit(CachePolicy.OFF, everything, PLAIN).reason is Reason.POLICY_OFF
    assert admit(CachePolicy.DETERMINISTIC, everything, PLAIN).reason is Reason.SIDE_EFFECT
    assert admit(CachePolicy.DETERMINISTIC, RequestTraits(other_numbers=True), PLAIN).reason is Reason.NOT_FLOAT32
    no_cache = Directives(no_cache=True)
    assert admit(CachePolicy.DETERMINISTIC, ANY, no_cache).reason is Reason.NOT_DETERMINISTIC
    assert admit(CachePolicy.OPT_IN, FIXED, no_cache).reason is Reason.NOT_OPTED_IN


#: made at 1000, good until 1100
ENTRY = Entry(b"k", "chat", "m", "", "", (), created=1000, expires=1100, document=b"{}")


@pytest.mark.parametrize(
    ("now", "directives", "result"),
    [
        (1050, PLAIN, Freshness.FRESH),
        (1100, PLAIN, Freshness.NO),
        (1050, Directives(max_age=50), Freshness.FRESH),
        (1051, Directives(max_age=50), Freshness.NO),
        (1051, Directives(max_age=50, max_stale=0), Freshness.FRESH),
        (1050, Directives(min_fresh=50), Freshness.FRESH),
        (1051, Directives(min_fresh=50), Freshness.NO),
        (1110, Directives(max_stale=10), Freshness.STALE),
        (1111, Directives(max_stale=10), Freshness.NO),
        (9999, Directives(max_stale=float("inf")), Freshness.STALE),
        (1110, Directives(stale_if_error=10), Freshness.IF_ERROR),
        (1111, Directives(stale_if_error=10), Freshness.NO),
        (1051, Directives(max_age=50, stale_if_error=10), Freshness.IF_ERROR),
    ],
)
def test_freshness(now: float, directives: Directives, result: Freshness) -> None:
    assert freshness(ENTRY, directives, now) is result
