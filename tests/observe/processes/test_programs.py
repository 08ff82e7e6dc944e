"""Servers and workers as processes of their own, which share a folder: what one server's ``/metrics`` says of all."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmproxy.config.settings import Settings
from tests.conftest import MakeProxy
from tests.jobs.crash.processes import Process
from tests.jobs.operator.submitting import operator, over, submit, until
from tests.scripted import CHAT, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import PATIENCE, Proxy

#: of an in-memory tier, which each process has to itself
MEMORY = Settings.model_fields["cache_max_bytes"].default
DISK = Settings.model_fields["cache_disk_bytes"].default
RESIDENT: tuple[str, frozenset[tuple[str, str]]] = ("process_resident_memory_bytes", frozenset())
MISS = ("cache", "miss")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "metrics"


def scrape(server: Proxy) -> Samples:
    answer = httpx.get(f"{server.url}/metrics", trust_env=False, timeout=PATIENCE)
    assert answer.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def of(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"llmproxy_{name}", frozenset(labels.items())))


def eventually(server: Proxy, holds: Callable[[Samples], bool]) -> Samples:
    """The page of which it is true; others write once a second."""
    deadline = time.monotonic() + PATIENCE
    while not holds(found := scrape(server)):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def worker(server: Proxy, upstream: ScriptedUpstream, folder: Path, name: str = "worker") -> Process:
    return Process(
        "worker",
        upstream.url,
        str(server.database),
        folder.parent / f"{name}.log",
        *("--workers", "2"),
        log_format="text",
        prometheus_multiproc_dir=folder,
    )


def work(server: Proxy, number: int) -> None:
    """Has a job with so many calls done, by whoever does jobs."""

    async def done() -> None:
        id = await submit(server, *(marker() for _ in range(number)))
        async with operator(server) as client:
            assert (await until(client, id, over))["status"] == "completed"

    asyncio.run(done())


def memory(found: Samples) -> float | None:
    """What the memory tiers of those that live may hold together."""
    return of(found, "cache_limit_bytes", tier="memory")


def tries(found: Samples) -> float | None:
    return of(found, "job_tries_total", kind="task", step="call", outcome="completed")


def test_a_server_shows_what_its_worker_does(upstream: ScriptedUpstream, proxy: MakeProxy, folder: Path) -> None:
    server = proxy(upstream.url, task_queue_workers=0, prometheus_multiproc_dir=folder)
    alone = eventually(server, lambda found: memory(found) == MEMORY)
    assert tries(alone) is None
    with worker(server, upstream, folder) as first:
        work(server, 20)
        first.stop()
        # what it counted in its last second is there, too, and nothing else is left of it
        found = scrape(server)
        assert tries(found) == 20
        tokens = of(found, "upstream_tokens_total", type="completion")
        assert tokens is not None
        assert tokens >= 20
        assert memory(found) == MEMORY
    with worker(server, upstream, folder, "second") as second:
        work(server, 5)
        found = eventually(server, lambda found: memory(found) == 2 * MEMORY)
        assert of(found, "cache_limit_bytes", tier="sql") == DISK
        assert of(found, "job_items", status="waiting") == 0
        eventually(server, lambda found: of(found, "cache_entries", tier="sql") == 25)
        database_bytes, both = of(found, "database_bytes"), found[RESIDENT]
        assert database_bytes is not None
        assert 0 < database_bytes <= sum(file.stat().st_size for file in server.database.parent.iterdir())
        eventually(server, lambda found: tries(found) == 25)
        second.kill()
        found = scrape(server)
        assert tries(found) == 25
        assert memory(found) == MEMORY
        assert 0 < found[RESIDENT] < both
    # the second worker had the place of the first
    assert sorted(file.name for file in folder.glob("*.lock")) == ["llmproxy-0.lock", "llmproxy-1.lock"]


def misses(found: Samples) -> float:
    return sum(value for (name, labels), value in found.items() if name == "llmproxy_requests_total" and MISS in labels)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def test_requests_in_flight_of_three_servers_are_three(
    upstream: ScriptedUpstream, proxy: MakeProxy, folder: Path, threads: ThreadPoolExecutor
) -> None:
    servers = [proxy(upstream.url, prometheus_multiproc_dir=folder) for _ in range(3)]
    gate = upstream.gate()

    def ask(server: Proxy) -> int:
        body = CHAT.request(f"{marker()}[script:gate={gate.name}]")
        return httpx.post(server.url + CHAT.path, json=body, trust_env=False, timeout=PATIENCE).status_code

    answers = [threads.submit(ask, server) for server in servers]
    try:
        for server in servers:
            found = eventually(server, lambda found: of(found, "requests_in_flight", endpoint="chat") == 3)
            # each of them reaches it
            assert of(found, "upstream_up", upstream=upstream.url) == 1
    finally:
        gate.open()
    assert [answer.result() for answer in answers] == [200, 200, 200]
    found = eventually(servers[0], lambda found: misses(found) == 3)
    eventually(servers[0], lambda found: of(found, "requests_in_flight", endpoint="chat") == 0)
    servers[2].kill()
    found = scrape(servers[0])
    assert memory(found) == 2 * MEMORY
    assert misses(found) == 3


def test_no_folder_can_be_made_and_requests_are_answered(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server = proxy(upstream.url, prometheus_multiproc_dir="/dev/null/metrics")
    body = CHAT.request(marker())
    assert httpx.post(server.url + CHAT.path, json=body, trust_env=False, timeout=PATIENCE).status_code == 200
    found = scrape(server)
    assert (of(found, "observe_faults_total", part="processes") or 0) >= 1
    assert server.log.count("/dev/null/metrics: ") == 1
