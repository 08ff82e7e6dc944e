"""``llmproxy db copy``: an SQLite database to PostgreSQL, and the proxy goes on there where it was."""

import time
from pathlib import Path

import httpx

from tests.cli.program import Program
from tests.conftest import MakeProxy
from tests.databases import PostgresServer
from tests.scripted import CHAT, marker
from tests.scripted_upstream import ScriptedUpstream
from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS


def client(proxy: Proxy) -> httpx.Client:
    return httpx.Client(base_url=proxy.url, trust_env=False, timeout=WAIT_SECONDS)


def ended(http: httpx.Client, id: str) -> str:
    """How a task ended, once it has."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (status := http.get(f"/api/tasks/{id}?wait=5").json()["status"]) in ("pending", "running"):
        assert time.monotonic() < deadline
    return str(status)


def counts(out: str) -> dict[str, int]:
    rows = (line.split() for line in out.splitlines()[1:] if len(line.split()) == 2)
    return {name: int(count.replace(",", "")) for name, count in rows}


def test_everything_goes_along_and_goes_on(
    llmproxy: Program, upstream: ScriptedUpstream, proxy: MakeProxy, postgres: PostgresServer
) -> None:
    own, url, prompt = proxy(upstream.url), postgres.create_empty(), marker()
    gate = upstream.gate()
    with client(own) as http:
        for number in range(30):
            asked = CHAT.request(f"{prompt} {number}", user="ann")
            assert http.post(CHAT.path, json=asked).headers["x-cache"] == "MISS"
        done = http.post("/api/completions", json={"prompt": f"{prompt} job", "background": True}).json()["task_id"]
        assert ended(http, done) == "completed"
        hanging = {"prompt": f"[script:gate={gate.name}] {prompt}", "background": True}
        waiting = http.post("/api/completions", json=hanging).json()["task_id"]
        newest = http.get("/api/history?limit=1").json()["data"][0]["id"]
        refused = llmproxy("db", "copy", "--from", str(own.database), "--to", url)
        assert (refused.code, "is in use" in refused.err) == (1, True)
    own.stop()
    gate.open()
    copied = llmproxy("db", "copy", "--from", str(own.database), "--to", url)
    assert copied.code == 0, copied.err
    rows = counts(copied.out)
    assert rows["cache_entries"] >= 30
    assert rows["history"] >= 30
    assert rows["jobs"] == 2
    again = llmproxy("db", "copy", "--from", str(own.database), "--to", url)
    assert again.code == 1
    assert "rows there already: copy into a new database" in again.err
    there = proxy(upstream.url, database_url=url)
    with client(there) as http:
        assert http.post(CHAT.path, json=CHAT.request(f"{prompt} 7", user="ann")).headers["x-cache"] == "HIT"
        assert http.get(f"/api/tasks/{done}").json()["status"] == "completed"
        # what was in work goes on, and new rows get numbers of their own
        assert ended(http, waiting) == "completed"
        page = http.get("/api/history", params={"user_id": "ann", "limit": 1000}).json()["data"]
        assert len(page) == 31
        assert page[0]["id"] > newest
        # texts are indexed anew
        while not (found := http.get("/api/history", params={"q": f"{prompt} 7", "limit": 5}).json())["complete"]:
            pass
        assert found["data"]


def test_what_is_not_there_or_no_postgresql_is_one_line(llmproxy: Program, tmp_path: Path) -> None:
    missing = llmproxy("db", "copy", "--from", "x.db", "--to", "postgresql://host/name")
    assert (missing.code, missing.err) == (1, "llmproxy: there is no SQLite database at x.db\n")
    assert llmproxy("db", "upgrade", "--database", "x.db").code == 0
    other = llmproxy("db", "copy", "--from", "x.db", "--to", "y.db")
    assert (other.code, len(other.err.splitlines())) == (1, 1)
    assert "takes the URL of a PostgreSQL database" in other.err


def test_a_failure_copies_nothing_and_is_one_line_without_the_password(llmproxy: Program) -> None:
    assert llmproxy("db", "upgrade", "--database", "x.db").code == 0
    failed = llmproxy("db", "copy", "--from", "x.db", "--to", "postgresql://me:s3cret@127.0.0.1:1/x")
    assert (failed.code, len(failed.err.splitlines())) == (1, 1)
    assert "s3cret" not in failed.err
