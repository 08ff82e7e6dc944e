"""What ``llmproxy serve`` loads: start-up time and idle memory are paid for by the module."""

import re
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.conftest import MakeProxy
from tests.scripted_upstream import ScriptedUpstream

#: of tests, of the demo, of migrations, of other databases, of what only others of our users run
UNWANTED = (
    "aiohttp",
    "alembic",
    "asyncpg",
    "fastapi",
    "grafana",
    "grpc",
    "httpx",
    "hypothesis",
    "jinja2",
    "llmproxy.cli.cache",
    "llmproxy.cli.db",
    "llmproxy.cli.demo",
    "llmproxy.database.migrate",
    "llmproxy.database.postgres",
    "locust",
    "mako",
    "numpy",
    "openai",
    "opentelemetry",
    "psycopg",
    "pydantic_settings",
    "pytest",
    "redis",
    "requests",
    "rich",
    "sqlalchemy.dialects.postgresql",
    "tiktoken",
    "torch",
    "unittest",
    "xllamacpp",
)

#: 835 with Python 3.11 when this was written, 204 of them our own. A module takes about half a millisecond
BUDGET = 900

#: a line of Python's own report. It leaves out what is imported by a computed name, but not what that imports
_IMPORT = re.compile(r"^import time: +\d+ \| +\d+ \| +(\S+)$", re.M)


@pytest.fixture
def loaded(upstream: ScriptedUpstream, proxy: MakeProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The modules that a server had loaded after a miss, a hit and a scrape."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    # with a path of its own it is an interpreter of its own, not forked from one that has imported everything
    server = proxy(upstream.url, python_path=tmp_path)
    body = {"model": "m", "messages": [{"role": "user", "content": "imports"}]}
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        for expected in ("MISS", "HIT"):
            answer = client.post("/v1/chat/completions", json=body)
            assert answer.headers["x-cache"] == expected
        assert client.get("/metrics").status_code == 200
    server.stop()
    return set(_IMPORT.findall(server.log))


def test_serve_loads_what_it_needs_and_no_more(loaded: set[str]) -> None:
    assert {"llmproxy.app.server", "llmproxy.proxy.pipeline", "aiosqlite", "uvloop"} <= loaded
    unwanted = {name for name in loaded for root in UNWANTED if name == root or name.startswith(root + ".")}
    assert unwanted == set()
    packages = Counter(name.partition(".")[0] for name in loaded)
    assert len(loaded) <= BUDGET, packages.most_common(20)
