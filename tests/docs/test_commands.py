"""What the pages have pasted into a terminal does what they say, as it stands but for the port."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_pages import ROOT, commands
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy, environment

#: how the pages reach the proxy
ADDRESS = "127.0.0.1:4141"
#: lines that need something else than a proxy that runs: streams without an end, or a model of some name
ELSEWHERE = ("…", "-N ", "smollm2:135m", "/api/tasks/ID")
CURLS = [
    (page, line) for page, line in commands() if line.startswith("curl ") and not any(e in line for e in ELSEWHERE)
]


@pytest.mark.parametrize(("page", "line"), CURLS, ids=[f"{page}-{number}" for number, (page, _) in enumerate(CURLS)])
def test_calls_of_the_api_are_answered(front: Proxy, tmp_path: Path, page: str, line: str) -> None:
    command = line.replace(ADDRESS, f"127.0.0.1:{front.port}").replace("smollm2", "scripted")
    # an answer with an error is a failure here, whatever curl makes of it by itself
    command = command.replace("curl ", "curl --fail-with-body ", 1)
    variables = {"OPENAI_BASE_URL": f"http://127.0.0.1:{front.port}/v1", "MODEL": "scripted"}
    done = subprocess.run(
        ["bash", "-c", command],
        check=False,
        cwd=tmp_path,
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, (page, line, done.stdout, done.stderr)


def test_the_copy_of_the_database_is_one(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """The lines for a backup, while the newest rows are in the second file, and for restoring it."""
    lines = [line for page, line in commands() if line.startswith(("llmproxy db backup ", "llmproxy db restore "))]
    backup, restore = (line.replace("llmproxy", f"{sys.executable} -m llmproxy", 1) for line in lines)
    variables = environment() | {"DATABASE_PATH": "llmproxy.db"}
    with Proxy(upstream.url, database=tmp_path / "llmproxy.db") as proxy:
        with proxy.line() as connection:
            connection.ask("GET", "/v1/unheard")
            connection.ask("GET", "/api/history")
        subprocess.run(["bash", "-c", backup], check=True, cwd=tmp_path, env=variables, timeout=60)
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"llmproxy.db{suffix}").unlink(missing_ok=True)
    subprocess.run(["bash", "-c", restore], check=True, cwd=tmp_path, env=variables, timeout=60)
    with Proxy(upstream.url, database=tmp_path / "llmproxy.db") as proxy, proxy.line() as connection:
        assert b'"path":"/v1/unheard"' in connection.ask("GET", "/api/history").body


def test_the_readme_says_how_it_is_found() -> None:
    text = (ROOT / "README.md").read_text().lower()
    for words in ("web ui", "reverse proxy", "backup", "batch api", "claude code", "codex", "open webui", "embeddings"):
        assert words in text
    for words in ("ollama", "llama.cpp", "lm studio", "vllm", "anthropic", "llm-caching-proxy"):
        assert words in text
