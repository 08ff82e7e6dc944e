"""The code in ``docs/clients.md`` does what the page says: a miss, and the same again a hit, at the path it names."""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients import page
from tests.clients.environments import node_with, python_with
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy, environment
from tests.timeouts import WAIT_SECONDS

#: each runs a file twice in one process: to start it is most of the work
PYTHON_TWICE = "import runpy, sys; [runpy.run_path(sys.argv[1], run_name='__main__') for _ in 'ab']"
NODE_TWICE = "for (const run of 'ab') await import(`${process.argv[1]}?${run}`);"


@dataclass(frozen=True)
class Client:
    """``packages`` as pip or npm names them; ``endpoint`` is what the history calls the path that it asks."""

    heading: str
    packages: tuple[str, ...]
    path: str = "/v1/chat/completions"


PYTHON = [
    Client("openai for Python", ("openai",)),
    Client("anthropic for Python", ("anthropic",), "/v1/messages"),
    Client("LangChain", ("langchain-openai",)),
    Client("pydantic-ai", ("pydantic-ai-slim[openai]",)),
    Client("instructor", ("instructor",)),
]
NODE = [
    Client("openai for JavaScript", ("openai",)),
    Client("anthropic for JavaScript", ("@anthropic-ai/sdk",), "/v1/messages"),
    Client("Vercel AI SDK", ("ai", "@ai-sdk/openai-compatible")),
]


@pytest.fixture(scope="module")
def demo(llama_front: Proxy) -> Proxy:
    """llama.cpp with the demo's model, and a cache that holds nothing of these tests."""
    httpx.post(f"{llama_front.url}/admin/cache/flush", json={"all": True}).raise_for_status()
    return llama_front


def folder_of(request: pytest.FixtureRequest) -> Path:
    """Kept from run to run."""
    cache = request.config.cache
    assert cache is not None
    return cache.mkdir("documented-clients")


def run(command: list[str], folder: Path, proxy: Proxy) -> str:
    """What it prints, in a shell in which the page's variables are set. Fails if it does."""
    variables = {name: value.replace(page.ADDRESS, f"127.0.0.1:{proxy.port}") for name, value in page.exports().items()}
    # of our own packages a client must see nothing
    shell = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    shell |= {**variables, "HOME": str(folder), "LLM_USER_PATH": str(folder)}
    done = subprocess.run(command, check=False, cwd=folder, env=shell, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_a_miss_and_a_hit(proxy: Proxy, path: str, printed: str, newest_before: int) -> None:
    """Both answers were printed, and the history has both requests."""
    assert printed.strip()
    half = len(printed) // 2
    assert printed[:half] == printed[half:], printed
    ends = time.monotonic() + WAIT_SECONDS
    rows: list[dict[str, Any]] = []
    while len(rows) < 2 and time.monotonic() < ends:
        # the history is written behind the answers
        rows = [row for row in exchanges(proxy) if row["id"] > newest_before]
    assert [(row["path"], row["cache"]) for row in rows] == [(path, "hit"), (path, "miss")]


def exchanges(proxy: Proxy) -> list[dict[str, Any]]:
    """The newest first."""
    rows: list[dict[str, Any]] = httpx.get(f"{proxy.url}/api/history?limit=5").json()["data"]
    return rows


def newest(proxy: Proxy) -> int:
    return max((row["id"] for row in exchanges(proxy)), default=0)


@pytest.mark.parametrize("client", PYTHON, ids=lambda client: client.heading)
@pytest.mark.timeout(400)
def test_python(request: pytest.FixtureRequest, demo: Proxy, tmp_path: Path, client: Client) -> None:
    (package,) = client.packages
    python = python_with(f"{package}=={page.version(client.heading)}", folder_of(request))
    (tmp_path / "client.py").write_text(page.code(client.heading, "python"))
    before = newest(demo)
    printed = run([str(python), "-c", PYTHON_TWICE, "client.py"], tmp_path, demo)
    check_a_miss_and_a_hit(demo, client.path, printed, before)


@pytest.mark.parametrize("client", NODE, ids=lambda client: client.heading)
@pytest.mark.timeout(400)
def test_javascript(request: pytest.FixtureRequest, demo: Proxy, tmp_path: Path, client: Client) -> None:
    named = client.packages if len(client.packages) > 1 else ("",)
    versions = [page.version(client.heading, name) for name in named]
    home = node_with(
        [f"{name}@{number}" for name, number in zip(client.packages, versions, strict=True)], folder_of(request)
    )
    script = home / "client.mjs"
    script.write_text(page.code(client.heading, "js"))
    before = newest(demo)
    printed = run(["node", "--input-type=module", "-e", NODE_TWICE, str(script)], tmp_path, demo)
    check_a_miss_and_a_hit(demo, client.path, printed, before)


@pytest.mark.timeout(400)
def test_llm(request: pytest.FixtureRequest, demo: Proxy, tmp_path: Path) -> None:
    python = python_with(f"llm=={page.version('llm')}", folder_of(request))
    models = page.code("llm", "yaml").replace(page.ADDRESS, f"127.0.0.1:{demo.port}")
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    before, command = newest(demo), page.code("llm", "sh")
    shell = ["bash", "-c", f"PATH={python.parent}:$PATH\n{command}\n{command}"]
    check_a_miss_and_a_hit(demo, "/v1/chat/completions", run(shell, tmp_path, demo), before)


def test_curl(demo: Proxy, tmp_path: Path) -> None:
    before, command = newest(demo), page.code("curl", "sh")
    printed = run(["bash", "-c", f"{command}\n{command}"], tmp_path, demo)
    check_a_miss_and_a_hit(demo, "/v1/chat/completions", printed, before)


@pytest.mark.timeout(400)
def test_ollama(request: pytest.FixtureRequest, front: Proxy, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """llama.cpp has no such path: the scripted upstream stands for Ollama."""
    heading = "ollama for Python"
    python = python_with(f"ollama=={page.version(heading)}", folder_of(request))
    (tmp_path / "client.py").write_text(page.code(heading, "python").replace("smollm2", "scripted"))
    before = newest(front)
    printed = run([str(python), "-c", PYTHON_TWICE, "client.py"], tmp_path, front)
    check_a_miss_and_a_hit(front, "/api/chat", printed, before)


@pytest.mark.timeout(400)
def test_the_lines_of_the_readme(request: pytest.FixtureRequest, front: Proxy, tmp_path: Path) -> None:
    text = (page.ROOT / "README.md").read_text()
    code = next(block for language, block in page.blocks(text) if language == "python")
    assert page.ADDRESS in code
    script = code.replace(page.ADDRESS, f"127.0.0.1:{front.port}").replace('"smollm2"', '"scripted"')
    assert run_with_openai(request, script, front, tmp_path).split() == ["MISS", "HIT"]


@pytest.mark.timeout(400)
def test_the_batch_of_the_page_about_jobs(request: pytest.FixtureRequest, front: Proxy, tmp_path: Path) -> None:
    text = (page.ROOT / "docs" / "jobs.md").read_text()
    blocks = page.blocks(text)
    write_input = next(block for language, block in blocks if "in.jsonl" in block).partition("llmproxy batch")[0]
    subprocess.run(["bash", "-c", f"MODEL=scripted\n{write_input}"], check=True, cwd=tmp_path, timeout=60)
    script = next(block for language, block in blocks if language == "python")
    lines = [json.loads(line) for line in run_with_openai(request, script, front, tmp_path).strip().splitlines()]
    assert {line["custom_id"] for line in lines} == {"1", "2", "3"}
    assert all(line["response"]["status_code"] == 200 for line in lines)


def run_with_openai(request: pytest.FixtureRequest, script: str, proxy: Proxy, folder: Path) -> str:
    (folder / "client.py").write_text(script)
    python = python_with(f"openai=={page.version('openai for Python')}", folder_of(request))
    return run([str(python), "client.py"], folder, proxy)


def test_every_client_of_the_table_has_its_section_and_what_is_tested_says_so() -> None:
    headings = [line.removeprefix("## ") for line in page.TEXT.splitlines() if line.startswith("## ")]
    clients = headings[headings.index("curl") : headings.index("Something else")]
    tested = {client.heading for client in (*PYTHON, *NODE)} | {"llm", "curl", "ollama for Python"}
    assert {heading for heading in clients if "each test run" in page.row(heading)} == tested
    assert all("by hand" in page.row(heading) for heading in clients if heading not in tested)
