"""``locustfile.py`` as its users run it, against the running program.

locust is not imported here: that would put gevent's sockets and threads in the place of this process's own.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.program import ROOT, Outcome
from tests.conftest import MakeProxy
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy, environment

Locust = Callable[..., Outcome]


@pytest.fixture
def locust(tmp_path: Path) -> Locust:
    """Runs it for some seconds in an empty folder."""

    def run(url: str, *more: str) -> Outcome:
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
        assert "Traceback" not in done.stderr, done.stderr
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def rows(outcome: Outcome) -> dict[str, list[str]]:
    """The table at the end and the verdict below it: a row's name -> its cells."""
    lines = outcome.out[outcome.out.index("  number  a second") :].splitlines()
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines if line.strip()]
    return {" ".join(part for part in row[:-6] if part) or row[0]: row[1:] for row in cells}


def words(outcome: Outcome) -> list[str]:
    """The last word of each line of the verdict."""
    return [line.rsplit("  ", 1)[1].strip() for line in outcome.out.rstrip().splitlines()[-4:]]


def test_a_load_that_is_borne_is_0(locust: Locust, front: Proxy) -> None:
    # a scripted upstream is no slower than a cache: nothing is asked of that
    outcome = locust(front.url, "--max-p95", "60", "--min-quicker", "-1000000")
    assert (outcome.code, words(outcome)) == (0, ["kept"] * 4), outcome.out
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
    assert (outcome.code, words(outcome)) == (1, ["MISSED", "kept", "not asked", "not asked"]), outcome.out
    found = rows(outcome)
    assert {"stream miss", "stream miss, first token", "single miss"} < found.keys()
    assert {"background accepted", "background finished", "batch accepted", "batch finished"} < found.keys()
    assert any(name.startswith("embeddings") for name in found)


def test_what_a_proxy_does_not_offer_is_not_asked(locust: Locust, upstream: ScriptedUpstream, proxy: MakeProxy) -> None:
    server = proxy(upstream.url, jobs=False)
    outcome = locust(server.url, "--max-p95", "60", "--tags", "single", "background", "batch")
    assert outcome.code == 0, outcome.out
    assert [name for name in rows(outcome) if name.startswith(("background", "batch", "task"))] == []


def test_nobody_there_is_one_line_and_1(locust: Locust) -> None:
    outcome = locust("http://127.0.0.1:1")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.splitlines()[-1].startswith("locust: no answer from http://127.0.0.1:1")
