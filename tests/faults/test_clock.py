"""The clock on the wall is set while the program runs: what waits goes on waiting as long as it was to, no longer."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.faults.outcome import ask
from tests.scripted import CHAT, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS

HOUR = 3600

SHIM = """
import time

_real = time.time

def _shifted():
    with open({path!r}) as file:
        return _real() + float(file.read() or 0)

time.time = _shifted
"""

SetClock = Callable[[float], None]


@pytest.fixture
def set_clock(tmp_path: Path) -> SetClock:
    """Sets the clock of programs that find the shim: seconds to the true one."""
    shift = tmp_path / "shift"
    (tmp_path / "sitecustomize.py").write_text(SHIM.format(path=str(shift)))

    def put(seconds: float) -> None:
        new = shift.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(shift)

    put(0)
    return put


async def completed(http: httpx.AsyncClient, task: str) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while (found := (await http.get(f"/api/tasks/{task}")).json())["status"] != "completed":
            assert found["status"] in ("pending", "running"), found
            await asyncio.sleep(0.05)


async def submitted(http: httpx.AsyncClient, prompt: str) -> str:
    answer = await http.post("/api/completions", json={"prompt": prompt, "model": "scripted", "background": True})
    assert answer.status_code == 202
    return str(answer.json()["task_id"])


@pytest.mark.parametrize("step", [-HOUR, HOUR], ids=["back", "forward"])
async def test_the_queue_goes_on(upstream: ScriptedUpstream, tmp_path: Path, set_clock: SetClock, step: float) -> None:
    """What waits for a worker, what waits to be tried again, what is in work; and all of it after a restart."""
    database = tmp_path / "data" / "llmproxy.db"
    database.parent.mkdir()
    gate, other = upstream.gate(), upstream.gate()
    settings = {"task_queue_workers": 1, "job_lease_seconds": 30}
    with Proxy(upstream.url, database=database, python_path=tmp_path, **settings) as own:
        async with httpx.AsyncClient(base_url=own.url, timeout=60, trust_env=False) as http:
            prompt = marker()
            running = await submitted(http, f"{prompt} [script:gate={gate.name}]")
            await gate.arrived.reached()
            again = await submitted(http, f"{marker()} [script:status=500 times=1]")
            waiting = await submitted(http, marker())
            set_clock(step)
            later = await submitted(http, marker())
            gate.open()
            for task in (running, again, waiting, later):
                await completed(http, task)
            # nothing was done twice
            assert len(upstream.visits(prompt)) == 1
            held = await submitted(http, f"{marker()} [script:gate={other.name}]")
            await other.arrived.reached()
            left = await submitted(http, marker())
        own.kill()
        set_clock(0)
        other.open()
        own.start()
        async with httpx.AsyncClient(base_url=own.url, timeout=60, trust_env=False) as http:
            for task in (held, left):
                await completed(http, task)


@pytest.mark.parametrize("step", [-HOUR, HOUR], ids=["back", "forward"])
@pytest.mark.parametrize("selector", [{"all": True}, {"older_than": 0}, {"model": "scripted"}], ids=str)
async def test_a_flush_holds(
    upstream: ScriptedUpstream, tmp_path: Path, set_clock: SetClock, step: float, selector: dict[str, object]
) -> None:
    """What was begun before it is not kept, and what was kept before it goes, whatever the clock says of both."""
    database = tmp_path / "data" / "llmproxy.db"
    database.parent.mkdir()
    gate = upstream.gate()
    with Proxy(upstream.url, database=database, python_path=tmp_path, jobs="false") as own:
        async with httpx.AsyncClient(base_url=own.url, timeout=60, trust_env=False) as http:
            kept, late = CHAT.request(marker()), CHAT.request(f"{marker()} [script:gate={gate.name}]", stream=True)
            await ask(http, CHAT, kept)
            under_way = asyncio.create_task(ask(http, CHAT, late))
            await gate.arrived.reached()
            set_clock(step)
            assert (await http.post("/admin/cache/flush", json=selector)).json()["flushed"] == 1
            gate.open()
            assert (await under_way).status == 200
            for request in (kept, late):
                assert (await ask(http, CHAT, request, {"cache-control": "only-if-cached"})).status == 504
