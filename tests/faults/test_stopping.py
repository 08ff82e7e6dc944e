"""A program that is told to stop is gone within its time, whatever hangs: the database, a call, a client."""

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import MakeProxy
from tests.databases import PostgresServer
from tests.faults.outcome import ask
from tests.scripted import CHAT, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy, environment
from tests.timeouts import WAIT_SECONDS

#: far more than the time for stopping (1 s and one more), for a slow machine; far less than what hung would take
PATIENCE = 30.0


def client(proxy: Proxy) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=proxy.url, timeout=60, trust_env=False)


async def stops(proxy: Proxy) -> None:
    """Raises ``TimeoutExpired`` if it does not in time."""
    process = proxy.process
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, PATIENCE) == 0


async def test_with_a_locked_database(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, shutdown_seconds=1)
    async with client(own) as http:
        await ask(http, CHAT, CHAT.request(marker()))
        with contextlib.closing(sqlite3.connect(own.database, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            for _ in range(20):
                assert (await ask(http, CHAT, CHAT.request(marker()))).status == 200
            waiting = asyncio.create_task(http.post("/api/completions", json={"prompt": marker(), "background": True}))
            await stops(own)
            await asyncio.gather(waiting, return_exceptions=True)


async def test_what_waits_is_written_although_a_call_hangs(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    own = proxy(upstream.url, shutdown_seconds=1)
    gate, prompt = upstream.gate(), marker()
    async with client(own) as http:
        hanging = asyncio.create_task(
            ask(http, CHAT, CHAT.request(f"[script:gate={gate.name}] {marker()}", stream=True))
        )
        await gate.arrived.reached()
        await ask(http, CHAT, CHAT.request(prompt))
        await asyncio.to_thread(own.stop)
        await asyncio.gather(hanging, return_exceptions=True)
    gate.open()
    own.start()
    async with client(own) as http:
        assert (await ask(http, CHAT, CHAT.request(prompt))).cache == "HIT"


async def test_the_second_ctrl_c_cuts_off_what_the_first_waits_for(
    upstream: ScriptedUpstream, proxy: MakeProxy
) -> None:
    # far longer than the test may take: only the second signal can end it
    own = proxy(upstream.url, shutdown_seconds=600, log_format="text")
    gate, prompt = upstream.gate(), marker()
    async with client(own) as http:
        hanging = asyncio.create_task(
            ask(http, CHAT, CHAT.request(f"[script:gate={gate.name}] {marker()}"), {"x-request-id": "cut-off"})
        )
        await gate.arrived.reached()
        await ask(http, CHAT, CHAT.request(prompt), {"x-request-id": "answered"})
        own.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(WAIT_SECONDS):
            while "waits up to 598 s for one request that is in work; Ctrl-C again stops at once" not in own.log:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        own.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(own.process.wait, WAIT_SECONDS) == 0
        answer = (await asyncio.gather(hanging, return_exceptions=True))[0]
        assert getattr(answer, "status", 503) == 503
    own.stop()
    gate.open()
    assert "Traceback" not in own.log
    for text in ("uvicorn", "graceful", "running task"):
        assert text not in own.log
    # all of it was written: the entry, and both rows
    own.start()
    async with client(own) as http:
        assert (await ask(http, CHAT, CHAT.request(prompt))).cache == "HIT"
        for id, status in (("answered", 200), ("cut-off", 503)):
            assert (await http.get(f"/api/history/{id}")).json()["status"] == status


@pytest.fixture
def stopped_postgres(postgres: PostgresServer) -> Iterator[list[psutil.Process]]:
    """The server's processes, to be stopped; they go on at the end."""
    processes: list[psutil.Process] = []
    yield processes
    # those that had ended a moment before are gone as soon as their parent, the first of them, goes on
    for each in reversed(processes):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each.pid, signal.SIGCONT)


async def test_with_a_database_server_that_stands_still(
    upstream: ScriptedUpstream, proxy: MakeProxy, postgres: PostgresServer, stopped_postgres: list[psutil.Process]
) -> None:
    own = proxy(upstream.url, shutdown_seconds=1, database_url=postgres.create())
    async with client(own) as http:
        await ask(http, CHAT, CHAT.request(marker()))
        stopped_postgres.extend(postgres.processes())
        for each in stopped_postgres:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGSTOP)
        for _ in range(3):
            assert (await ask(http, CHAT, CHAT.request(marker()))).status == 200
        await stops(own)


async def test_with_a_database_server_that_says_nothing(upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+asyncpg://u@127.0.0.1:{silent.getsockname()[1]}/d?ssl=disable"
        own = proxy(upstream.url, shutdown_seconds=1, database_url=url)
        async with client(own) as http:
            assert (await ask(http, CHAT, CHAT.request(marker()))).status == 200
        await stops(own)


async def test_a_worker_with_a_locked_database(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    database = tmp_path / "llmproxy.db"
    worker = started("worker", "--upstream", upstream.url, "--database", str(database), "--workers", "1")
    try:
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            worker.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(worker.wait, PATIENCE) == 0
    finally:
        worker.kill()
        worker.communicate()


def started(*arguments: str) -> "subprocess.Popen[str]":
    """The program, when it says that it works."""
    process = subprocess.Popen(
        [sys.executable, "-m", "llmproxy", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(shutdown_seconds=1),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "working on the jobs" in line:
            return process
    raise AssertionError("the program ended")
