"""A server and two workers on one PostgreSQL, one of which may die: who does what, and that all is done once.

``python -m tests.jobs.crash.sharing --items 5000 [--kill]`` is the long form of the test beside this file.
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy import select

from llmproxy.database.engine import open_database
from llmproxy.jobs.tables import items, results
from tests.databases import PostgresServer, postgres_programs
from tests.jobs.crash.processes import Server, Worker
from tests.jobs.queue.lawful import ENDED
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream

#: calls in work at once in each worker
CALLS = 4
PATIENCE = 300.0

#: of a request id, what all those of one process begin with
_PROCESS = slice(0, 16)


@dataclass(frozen=True)
class Share:
    """How many results each process gave, the most first; and how many requests upstream were one too many."""

    results: list[int]
    repeats: int
    seconds: float


def share(number: int, kill: bool, upstream: ScriptedUpstream, database: str, folder: Path) -> Share:
    """Raises ``AssertionError`` for an item that was done twice, or not at all."""
    mark, gate = marker(), upstream.gate()
    # each worker gets as many of these as it can have in work, and then waits
    held = 2 * CALLS
    prompts = [f"{mark} {n}." + (f"[script:gate={gate.name}]" if n < held else "") for n in range(number)]
    with ExitStack() as stack:
        server = stack.enter_context(Server(upstream.url, database, folder / "server.log"))
        url = server.url
        workers = [
            stack.enter_context(Worker(upstream.url, database, folder / f"worker{n}.log", CALLS)) for n in range(2)
        ]
        for worker in workers:
            worker.ready()
        start = time.monotonic()
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            answer = http.post("/api/completions/batch", json={"prompts": prompts, "model": "scripted"})
            assert answer.status_code == 202, answer.text
            path = str(answer.headers["location"])
            upstream.journal.wait(mark, held)
            if kill:
                workers[0].kill()
            gate.open()
            _over(http, path)
        seconds = time.monotonic() - start
    logs = "".join(path.read_text() for path in folder.glob("*.log"))
    assert "Traceback (most recent call last)" not in logs, logs
    given = asyncio.run(_given(database, number))
    visits = len(upstream.visits(mark))
    return Share([count for _, count in Counter(id[_PROCESS] for id in given).most_common()], visits - number, seconds)


def _over(http: httpx.Client, path: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while (task := http.get(path, params={"limit": 1}).json())["status"] in ("pending", "running"):
        assert time.monotonic() < deadline, task
        time.sleep(0.1)
    assert task["status"] == "completed", task


async def _given(database: str, number: int) -> list[str]:
    """The request ids of the results, once it is sure that there is one for each call."""
    async with open_database(database) as opened, opened.read() as connection:
        rows = (await connection.execute(select(items.c.id, items.c.status, items.c.ended))).all()
        found = (await connection.execute(select(results.c.item_id, results.c.request_id))).all()
    assert len(rows) == number
    assert {row.status for row in rows} == {ENDED[0]}
    assert sorted(row.ended for row in rows) == list(range(1, number + 1))
    assert sorted(row.item_id for row in found) == sorted(row.id for row in rows)
    return [row.request_id for row in found]


def main() -> None:
    parser = argparse.ArgumentParser(description="Share items between two workers.")
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--kill", action="store_true")
    given = parser.parse_args()
    programs = postgres_programs()
    assert programs is not None, "PostgreSQL is not installed"
    postgres = PostgresServer(programs)
    postgres.start()
    try:
        with ScriptedUpstream() as upstream, tempfile.TemporaryDirectory() as folder:
            print(share(given.items, given.kill, upstream, postgres.create(), Path(folder)))
    finally:
        postgres.remove()


if __name__ == "__main__":
    main()
