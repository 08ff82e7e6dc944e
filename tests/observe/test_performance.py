"""How requests fared: by minute, as a report, and in the windows of the cache."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.observe import performance as module
from llmproxy.observe.performance import MOST_TOKENS, NAMES, Cell, Performance, PerformanceSeries, Rates, report
from llmproxy.wire.exchange import Usage
from llmproxy.wire.vocabulary import CacheStatus, Reason
from tests.clock import Clock
from tests.observe.exchanges import hit, miss

HITS = PerformanceSeries("chat", "smollm2", "hit")
MISSES = PerformanceSeries("chat", "smollm2", "miss")


def now(performance: Performance) -> dict[PerformanceSeries, Cell]:
    return performance.since(0)


def test_a_miss_and_a_hit() -> None:
    performance = Performance()
    performance.add([miss(stream=True), hit(stream=True)])
    cells = now(performance)
    assert cells.keys() == {HITS, MISSES}
    fetched = cells[MISSES]
    assert (fetched.requests, fetched.errors) == (1, 0)
    assert (fetched.prompt_tokens, fetched.completion_tokens, fetched.upstream_seconds) == (12, 34, 4.0)
    assert fetched.durations.quantile(0.5) == pytest.approx(4.5)
    assert fetched.first_tokens.quantile(0.5) == pytest.approx(1.0)
    assert fetched.speeds.quantile(0.5) == pytest.approx(34 / 4.0)
    # the upstream did nothing for the hit
    assert cells[HITS].speeds.count == 0


def test_only_streams_have_a_first_token() -> None:
    performance = Performance()
    performance.add([miss(stream=False)])
    performance.add_many(hit(), [0.001], stream=False)
    assert [cell.first_tokens.count for cell in now(performance).values()] == [0, 0]
    performance.add_many(hit(), [0.001], stream=True)
    assert now(performance)[HITS].first_tokens.count == 1


@pytest.mark.parametrize(
    ("changes", "errors", "answered"),
    [
        ({}, 0, 1),
        ({"status": 502, "error": "no"}, 1, 0),
        ({"status": 200, "error": "it broke off"}, 1, 0),
        # the caller's own doing
        ({"status": 404, "error": "no such model"}, 0, 0),
        ({"status": 499, "error": "the client left"}, 0, 0),
    ],
)
def test_errors_are_those_of_the_proxy_and_the_upstream(changes: dict[str, Any], errors: int, answered: int) -> None:
    performance = Performance()
    performance.add([miss(**changes)])
    (cell,) = now(performance).values()
    assert (cell.requests, cell.errors, cell.durations.count) == (1, errors, answered)


def test_what_the_cache_had_no_part_in_is_left_out() -> None:
    performance = Performance()
    performance.add([hit(cache=None, reason=None, endpoint="metrics")])
    assert now(performance) == {}


def test_many_hits_at_once_are_what_they_are_one_by_one() -> None:
    durations = [0.00005, 0.0003, 0.002, 0.002]
    at_once, single = Performance(), Performance()
    at_once.add_many(hit(), durations, stream=True)
    single.add([hit(stream=True, started=0.0, first_byte=spent, finished=spent) for spent in durations])
    assert report(now(at_once), 0, 60) == report(now(single), 0, 60)


def test_what_an_upstream_claims_is_not_believed_beyond_reason() -> None:
    performance = Performance()
    performance.add([miss(usage=Usage(-5, 10**30))])
    cell = now(performance)[MISSES]
    assert (cell.prompt_tokens, cell.completion_tokens) == (0, module.MOST_TOKENS)


def test_models_are_bounded() -> None:
    performance = Performance(models=2)
    performance.add([hit(model=f"junk-{number}") for number in range(10_000)])
    assert {series.model for series in now(performance)} == {"junk-0", "junk-1", "other"}


def test_a_minute_is_taken_when_it_is_over() -> None:
    clock = Clock(120.0)
    performance = Performance(clock=clock)
    performance.add([hit()])
    assert performance.take() == {}
    clock.now = 180.0
    performance.add([miss()])
    taken = performance.take()
    assert {start: set(cells) for start, cells in taken.items()} == {120: {HITS}}
    assert set(now(performance)) == {MISSES}
    assert performance.take(current=True).keys() == {180}
    assert now(performance) == {}


def test_what_is_given_back_is_there_again() -> None:
    clock = Clock(120.0)
    performance = Performance(clock=clock)
    performance.add([hit()])
    taken = performance.take(current=True)
    performance.add([hit()])
    performance.give_back(taken)
    assert performance.since(120)[HITS].requests == 2
    assert performance.since(121) == {}


def test_of_too_much_that_waits_the_oldest_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CELLS", 2)
    clock = Clock(0.0)
    performance = Performance(clock=clock)
    for minute in range(4):
        clock.now = minute * 60.0
        performance.add([hit()])
    performance.give_back(performance.take())
    assert performance.lost == 2
    assert performance.take(current=True).keys() == {120, 180}


def test_a_copy_does_not_change_with_what_comes_after() -> None:
    performance = Performance()
    performance.add([hit()])
    copy = now(performance)
    performance.add([hit()])
    assert (copy[HITS].requests, now(performance)[HITS].requests) == (1, 2)


def test_the_report_adds_up() -> None:
    performance = Performance()
    performance.add([miss(), miss(status=502, error="no"), miss(model="other-model"), miss(cache=CacheStatus.JOINED)])
    performance.add_many(hit(), [0.002] * 6, stream=False)
    document = report(now(performance), 1000, 1100)
    assert (document["from"], document["until"], document["seconds"]) == (1000, 1100, 100)
    total = document["total"]
    assert (total["requests"], total["requests_per_second"]) == (10, 0.1)
    assert (total["errors"], total["error_rate"]) == (1, 0.1)
    assert total["hit_rate"] == 0.6
    # six hits and one that joined
    assert total["saved"] == {"upstream_seconds": 28.0, "prompt_tokens": 84, "completion_tokens": 238}
    assert [(each["model"], each["requests"]) for each in document["models"]] == [("smollm2", 9), ("other-model", 1)]
    assert {word: each["requests"] for word, each in total["by_cache"].items()} == {"hit": 6, "joined": 1, "miss": 3}
    assert total["by_cache"]["hit"]["duration_seconds"]["p95"] == 0.002


def test_a_report_of_nothing() -> None:
    total = report({}, 0, 60)["total"]
    assert (total["requests"], total["hit_rate"], total["error_rate"], total["duration_seconds"]) == (
        0,
        None,
        None,
        None,
    )


def test_counts_by_window() -> None:
    clock = Clock(0.0)
    rates = Rates(clock)
    rates.add([miss(), hit()])
    clock.now = 30 * 60.0
    rates.add([hit(), hit(), miss(cache=CacheStatus.JOINED)])
    clock.now = 61 * 60.0
    rates.add([hit(cache=CacheStatus.BYPASS), hit(cache=CacheStatus.STALE)])
    snapshot = rates.snapshot()
    start = {"hits": 3, "stale": 1, "misses": 1, "joins": 1, "bypasses": 1, "only_if_cached": 0, "hit_rate": 4 / 6}
    hour = {"hits": 2, "stale": 1, "misses": 0, "joins": 1, "bypasses": 1, "only_if_cached": 0, "hit_rate": 3 / 4}
    now = {"hits": 0, "stale": 1, "misses": 0, "joins": 0, "bypasses": 1, "only_if_cached": 0, "hit_rate": 1.0}
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
    rates = Rates(Clock())
    rates.add([hit(), miss()])
    rates.add_many(hit(reason=Reason.SQL), 3)
    assert (rates.hits_by("memory"), rates.hits_by("sql"), rates.hits_by("other")) == (1, 3, 0)
