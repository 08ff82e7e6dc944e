import json
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.observe.performance import MOST_TOKENS
from llmproxy.observe.rates import NAMES, Rates
from llmproxy.wire.exchange import Usage
from llmproxy.wire.vocabulary import CacheStatus, Reason
from tests.clock import Clock
from tests.observe.exchanges import hit, miss


def test_counts_by_window() -> None:
    clock = Clock(0.0)
    rates = Rates(clock)
    rates.add([miss(), hit()])
    clock.now = 30 * 60.0
    rates.add([hit(), hit(), miss(cache=CacheStatus.JOINED)])
    clock.now = 61 * 60.0
    rates.add([hit(cache=CacheStatus.BYPASS), hit(cache=CacheStatus.STALE)])
    snapshot = rates.snapshot()
    start = {"hits": 3, "stale": 1, "misses": 1, "joins": 1, "bypasses": 1, "hit_rate": 4 / 6}
    hour = {"hits": 2, "stale": 1, "misses": 0, "joins": 1, "bypasses": 1, "hit_rate": 3 / 4}
    now = {"hits": 0, "stale": 1, "misses": 0, "joins": 0, "bypasses": 1, "hit_rate": 1.0}
    assert (snapshot["since_start"], snapshot["last_60_minutes"], snapshot["last_5_minutes"]) == (start, hour, now)


def test_saved_is_what_the_answers_had_cost() -> None:
    rates = Rates()
    rates.add([miss(), hit(), hit(upstream_seconds=None, usage=Usage())])
    rates.add_many(hit(), 10)
    assert rates.snapshot()["saved"] == {"upstream_seconds": 44.0, "prompt_tokens": 132, "completion_tokens": 374}


def test_what_an_upstream_claims_is_not_believed() -> None:
    rates = Rates()
    rates.add([hit(usage=Usage(2**64 - 1, -5))] * 3)
    assert json.loads(orjson.dumps(rates.snapshot()))["saved"]["prompt_tokens"] == 3 * MOST_TOKENS
    assert rates.snapshot()["saved"]["completion_tokens"] == 0


def test_nothing_looked_up_has_no_hit_rate() -> None:
    rates = Rates()
    rates.add([hit(cache=CacheStatus.BYPASS), hit(cache=None)])
    assert rates.snapshot()["since_start"]["hit_rate"] is None


def test_every_word_has_a_name() -> None:
    assert NAMES.keys() == set(CacheStatus)


@given(st.lists(st.tuples(st.integers(0, 4000), st.sampled_from(CacheStatus)), max_size=30))
@settings(max_examples=100, deadline=None)
def test_windows_are_those_of_a_plain_count(steps: list[tuple[int, CacheStatus]]) -> None:
    clock = Clock(0.0)
    rates = Rates(clock)
    seen: list[tuple[int, CacheStatus]] = []
    for step, cache in steps:
        clock.now += step
        seen.append((int(clock.now // 60), cache))
        rates.add([hit(cache=cache)])
    newest = int(clock.now // 60)

    def expected(minutes: int) -> dict[str, Any]:
        return {
            name: sum(minute > newest - minutes and c == word for minute, c in seen) for word, name in NAMES.items()
        }

    snapshot = rates.snapshot()
    for minutes in (5, 60):
        assert snapshot[f"last_{minutes}_minutes"].items() >= expected(minutes).items()


def test_hits_are_told_apart_by_tier() -> None:
    rates = Rates(Clock(0.0))
    rates.add([hit(), miss()])
    rates.add_many(hit(reason=Reason.SQL), 3)
    assert (rates.hits_by("memory"), rates.hits_by("sql"), rates.hits_by("other")) == (1, 3, 0)
