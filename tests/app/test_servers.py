"""The application under the ASGI servers that people run: it starts, answers, works on jobs, drains and stops."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.scripted import CHAT, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import environment
from tests.timeouts import WAIT_SECONDS

#: a server's name -> what starts it on a port
SERVERS: dict[str, Callable[[int], list[str]]] = {
    "uvicorn": lambda port: ["uvicorn", "--factory", "llmproxy.app:create_app", "--port", str(port)],
    "hypercorn": lambda port: ["hypercorn", "--bind", f"127.0.0.1:{port}", "llmproxy.app:create_app()"],
    "granian": lambda port: [
        *("granian", "--interface", "asgi", "--factory", "llmproxy.app:create_app"),
        *("--host", "127.0.0.1", "--port", str(port)),
    ],
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """The application under one server. ``log`` is complete once it has stopped."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url
        self.log = ""
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.log += line.decode(errors="replace")

    async def answers(self) -> None:
        """Returns once it does. Raises ``AssertionError`` if it ends before."""
        async with httpx.AsyncClient(trust_env=False) as http:
            while True:
                assert self.process.returncode is None, self.log
                try:
                    await http.get(f"{self.url}/health")
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
                else:
                    return

    async def stopped(self) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            await self.process.wait()
            await self._reading


@asynccontextmanager
async def started(server: str, folder: Path, **settings: object) -> AsyncIterator[Served]:
    """The server, whether or not it gets as far as to answer; killed at the end if it still runs."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *SERVERS[server](port)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=environment(database_path=folder / "llmproxy.db", shutdown_seconds=5, **settings),
    )
    served = Served(process, f"http://127.0.0.1:{port}")
    try:
        yield served
    finally:
        if process.returncode is None:
            process.kill()
        await served.stopped()


@pytest.mark.parametrize("server", SERVERS)
async def test_it_answers_drains_and_keeps_what_it_had(server: str, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    gate, prompt, late = upstream.gate(), marker(), marker()
    async with started(server, tmp_path, upstream=upstream.url) as served:
        async with asyncio.timeout(WAIT_SECONDS):
            await served.answers()
        async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=WAIT_SECONDS) as http:
            for expected in ("MISS", "HIT"):
                answer = await http.post(CHAT.path, json=CHAT.request(prompt))
                assert (answer.status_code, answer.headers["x-cache"]) == (200, expected)
            streamed = await http.post(CHAT.path, json=CHAT.request(prompt, stream=True))
            assert streamed.text.endswith("data: [DONE]\n\n")
            job = await http.post("/api/completions", json={"prompt": marker(), "background": True})
            document = job.json()
            while document["status"] in {"pending", "running"}:
                document = (await http.get(f"/api/tasks/{document['task_id']}", params={"wait": 5})).json()
            assert document["status"] == "completed", document
            waiting = asyncio.create_task(http.post(CHAT.path, json=CHAT.request(f"[script:gate={gate.name}] {late}")))
            await gate.arrived.reached()
            served.process.send_signal(signal.SIGTERM)
            gate.open()
            assert (await waiting).status_code == 200
        await served.stopped()
        assert "Traceback" not in served.log
        assert '"logger":"llmproxy.access"' in served.log
    # what waited to be written was written: another program finds it
    async with started("uvicorn", tmp_path, upstream=upstream.url) as served:
        async with asyncio.timeout(WAIT_SECONDS):
            await served.answers()
        async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=WAIT_SECONDS) as http:
            answer = await http.post(CHAT.path, json=CHAT.request(f"[script:gate={gate.name}] {late}"))
            assert answer.headers["x-cache"] == "HIT"


@pytest.mark.parametrize("server", SERVERS)
async def test_a_setting_that_cannot_be_is_said_and_ends_the_server(server: str, tmp_path: Path) -> None:
    async with started(server, tmp_path, replay="wild") as served:
        await served.stopped()
    assert "replay = 'wild' (environment LLMPROXY_REPLAY): allowed is one of fast, paced" in served.log


async def test_a_server_without_a_lifespan_is_told(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *SERVERS["uvicorn"](port), "--lifespan", "off"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
        env=environment(upstream=upstream.url),
    )
    served = Served(process, f"http://127.0.0.1:{port}")
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await served.answers()
    finally:
        process.terminate()
        await served.stopped()
    assert "llmproxy needs a server that starts the application's lifespan" in served.log
