import asyncio
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmproxy.observe import metrics as module
from llmproxy.observe.metrics import CONTENT_TYPE, Metrics
from llmproxy.wire.exchange import Usage
from llmproxy.wire.vocabulary import FETCHED, SAVED, CacheStatus
from tests.observe.exchanges import hit, miss

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def samples(metrics: Metrics) -> Samples:
    text = (await metrics.exposition()).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"llmproxy_{name}", frozenset(labels.items())))


async def test_a_hit() -> None:
    metrics = Metrics("1.2.3")
    metrics.count([hit()])
    found = await samples(metrics)
    labels = {"endpoint": "chat", "model": "smollm2", "cache": "hit", "reason": "memory", "status": "200"}
    assert of(found, "requests_total", **labels) == 1
    assert of(found, "request_duration_seconds_count", endpoint="chat", cache="hit") == 1
    assert of(found, "request_duration_seconds_sum", endpoint="chat", cache="hit") == pytest.approx(0.002)
    assert of(found, "time_to_first_token_seconds_sum", endpoint="chat", cache="hit") == pytest.approx(0.001)
    # the upstream had no share in it, whatever its answer had taken once
    assert of(found, "overhead_seconds_sum", endpoint="chat") == pytest.approx(0.002)
    assert of(found, "phase_seconds_sum", phase="key") == pytest.approx(0.0005)
    assert of(found, "saved_generation_seconds_total") == 4.0
    assert of(found, "saved_tokens_total", type="prompt") == 12
    assert of(found, "saved_tokens_total", type="completion") == 34
    assert of(found, "upstream_tokens_total", type="prompt") is None
    assert of(found, "coalesced_requests_total") == 0


async def test_a_miss() -> None:
    metrics = Metrics("1.2.3")
    metrics.count([miss()])
    found = await samples(metrics)
    assert of(found, "overhead_seconds_sum", endpoint="chat") == pytest.approx(0.5)
    assert of(found, "saved_generation_seconds_total") == 0
    assert of(found, "upstream_tokens_total", type="completion") == 34


async def test_a_joined_request_is_saved_and_its_overhead_unknown() -> None:
    metrics = Metrics("1.2.3")
    metrics.count([miss(cache=CacheStatus.JOINED)])
    found = await samples(metrics)
    assert of(found, "coalesced_requests_total") == 1
    assert of(found, "saved_generation_seconds_total") == 4.0
    assert of(found, "overhead_seconds_count", endpoint="chat") is None


async def test_what_is_not_known_is_not_counted() -> None:
    metrics = Metrics("1.2.3")
    unknown = {"usage": Usage(), "upstream_seconds": None, "first_byte": None}
    metrics.count([miss(**unknown), hit(cache=None, reason=None, model="", **unknown)])
    found = await samples(metrics)
    labels = {"endpoint": "chat", "model": "none", "cache": "none", "reason": "none", "status": "200"}
    assert of(found, "requests_total", **labels) == 1
    assert of(found, "time_to_first_token_seconds_count", endpoint="chat", cache="miss") is None
    assert of(found, "overhead_seconds_count", endpoint="chat") == 1
    assert of(found, "upstream_tokens_total", type="prompt") is None


async def test_an_upstream_that_claims_more_time_than_there_was() -> None:
    metrics = Metrics("1.2.3")
    metrics.count([miss(upstream_seconds=100.0)])
    assert of(await samples(metrics), "overhead_seconds_sum", endpoint="chat") == 0.0


async def test_many_hits_at_once_are_what_they_are_one_by_one() -> None:
    durations = [0.00005, 0.0003, 0.002, 0.002]
    at_once, one_by_one = Metrics("1.2.3"), Metrics("1.2.3")
    at_once.count_many(hit(), durations)
    one_by_one.count([hit(started=0.0, first_byte=spent, finished=spent, phases={}) for spent in durations])
    ours = {key: value for key, value in (await samples(at_once)).items() if key[0].startswith("llmproxy")}
    expected = {key: value for key, value in (await samples(one_by_one)).items() if key[0].startswith("llmproxy")}
    assert ours == pytest.approx(expected)


async def test_models_are_bounded_and_must_be_proven() -> None:
    metrics = Metrics("1.2.3", models=1)
    metrics.count([hit(model="typo", status=404), hit(model="a"), hit(model="b"), hit(model="a", status=500)])
    found = await samples(metrics)
    models = {dict(labels)["model"] for name, labels in found if name == "llmproxy_requests_total"}
    assert models == {"a", "other"}


async def test_pulled_values_are_refreshed_at_each_scrape() -> None:
    metrics = Metrics("1.2.3")
    scrapes = 0

    async def refresh() -> None:
        nonlocal scrapes
        scrapes += 1
        metrics.set_tier("memory", entries=scrapes, bytes=100, evictions={"size": scrapes * 2})
        metrics.set_history(rows=5, lost=1)
        metrics.set_database(size=4096)
        metrics.set_reclaimed(100)
        metrics.set_in_flight({"chat": 3})
        metrics.set_upstreams({f"http://host-{scrapes}": True})

    metrics.refresh_at_scrape("tiers", refresh)
    await metrics.exposition()
    found = await samples(metrics)
    assert of(found, "cache_entries", tier="memory") == 2
    assert of(found, "cache_bytes", tier="memory") == 100
    assert of(found, "cache_evictions_total", tier="memory", reason="size") == 4
    assert (of(found, "history_rows_total"), of(found, "history_lost_total")) == (5, 1)
    assert (of(found, "database_bytes"), of(found, "database_reclaimed_bytes_total")) == (4096, 100)
    assert of(found, "requests_in_flight", endpoint="chat") == 3
    assert of(found, "upstream_up", upstream="http://host-1") is None
    assert of(found, "upstream_up", upstream="http://host-2") == 1


async def test_a_refresh_that_fails_or_hangs_hides_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "REFRESH_LIMIT", 0.01)
    metrics = Metrics("1.2.3")

    async def fails() -> None:
        raise RuntimeError("no")

    async def hangs() -> None:
        await asyncio.Event().wait()

    async def works() -> None:
        metrics.set_in_flight({"chat": 1})

    for part, refresh in (("fails", fails), ("hangs", hangs), ("works", works)):
        metrics.refresh_at_scrape(part, refresh)
    await metrics.exposition()
    found = await samples(metrics)
    assert of(found, "requests_in_flight", endpoint="chat") == 1
    assert of(found, "observe_faults_total", part="fails") == 2
    assert of(found, "observe_faults_total", part="hangs") == 2
    assert len(caplog.records) == 2


async def test_faults_are_counted_by_kind() -> None:
    metrics = Metrics("1.2.3")
    metrics.upstream_failed("timeout")
    metrics.store_failed("sql", "full")
    metrics.observing_failed("history")
    found = await samples(metrics)
    assert of(found, "upstream_errors_total", kind="timeout") == 1
    assert of(found, "store_faults_total", tier="sql", kind="full") == 1
    assert of(found, "observe_faults_total", part="history") == 1


async def test_the_page_says_what_runs() -> None:
    text = (await Metrics("1.2.3").exposition()).decode()
    assert re.search(r'^llmproxy_build_info\{python="3\.[^"]+",version="1\.2\.3"\} 1\.0$', text, re.MULTILINE)
    assert "process_resident_memory_bytes" in text
    assert "_created" not in text
    assert CONTENT_TYPE.startswith("text/plain; version=")


async def test_two_apps_do_not_share_metrics() -> None:
    one, other = Metrics("1"), Metrics("1")
    one.store_failed("sql", "full")
    assert of(await samples(other), "store_faults_total", tier="sql", kind="full") is None


def test_the_words_are_the_vocabularys() -> None:
    assert set(CacheStatus) == SAVED | FETCHED | {CacheStatus.ONLY_IF_CACHED}
