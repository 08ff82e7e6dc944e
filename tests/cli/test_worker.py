"""``llmproxy worker``: a process of its own that does what a server without workers was given."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from llmproxy.database.engine import open_database
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from tests.admin.jobs.submitting import operator, over, submit, until
from tests.cli.program import Program
from tests.conftest import MakeProxy
from tests.databases import sqlite_url
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy, environment
from tests.timeouts import WAIT_SECONDS

Child = subprocess.Popen[str]


@contextmanager
def working(server: Proxy, upstream: ScriptedUpstream, *arguments: str, **settings: object) -> Iterator[Child]:
    """A worker on the server's database."""
    where = ["--upstream", upstream.url, "--database", str(server.database), "--log-format", "text"]
    with subprocess.Popen(
        [sys.executable, "-m", "llmproxy", "worker", *where, *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=server.database.parent,
        env=environment(**settings),
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def holders(server: Proxy) -> set[str]:
    """The workers that hold leases."""

    async def work() -> set[str]:
        async with open_database(sqlite_url(server.database)) as database:
            return await Queue(Store(database), JobNotifications()).workers()

    return asyncio.run(work())


def finished(server: Proxy, id: str) -> dict[str, object]:
    async def work() -> dict[str, object]:
        async with operator(server) as client:
            return await until(client, id, over)

    return asyncio.run(work())


def test_a_worker_does_what_a_server_accepted(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server = proxy(upstream.url, task_queue_workers=0)
    id = asyncio.run(submit(server, *(marker() for _ in range(20))))
    # one set of settings is shared by both: the flag is for the worker
    with working(server, upstream, "--workers", "2", task_queue_workers=0) as worker:
        assert finished(server, id)["status"] == "completed"
        worker.terminate()
        _, said = worker.communicate(timeout=WAIT_SECONDS)
    assert worker.returncode == 0
    opening = said.splitlines()[:2]
    assert opening[0].startswith("llmproxy ")
    assert upstream.url in opening[0]
    assert opening[1] == f"working on the jobs of {server.database}, 2 calls at once"
    assert "Traceback" not in said


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_stopped_gives_back_what_it_has_begun(
    upstream: ScriptedUpstream, proxy: MakeProxy, how: signal.Signals
) -> None:
    server, prompt = proxy(upstream.url, task_queue_workers=0), marker()
    gate = upstream.gate()
    id = asyncio.run(submit(server, f"{prompt}[script:gate={gate.name}]", marker(), marker()))
    with working(server, upstream) as worker:
        visit = upstream.journal.wait(prompt)
        assert holders(server)
        worker.send_signal(how)
        _, said = worker.communicate(timeout=WAIT_SECONDS)
        assert worker.returncode == 0
        assert "stopping: calls in work go back to the queue" in said
    visit.left.wait()
    assert holders(server) == set()
    gate.open()
    with working(server, upstream) as worker:
        job = finished(server, id)
        worker.terminate()
        worker.communicate(timeout=WAIT_SECONDS)
    assert (job["status"], job["attempts"]) == ("completed", 3)
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "setting", "words"),
    [
        (["--workers", "0"], None, "--workers N"),
        ([], ("TASK_QUEUE_WORKERS", "0"), "--workers N"),
        ([], ("LLMPROXY_JOBS", "false"), "LLMPROXY_JOBS"),
    ],
)
def test_a_worker_that_has_nothing_to_do_says_why(
    llmproxy: Program,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    setting: tuple[str, str] | None,
    words: str,
) -> None:
    if setting is not None:
        monkeypatch.setenv(*setting)
    outcome = llmproxy("worker", *arguments)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert words in outcome.err


def test_a_worker_shows_its_metrics_where_a_port_is_set(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server = proxy(upstream.url, task_queue_workers=0)
    with working(server, upstream, worker_metrics_port=0) as worker:
        assert worker.stderr is not None
        page = next(line.split()[-1] for line in worker.stderr if line.startswith("metrics on "))
        finished(server, asyncio.run(submit(server, marker())))
        with httpx.Client(trust_env=False) as client:
            metrics = client.get(page)
            assert client.get(page.replace("/metrics", "/health")).json()["status"] == "ok"
            assert client.get(page.replace("/metrics", "/other")).status_code == 404
        worker.terminate()
        _, said = worker.communicate(timeout=WAIT_SECONDS)
    assert 'llmproxy_job_tries_total{kind="task",outcome="completed",step="call"} 1.0' in metrics.text
    assert worker.returncode == 0
    assert "server process" not in said
    assert "Traceback" not in said
