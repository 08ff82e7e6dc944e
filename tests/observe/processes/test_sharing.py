"""What one process shows of all: several of them in this process, each with metrics of its own."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmproxy.observe.metrics import Metrics
from llmproxy.observe.processes import sharing
from llmproxy.observe.processes.sharing import PART, Processes, shown_together
from tests.observe.exchanges import hit, miss

FAULTS = "llmproxy_observe_faults_total"
TOKENS = "llmproxy_upstream_tokens_total"


@asynccontextmanager
async def sharing_metrics(folder: Path, number: int) -> AsyncIterator[list[Metrics]]:
    """Processes that write only when they are asked, and at the beginning and the end."""
    async with AsyncExitStack() as stack:
        made = [Metrics("1.2.3") for _ in range(number)]
        for metrics in made:
            processes = Processes(folder, metrics, seconds=3600)
            stack.push_async_callback(processes.close)
            await processes.open()
            metrics.show_by(processes.page)
        yield made


async def shown(metrics: Metrics, name: str, **labels: str) -> float | None:
    text = (await metrics.exposition()).decode()
    values = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    assert len(values) <= 1
    return values[0] if values else None


async def test_counts_of_all_are_added_up_and_so_are_gauges(tmp_path: Path) -> None:
    async with sharing_metrics(tmp_path, 3) as made:
        for number, metrics in enumerate(made):
            metrics.count([miss(), hit()])
            metrics.count_many(hit(), [0.001, 0.002])
            metrics.show_in_flight({"chat": number + 1})
        # each writes when it is asked
        for metrics in made:
            await metrics.exposition()
        for metrics in made:
            assert await shown(metrics, TOKENS, type="completion") == 3 * 34
            assert await shown(metrics, "llmproxy_request_duration_seconds_count", endpoint="chat", cache="hit") == 9
            assert await shown(metrics, "llmproxy_requests_in_flight", endpoint="chat") == 6


async def test_of_the_database_the_one_that_is_asked_speaks(tmp_path: Path) -> None:
    async with sharing_metrics(tmp_path, 2) as (one, other):
        for size, metrics in ((100, one), (200, other)):
            metrics.show_database(size)
            metrics.show_queue(waiting=5, running=1, oldest_seconds=2.0)
            metrics.show_limits({"memory": 10, "sql": 50}, 1000)
            metrics.show_tier("memory", entries=3, bytes=30, evictions={"size": 1})
            metrics.show_tier("sql", entries=7, bytes=70, evictions={"bytes": 2})
            await metrics.exposition()
        assert await shown(one, "llmproxy_database_bytes") == 100
        assert await shown(other, "llmproxy_database_bytes") == 200
        assert await shown(one, "llmproxy_job_items", status="waiting") == 5
        assert await shown(one, "llmproxy_database_limit_bytes") == 1000
        for name, memory, sql in (("entries", 6, 7), ("bytes", 60, 70), ("limit_bytes", 20, 50)):
            assert await shown(one, f"llmproxy_cache_{name}", tier="memory") == memory
            assert await shown(one, f"llmproxy_cache_{name}", tier="sql") == sql
        assert await shown(one, "llmproxy_cache_evictions_total", tier="sql", reason="bytes") == 4


async def test_of_the_machine_the_newest_and_of_upstreams_the_lowest_counts(tmp_path: Path) -> None:
    async with sharing_metrics(tmp_path, 2) as (one, other):
        one.show_upstreams({"http://a": True, "http://b": True})
        other.show_upstreams({"http://a": False, "http://b": True})
        one.catalogue.system_cpu.set((), 0.25)
        other.catalogue.system_cpu.set((), 0.75)
        await other.exposition()
        assert await shown(one, "llmproxy_system_cpu_ratio") == 0.25
        assert await shown(other, "llmproxy_system_cpu_ratio") == 0.75
        assert await shown(one, "llmproxy_upstream_up", upstream="http://a") == 0
        assert await shown(one, "llmproxy_upstream_up", upstream="http://b") == 1
        # one that is gone is not remembered
        other.show_upstreams({"http://b": True})
        await other.exposition()
        assert await shown(one, "llmproxy_upstream_up", upstream="http://a") == 1


async def test_what_was_counted_to_the_end_stays(tmp_path: Path) -> None:
    async with sharing_metrics(tmp_path, 1) as (one,):
        async with sharing_metrics(tmp_path, 1) as (other,):
            other.show_in_flight({"chat": 4})
            other.count([miss()])
            other.on_scrape("last", lambda: last(other), local=True)
        assert await shown(one, TOKENS, type="prompt") == 12
        assert await shown(one, "llmproxy_history_rows_total") == 9
        assert await shown(one, "llmproxy_requests_in_flight", endpoint="chat") is None
        async with sharing_metrics(tmp_path, 1) as (third,):
            third.count([miss()])
            assert await shown(third, TOKENS, type="prompt") == 24
        assert await shown(one, TOKENS, type="prompt") == 24


async def last(metrics: Metrics) -> None:
    metrics.show_history(rows=9, lost=0)


async def test_what_is_shown_is_written_first(tmp_path: Path) -> None:
    async with sharing_metrics(tmp_path, 2) as (one, other):
        other.count([miss()])
        assert await shown(one, TOKENS, type="prompt") is None
        assert await shown(other, TOKENS, type="prompt") == 12
        assert await shown(one, TOKENS, type="prompt") == 12


async def test_it_writes_by_itself(tmp_path: Path) -> None:
    processes = Processes(tmp_path, metrics := Metrics("1.2.3"), seconds=0.01)
    await processes.open()
    refreshed = asyncio.Event()

    async def refresh() -> None:
        metrics.show_history(rows=9, lost=0)
        refreshed.set()

    metrics.on_scrape("history", refresh, local=True)
    await refreshed.wait()
    async with sharing_metrics(tmp_path, 1) as (one,), asyncio.timeout(10):
        while await shown(one, "llmproxy_history_rows_total") != 9:
            pass
    await processes.close()
    await processes.close()


async def test_a_folder_that_cannot_be_costs_nothing_but_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    async with sharing_metrics(tmp_path / "file" / "metrics", 1) as (one,):
        one.count([miss()])
        assert await shown(one, TOKENS, type="prompt") == 12
        faults = await shown(one, FAULTS, part=PART)
        assert faults is not None
        assert faults >= 2
        # somebody puts it right
        (tmp_path / "file").unlink()
        async with sharing_metrics(tmp_path / "file" / "metrics", 1) as (other,):
            other.count([miss()])
            await other.exposition()
            assert await shown(one, TOKENS, type="prompt") == 24
    assert [record.getMessage().count("Not a directory") for record in caplog.records] == [1]


async def test_on_a_full_disk_no_sum_falls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with sharing_metrics(tmp_path, 2) as (one, other):
        other.count([miss()])
        await other.exposition()
        one.count([miss()])
        assert await shown(one, TOKENS, type="prompt") == 24
        (tmp_path / "counter_llmproxy-0.new").symlink_to("/dev/full")
        for total in (36, 48):
            one.count([miss()])
            assert await shown(one, TOKENS, type="prompt") == total
        assert await shown(one, FAULTS, part=PART) == 2
        assert await shown(other, TOKENS, type="prompt") == 24
        (tmp_path / "counter_llmproxy-0.new").unlink()
        assert await shown(one, TOKENS, type="prompt") == 48
        assert await shown(other, TOKENS, type="prompt") == 48
    assert [record.getMessage().count("No space left") for record in caplog.records] == [1]


async def test_a_broken_file_is_counted_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "counter_llmproxy-7.db").write_bytes(b"junk")
    async with sharing_metrics(tmp_path, 1) as (one,):
        one.count([miss()])
        assert await shown(one, TOKENS, type="prompt") == 12
        assert await shown(one, FAULTS, part=PART) == 1
    assert [record.getMessage().count("counter_llmproxy-7.db") for record in caplog.records] == [1]


async def test_a_file_system_that_hangs_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with sharing_metrics(tmp_path, 2) as (one, other):
        other.count([miss()])
        await other.exposition()
        assert await shown(one, TOKENS, type="prompt") == 12
        monkeypatch.setattr(sharing, "LIMIT", 0.05)
        # who opens it to write waits for somebody who reads
        os.mkfifo(tmp_path / "counter_llmproxy-0.new")
        one.count([miss()])
        assert await shown(one, TOKENS, type="prompt") == 24
        one.count([miss()])
        assert await shown(one, TOKENS, type="prompt") == 36
        assert await shown(one, FAULTS, part=PART) == 3
        monkeypatch.undo()
        await asyncio.to_thread((tmp_path / "counter_llmproxy-0.new").read_bytes)
        assert await shown(one, TOKENS, type="prompt") == 36
        assert await shown(other, TOKENS, type="prompt") == 36


async def test_the_process_shows_what_it_takes(tmp_path: Path) -> None:
    async with sharing_metrics(tmp_path, 2) as (one, other):
        alone = await shown(Metrics("1.2.3"), "process_resident_memory_bytes")
        assert alone is not None
        await other.exposition()
        together = await shown(one, "process_resident_memory_bytes")
        # both are this process
        assert together == pytest.approx(2 * alone, rel=0.2)
        started = await shown(Metrics("1.2.3"), "process_start_time_seconds")
        assert await shown(one, "process_start_time_seconds") == started
        assert await shown(one, "llmproxy_build_info", version="1.2.3", python=_python(other)) == 1


def _python(metrics: Metrics) -> str:
    ((_, python),) = metrics.catalogue.build.numbers()
    return python


async def test_without_a_folder_nothing_changes() -> None:
    metrics = Metrics("1.2.3")
    before = await metrics.exposition()
    async with shown_together(None, metrics):
        after = await metrics.exposition()
    assert [line.split()[0] for line in before.splitlines()] == [line.split()[0] for line in after.splitlines()]
