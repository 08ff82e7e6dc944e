"""``llmproxy serve`` as it starts: what it needs, where its data goes, what it prints for the person who started it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.cli.program import start
from tests.scripted_upstream import ScriptedUpstream
from tests.timeouts import WAIT_SECONDS

#: nobody listens there
NOBODY = "http://127.0.0.1:1"


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[tuple[list[str], str]]:
    """What it printed up to the last of what is to be pasted, and its URL."""
    with start("llmproxy", ["serve", "--port", "0", "--log-format", "text", *arguments], folder) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line.rstrip())
            if line.startswith("export OLLAMA_HOST="):
                break
        try:
            yield lines, next(line for line in lines if line.startswith("listening on ")).split()[-1]
        finally:
            process.terminate()
            process.communicate(timeout=WAIT_SECONDS)


def test_it_starts_without_a_model_server_and_says_so(tmp_path: Path) -> None:
    with serving(tmp_path) as (lines, url), httpx.Client(base_url=url, trust_env=False, timeout=WAIT_SECONDS) as http:
        assert http.get("/health").status_code == 200
        # whoever runs the tests may well have one on one of the usual ports
        if "none found yet" in lines[0]:
            ready = http.get("/ready")
            assert (ready.status_code, "No model server was found" in ready.text) == (503, True)


def test_the_banner_says_where_everything_is(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with serving(tmp_path, "--upstream", upstream.url) as (lines, url):
        assert upstream.url in lines[0]
        (place,) = (line.removeprefix("data in ") for line in lines if line.startswith("data in "))
        assert Path(place).is_file()
        assert Path(place).is_relative_to(tmp_path)
        assert not (tmp_path / "data").exists()
        assert f"the web UI is {url}/ui" in lines
        assert f"export OPENAI_BASE_URL={url}/v1" in lines
        assert f"export ANTHROPIC_BASE_URL={url}" in lines
        assert f"export OLLAMA_HOST={url}" in lines


def test_a_database_of_this_folder_goes_on_being_used(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "llmproxy.db").touch()
    with serving(tmp_path, "--upstream", upstream.url) as (lines, _):
        assert "data in data/llmproxy.db" in lines
    assert not list(tmp_path.rglob("share/**/*.db"))


def test_it_can_be_told_to_need_a_model_server(tmp_path: Path) -> None:
    with start("llmproxy", ["serve", "--port", "0", "--upstream", NOBODY, "--require-upstream"], tmp_path) as process:
        out, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, out) == (1, "")
    assert f"llmproxy: no model server answers: {NOBODY} (no answer yet)" in err
    assert "llama-server -m model.gguf" in err


def test_the_demo_runs_the_code_of_its_folder_whatever_is_installed() -> None:
    done = subprocess.run(
        ["make", "-n", "demo"], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert "python -m llmproxy demo" in done.stdout
