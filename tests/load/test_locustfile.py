"""``locustfile.py`` as its users run it, against the running program.

locust is not imported here: that would put gevent's sockets and threads in the place of this process's own.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.cli.program import ROOT, Outcome
from tests.conftest import MakeProxy
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy, environment

Locust = Callable[..., Outcome]

#: a second file for locust, whose users fail by themselves
BROKEN = """\
from locust import User, constant, tag, task

class Broken(User):
    wait_time = constant(1)

    @tag("single")
    @task
    def broken(self):
        raise LookupError("broken")
"""


@pytest.fixture
def locust(tmp_path: Path) -> Locust:
    """Runs it for some seconds in an empty folder."""

    def run(url: str, *more: str, broken: bool = False) -> Outcome:
        command = ["-m", "locust", "-f", str(ROOT / "locustfile.py"), "--headless", "--only-summary", "-H", url]
        done = subprocess.run(
            [sys.executable, *command, "-u", "4", "-t", "5s", "--hot", "3", *more],
            check=False,
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert ("Traceback" in done.stderr) is broken, done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def rows(outcome: Outcome) -> dict[str, list[str]]:
    """The table at the end and the verdict below it: a row's name -> its cells."""
    lines = outcome.out[outcome.out.index("  number  a second") :].splitlines()
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines if line.strip()]
    return {" ".join(part for part in row[:-6] if part) or row[0]: row[1:] for row in cells}


def words(outcome: Outcome) -> list[str]:
    """The last word of each line of the verdict."""
    return [line.rsplit("  ", 1)[1].strip() for line in outcome.out.rstrip().splitlines()[-5:]]


def test_a_load_that_is_borne_is_0(locust: Locust, front: Proxy) -> None:
    # a scripted upstream is no slower than a cache: nothing is asked of that
    outcome = locust(front.url, "--max-p95", "60", "--min-quicker", "-1000000")
    assert (outcome.code, words(outcome)) == (0, ["kept"] * 5), outcome.out
    found = rows(outcome)
    assert {"hot set miss", "hot set hit", "long tail miss"} < found.keys()
    assert int(found["all questions"][0].replace(",", "")) > 20
    assert re.search(r"the proxy used \d+% of a processor, at most \d+ MB of memory", outcome.out)


def test_a_load_that_is_not_borne_is_1(
    locust: Locust, upstream: ScriptedUpstream, proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = proxy(upstream.url, api_keys="alice:a-key")
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    monkeypatch.setenv("LOAD_MAX_P95", "0")
    outcome = locust(f"{server.url}/v1/", "--tags", "stream", "background", "batch", "embeddings", "single")
    assert (outcome.code, words(outcome)) == (1, ["MISSED", "kept", "not asked", "not asked", "kept"]), outcome.out
    found = rows(outcome)
    assert {"stream miss", "stream miss, first token", "single miss"} < found.keys()
    assert {"background accepted", "background finished", "batch accepted", "batch finished"} < found.keys()
    assert any(name.startswith("embeddings") for name in found)


def test_what_a_proxy_does_not_offer_is_not_asked(locust: Locust, upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server = proxy(upstream.url, jobs=False)
    outcome = locust(server.url, "--max-p95", "60", "--tags", "single", "background", "batch")
    assert outcome.code == 0, outcome.out
    assert [name for name in rows(outcome) if name.startswith(("background", "batch", "task"))] == []


@pytest.mark.parametrize("processes", [[], ["--processes", "2"]], ids=["one process", "two processes"])
def test_who_waits_for_ever_is_counted(
    locust: Locust, upstream: ScriptedUpstream, front: Proxy, processes: list[str]
) -> None:
    gate = upstream.gate()
    model = f"[script:gate={gate.name} gate_after=1]"
    options = ["--tags", "stream", "--max-p95", "0.5", "--stop-timeout", "1", *processes]
    outcome = locust(front.url, "--model", model, *options)
    gate.open()
    assert (outcome.code, words(outcome)) == (1, ["MISSED", "MISSED", *["not asked"] * 3]), outcome.out
    _, asked, *_, failed = rows(outcome)["stream unanswered"]
    assert int(asked) == int(failed) > 0


def test_tasks_that_nobody_works_on_are_missed_and_cancelled(
    locust: Locust, upstream: ScriptedUpstream, proxy: MakeProxy
) -> None:
    server = proxy(upstream.url, task_queue_workers=0)
    outcome = locust(server.url, "--tags", "batch", "--stop-timeout", "0")
    assert (outcome.code, words(outcome)) == (1, ["kept", "kept", "not asked", "not asked", "MISSED"]), outcome.out
    tasks = httpx.get(f"{server.url}/api/tasks", trust_env=False).json()["data"]
    assert {task["status"] for task in tasks} == {"cancelled"}


def test_a_load_test_that_is_broken_itself_is_1(locust: Locust, front: Proxy, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(BROKEN)
    outcome = locust(
        front.url, "-f", f"{ROOT / 'locustfile.py'},{other}", "--max-p95", "60", "--tags", "single", broken=True
    )
    assert (outcome.code, words(outcome)) == (1, ["kept", "kept", *["not asked"] * 3]), outcome.out
    assert "exceptions of the load test itself: " in outcome.out


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["-t", "0"], 1, "locust: the run time must be longer than 0"),
        (["--hot", "0"], 2, "error: argument --hot: '0' is no whole number from 1 on"),
        (["--tail", "-1"], 2, "error: argument --tail: '-1' is no whole number from 1 on"),
        (["--tags", "nonsense"], 1, "locust: this proxy offers nothing of what the tags leave"),
        (["--tags", "hot", "--exclude-tags", "hot"], 1, "locust: this proxy offers nothing of what the tags leave"),
    ],
    ids=["no time", "no hot set", "no long tail", "unknown tag", "every tag left out"],
)
def test_what_cannot_be_asked_is_one_line(
    locust: Locust, front: Proxy, options: list[str], code: int, said: str
) -> None:
    outcome = locust(front.url, *options)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.splitlines()[-1].endswith(said)


def test_nobody_there_is_one_line_and_1(locust: Locust) -> None:
    outcome = locust("http://127.0.0.1:1")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.splitlines()[-1].startswith("locust: no answer from http://127.0.0.1:1")
