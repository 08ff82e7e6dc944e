"""``llmproxy bench`` against the running program, and its stages against a model that fails."""

import asyncio
import io
import json
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from llmproxy.cli.bench.asker import Asker
from llmproxy.cli.bench.figures import MOST_ERRORS, Figures, Timed
from llmproxy.cli.bench.offer import Offer, look
from llmproxy.cli.bench.progress import progress
from llmproxy.cli.bench.stages import STAGES, BenchRun, measured
from llmproxy.cli.bench.usage import ProcessUsage, from_metrics, serving
from llmproxy.cli.bench.words import time_of
from tests.cli.program import Program
from tests.conftest import MakeProxy
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy

NAMES = [stage.name for stage in STAGES]


def test_a_run_ends_with_a_table(llmproxy: Program, front: Proxy) -> None:
    outcome = llmproxy("bench", "--url", f"{front.url}/v1/", "--seconds", "1")
    assert (outcome.code, "Traceback" in outcome.err) == (0, False)
    assert outcome.err.splitlines() == ["looking for a model", *NAMES]
    lines = outcome.out.splitlines()
    assert lines[0] == f"{front.url}, model scripted"
    assert [name for name in NAMES if not any(line.startswith(name) for line in lines)] == []
    assert "hits are quicker by" in outcome.out
    assert "of a processor, at most" in outcome.out


def test_a_run_as_json(llmproxy: Program, front: Proxy) -> None:
    outcome = llmproxy("bench", "--url", front.url, "--seconds", "1", "--json")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert (found["url"], found["model"], list(found["stages"])) == (front.url, "scripted", NAMES)
    for stage in found["stages"].values():
        assert stage["answers"] > 0
        assert (stage["errors"], stage["first_error"]) == (0, None)
    times = {name: set(stage["times"]) for name, stage in found["stages"].items()}
    assert "miss" in times["the same twice"]
    assert [times[name] for name in ("1 at a time", "4 at once", "16 at once")] == [{"miss"}] * 3
    assert (times["background"], times["batch"]) == ({"accepted", "finished"}, {"finished"})
    asked = found["stages"]["the same twice"]["answers"]
    assert found["stages"]["the same twice"]["times"]["miss"]["count"] == asked / 2
    assert 3 <= found["hits"]["new"] <= found["hits"]["asked"]
    assert found["process"]["memory_bytes"] > 1e7


def test_every_run_has_a_cache_of_its_own(llmproxy: Program, front: Proxy) -> None:
    runs = [json.loads(llmproxy("bench", "--url", front.url, "--seconds", "1", "--json").out) for _ in range(2)]
    assert [set(run["stages"]["1 at a time"]["times"]) for run in runs] == [{"miss"}, {"miss"}]


def test_nobody_there_says_what_to_start(llmproxy: Program) -> None:
    outcome = llmproxy("bench", "--url", "http://127.0.0.1:1")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.splitlines()[-1].startswith("llmproxy: no answer from http://127.0.0.1:1")
    assert "llmproxy serve" in outcome.err


def test_another_server_is_none_of_ours(llmproxy: Program, upstream: ScriptedUpstream) -> None:
    outcome = llmproxy("bench", "--url", upstream.url)
    assert (outcome.code, "but not as llmproxy would" in outcome.err) == (1, True)


def test_no_model_that_answers_is_said_with_the_reason(llmproxy: Program, front: Proxy) -> None:
    outcome = llmproxy("bench", "--url", front.url, "--model", "[script:status=400]")
    assert outcome.code == 1
    assert "no model answers a chat completion" in outcome.err
    assert "answered 400" in outcome.err


def test_a_model_server_that_is_away_leaves_no_model(llmproxy: Program, proxy: MakeProxy) -> None:
    with ScriptedUpstream() as gone:
        server = proxy(gone.url)
    outcome = llmproxy("bench", "--url", server.url)
    assert (outcome.code, outcome.out) == (1, "")


def test_a_key_is_sent_where_one_is_asked_for(
    llmproxy: Program, upstream: ScriptedUpstream, proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = proxy(upstream.url, api_keys="alice:a-key")
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    outcome = llmproxy("bench", "--url", server.url)
    assert (outcome.code, "answered 401" in outcome.err) == (1, True)
    assert llmproxy("bench", "--url", server.url, "--api-key", "a-key", "--seconds", "1").code == 0


def test_without_jobs_their_stages_are_left_out(
    llmproxy: Program, upstream: ScriptedUpstream, proxy: MakeProxy
) -> None:
    server = proxy(upstream.url, jobs=False)
    outcome = llmproxy("bench", "--url", server.url, "--seconds", "1")
    assert outcome.code == 0
    left_out = [line.split()[0] for line in outcome.out.splitlines() if "this proxy has no background jobs" in line]
    assert left_out == ["background", "batch"]
    assert "background" not in outcome.err


def test_what_a_proxy_offers(front: Proxy, llama_front: Proxy) -> None:
    assert look(front.url, None, embedding=True) == Offer("scripted", "scripted", jobs=True)
    found = look(llama_front.url, None, embedding=True)
    assert found.model
    assert found.embedding
    assert found.embedding != found.model


class Broken(httpx.AsyncBaseTransport):
    """Nothing but errors."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0)
        if not self._statuses:
            raise httpx.ConnectError("gone")
        document = {"error": {"message": "too\nmany"}, "task_id": "t1"}
        return httpx.Response(self._statuses.pop(0), json=document, headers={"x-cache": "JOINED"})


async def stage(name: str, *statuses: int) -> Figures:
    """A stage that would last for an hour, with these answers and then none."""
    async with httpx.AsyncClient(transport=Broken(*statuses), base_url="http://broken") as http:
        run = BenchRun(Asker(http, Offer("m")), lambda: None)
        return await measured(next(each for each in STAGES if each.name == name), run, 3600)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "batch"])
async def test_a_stage_without_an_answer_comes_to_an_end(name: str) -> None:
    figures = await stage(name)
    assert MOST_ERRORS <= figures.errors < MOST_ERRORS + 16
    assert (figures.answers, figures.reason) == (0, "gone")


async def test_an_error_is_told_in_a_line() -> None:
    assert (await stage("1 at a time", 429)).reason == "429 too many"


@pytest.mark.parametrize(
    ("statuses", "reason"), [((), "gone"), ((503,), "503 too many"), ((202,), "t1: gone"), ((202, 404), "t1: ")]
)
async def test_a_batch_that_fails_says_why(statuses: tuple[int, ...], reason: str) -> None:
    figures = await stage("batch", *statuses)
    assert (figures.answers, figures.errors) == (0, 1)
    assert figures.reason.startswith(reason)


async def test_a_task_that_takes_too_long_is_cancelled(upstream: ScriptedUpstream, front: Proxy) -> None:
    gate = upstream.gate()
    async with httpx.AsyncClient(base_url=front.url, trust_env=False) as http:
        prompt = {"prompt": f"[script:gate={gate.name}]", "background": True}
        id = (await http.post("/api/completions", json=prompt)).json()["task_id"]
        task = await Asker(http, Offer("scripted")).finished(id, patience=0.1)
        gate.open()
        assert (task.completed, task.error) == (0, f"{id} was not over after 0 s, and was cancelled")
        assert (await http.get(f"/api/tasks/{id}")).json()["status"] in ("cancelling", "cancelled")


async def test_a_run_that_is_ended_leaves_no_task_behind(upstream: ScriptedUpstream, front: Proxy) -> None:
    gate = upstream.gate()
    async with httpx.AsyncClient(base_url=front.url, trust_env=False) as http:
        prompt = {"prompt": f"[script:gate={gate.name}]", "background": True}
        id = (await http.post("/api/completions", json=prompt)).json()["task_id"]
        run = asyncio.create_task(Asker(http, Offer("scripted")).finished(id, patience=60))
        await gate.arrived.reached()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        gate.open()
        assert (await http.get(f"/api/tasks/{id}")).json()["status"] in ("cancelling", "cancelled")


def test_a_model_that_fails_now_and_then_is_measured(front: Proxy) -> None:
    model = f"[script:status=500 times=1] {marker()}"
    assert look(front.url, None, model).model == model


async def test_an_answer_that_failed_spared_nothing() -> None:
    async with httpx.AsyncClient(transport=Broken(*[502] * 20), base_url="http://broken") as http:
        run = BenchRun(Asker(http, Offer("m")), lambda: None)
        await measured(STAGES[-1], run, 3600)
    assert run.repeats.asked > run.repeats.new
    assert run.repeats.spared == 0


def test_the_process_behind_a_port_is_found(front: Proxy) -> None:
    process = serving(front.url)
    assert process is not None
    assert process.pid == front.process.pid
    assert serving("http://192.0.2.1:4141") is None
    assert serving("http://gpu-box:4141") is None
    assert serving("http://127.0.0.1:1") is None


def test_readings_are_summed_up(front: Proxy) -> None:
    usage = ProcessUsage(front.url)
    usage.read()
    usage.read()
    assert usage.used is not None
    assert usage.used.cpu >= 0
    assert usage.used.memory > 1e7


def test_one_reading_is_not_enough(front: Proxy) -> None:
    usage = ProcessUsage(front.url)
    usage.read()
    assert usage.used is None


def test_a_process_that_is_gone_has_no_readings() -> None:
    usage = ProcessUsage("http://127.0.0.1:1")
    usage.read()
    assert usage.used is None


def test_the_metrics_tell_the_same(front: Proxy) -> None:
    found = from_metrics(front.url)
    # they are made from /proc, which not every system has
    assert (found is not None) == Path("/proc/self/stat").exists()
    assert found is None or (found[0] > 0 and found[1] > 1e7)


def test_a_server_without_process_metrics_tells_nothing(upstream: ScriptedUpstream) -> None:
    assert from_metrics(upstream.url) is None


def test_on_a_terminal_there_is_a_bar() -> None:
    out = io.StringIO()
    with progress(Console(file=out, force_terminal=True, width=80), 60) as shown:
        shown.stage("4 at once")
        shown.answered()
    assert "4 at once" in out.getvalue()
    assert "1 answers" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (0.00084, "0.84 ms"), (0.0123, "12 ms"), (0.9, "900 ms"), (1.234, "1.23 s"), (1234.5, "1,234.50 s")],
)
def test_times_have_the_unit_that_fits(seconds: float | None, shown: str) -> None:
    assert time_of(seconds) == shown


def test_times_of_errors_are_not_counted() -> None:
    figures = Figures("x", seconds=2.0)
    for timed in (Timed(1.0, "miss"), Timed(3.0, "miss", "500"), Timed(0.5, "hit")):
        figures.add(timed)
    assert (figures.answers, figures.errors, figures.reason, figures.rate) == (2, 1, "500", 1.0)
    assert (figures.median("miss"), figures.count("miss"), figures.median("joined")) == (1.0, 1, None)
