"""``llmproxy demo``, whole, on the real model; and that nothing of it stays behind."""

import re
import signal
import socket
from pathlib import Path

import httpx
import psutil
import pytest

from llmproxy.cli.demo import verb
from llmproxy.cli.demo.llama import model_file
from tests.cli.program import Program, start
from tests.timeouts import WAIT_SECONDS

_LIMIT = 90.0


def test_the_tour_once(tmp_path: Path) -> None:
    with start("llmproxy", ["demo", "--once"], tmp_path) as demo:
        out, err = demo.communicate(timeout=_LIMIT)
    assert demo.returncode == 0, out + err
    assert "✗" not in out
    assert out.count("✓") >= 9
    for word in ("MISS", "HIT", "JOINED", "576"):
        assert word in out
    assert not list(tmp_path.rglob("demo-*"))


def test_it_serves_on_until_ctrl_c_and_leaves_no_process(tmp_path: Path) -> None:
    with start("llmproxy", ["demo", "--port", "0"], tmp_path) as demo:
        assert demo.stdout is not None
        line = next(line for line in demo.stdout if line.startswith("export OPENAI_BASE_URL="))
        children = psutil.Process(demo.pid).children(recursive=True)
        assert len(children) == 3
        assert next(demo.stdout).startswith("export OPENAI_API_KEY=")
        url = line.strip().partition("=")[2]
        assert url.startswith("http://127.0.0.1:")
        assert url.endswith("/v1")
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=_LIMIT)
    assert demo.returncode == 0, out + err
    assert not psutil.wait_procs(children, timeout=WAIT_SECONDS)[1]


def test_its_children_end_when_it_is_killed(tmp_path: Path) -> None:
    with start("llmproxy", ["demo", "--port", "0"], tmp_path) as demo:
        assert demo.stdout is not None
        next(line for line in demo.stdout if line.startswith("export"))
        children = psutil.Process(demo.pid).children(recursive=True)
        demo.kill()
    assert not psutil.wait_procs(children, timeout=WAIT_SECONDS)[1]


def test_a_busy_port_is_said_at_once(llmproxy: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        outcome = llmproxy("demo", "--once", "--port", str(port))
    assert outcome.code == 1
    assert f"port {port}" in outcome.err
    assert "--port" in outcome.err


def test_missing_parts_are_named_with_the_way_to_get_them(llmproxy: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "find_spec", lambda name: None if name == "xllamacpp" else object())
    outcome = llmproxy("demo")
    assert outcome.code == 1
    assert "xllamacpp" in outcome.err
    assert "openai" not in outcome.err.partition(":")[2].partition(":")[0]
    assert "make demo" in outcome.err


@pytest.mark.parametrize(
    ("flag", "once", "port"), [(None, False, 4141), (None, True, 0), ("0", False, 0), ("5000", True, 5000)]
)
def test_only_a_tour_that_ends_takes_a_free_port_unasked(flag: str | None, once: bool, port: int) -> None:
    assert verb.port_of(flag, "0" if once else None) == port


def test_the_model_server_ends_quietly_at_ctrl_c(tmp_path: Path) -> None:
    with start("llmproxy.cli.demo.llama", [], tmp_path) as llama:
        assert llama.stdout is not None
        assert llama.stdout.readline().startswith("http://")
        llama.send_signal(signal.SIGINT)
        _, err = llama.communicate(timeout=_LIMIT)
    assert llama.returncode == 0
    assert "Traceback" not in err


def test_the_model_alone_serves_for_a_proxy_of_the_users_own(tmp_path: Path) -> None:
    with start("llmproxy", ["demo", "--serve-model", "--port", "0"], tmp_path) as demo:
        assert demo.stdout is not None
        line = demo.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line
        listed = httpx.get(f"{found[0]}/v1/models", trust_env=False, timeout=WAIT_SECONDS).json()
        assert [model["id"] for model in listed["data"]] == ["smollm2"]
        # it goes on without anybody at its standard input
        assert demo.stdin is not None
        demo.stdin.close()
        demo.stdin = None
        assert httpx.get(f"{found[0]}/health", trust_env=False, timeout=WAIT_SECONDS).is_success
        demo.send_signal(signal.SIGINT)
        _, err = demo.communicate(timeout=_LIMIT)
    assert demo.returncode == 0, err
    assert "Traceback" not in err


def test_the_model_file_is_found_without_its_package() -> None:
    assert model_file().suffix == ".gguf"
