"""A server that is killed again and again while it works on jobs, and what must be true in the end.

``python -m tests.jobs.crash.trial --rows 500 --kills 25`` is the long form of the test beside this file.
"""

import argparse
import random
import re
import sqlite3
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.jobs.crash.accepted import PATIENCE, Accepted, Client
from tests.jobs.queue.lawful import Row, check_items
from tests.scripted import marker
from tests.scripted_upstream import Gate, ScriptedUpstream
from tests.server import Proxy

#: which request upstream an answer was given to
_ANSWER = re.compile(r"^answer-(\d+)\b")
#: a kill comes so soon after the request upstream that it waited for
_SOON_SECONDS = 0.05

_JOBS = "SELECT * FROM jobs"
_ITEMS = "SELECT i.*, r.body AS request FROM job_items i JOIN job_requests r ON r.item_id = i.id"


@dataclass(frozen=True)
class Plan:
    rows: int
    kills: int
    seed: int = 0
    workers: int = 4


@dataclass
class Report:
    """How a trial went. ``lost`` are the calls that a kill cost: they went upstream and had no result yet."""

    calls: int = 0
    visits: int = 0
    lost: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{len(self.lost)} kills, {self.calls} calls, each with one result; {self.visits} requests upstream; "
            f"lost by each kill: {self.lost}; {self.seconds:.0f} s"
        )


class Trial:
    """One server, one database, one life after the other."""

    def __init__(self, plan: Plan, upstream: ScriptedUpstream, folder: Path) -> None:
        self._plan = plan
        self._dice = random.Random(plan.seed)
        self._upstream = upstream
        self._proxy = Proxy(upstream.url, database=folder / "llmproxy.db", task_queue_workers=plan.workers)
        self._client = Client(self._proxy)
        self._mark = marker()
        self._accepted = Accepted()
        self._report = Report()
        #: opened with each life
        self._gates: list[Gate] = []
        #: requests upstream in the lives before
        self._before = 0
        #: finished calls at the kills, with the number of requests upstream that each had had: it stays
        self._finished: dict[str, int] = {}

    def run(self) -> Report:
        """Raises ``AssertionError`` for a promise that was not kept."""
        start = time.monotonic()
        # where each life ends: some before the first row, some after the last
        moments = sorted(self._dice.randint(-2, round(self._plan.rows * 1.1)) for _ in range(self._plan.kills))
        with self._proxy:
            self._submit_batch(moments)
            for life, moment in enumerate(moments):
                self._gates[life].open()
                self._submit(life)
                self._kill(min(moment, self._plan.rows))
                self._proxy.start()
            self._gates[-1].open()
            self._submit(self._plan.kills)
            self._check_answers()
        self._check_stored()
        assert "Traceback (most recent call last)" not in self._proxy.log, self._proxy.log
        self._report.seconds = time.monotonic() - start
        return self._report

    def _submit_batch(self, moments: list[int]) -> None:
        """Rows behind the moment of a life's end are not answered in it: those that were begun hang when it comes."""
        self._gates = [self._upstream.gate() for _ in range(len(moments) + 1)]
        rows = [f"{self._mark} row-{number}." for number in range(self._plan.rows)]
        gates = [self._gates[bisect_right(moments, number)].name for number in range(self._plan.rows)]
        self._accepted.rows = rows
        self._accepted.batch = self._client.submit_batch(
            [f"{row}[script:gate={gate}]" for row, gate in zip(rows, gates, strict=True)]
        )

    def _submit(self, life: int) -> None:
        """A task and a Response of this life. A task that may have been accepted already is asked for twice."""
        prompts = [f"{self._mark} task-{life}-{number}." for number in range(3)]
        id = self._client.submit_task(prompts, f"key-{life}")
        self._accepted.tasks[id] = prompts
        prompt = f"{self._mark} response-{life}."
        self._accepted.responses[self._client.submit_response(prompt)] = prompt
        if life:
            before = f"key-{life - 1}"
            prompts = [f"{self._mark} task-{life - 1}-{number}." for number in range(3)]
            assert self._client.submit_task(prompts, before) in self._accepted.tasks, "one key, two tasks"

    def _kill(self, moment: int) -> None:
        """SIGKILL soon after the row before the moment came upstream, or in this life one behind it."""
        deadline = time.monotonic() + PATIENCE
        while moment > 0 and not self._upstream.visits(self._accepted.rows[moment - 1]):
            # what the dead left behind is not always done before what comes next
            late = {self._prompt_in(visit.body) for visit in self._upstream.visits(self._mark)[self._before :]}
            if late & set(self._accepted.rows[moment:]):
                break
            assert time.monotonic() < deadline, "nothing goes on"
            time.sleep(0.01)
        # not to wait for anything: the moment is what is left to chance
        time.sleep(self._dice.uniform(0, _SOON_SECONDS))
        self._proxy.kill()
        ended = {self._prompt_of(row) for row in self._rows(_ITEMS) if row["status"] == "completed"}
        asked = [self._prompt_in(visit.body) for visit in self._upstream.visits(self._mark)]
        self._report.lost.append(len(set(asked[self._before :]) - ended))
        self._before = len(asked)
        self._finished |= {prompt: asked.count(prompt) for prompt in ended - self._finished.keys() if prompt}

    def _check_answers(self) -> None:
        """Every promise is kept, and each answer was given to the very prompt that it is the answer to."""
        answers = self._client.batch_answers(self._accepted.batch)
        assert len(answers) == self._plan.rows
        for number, prompt in enumerate(self._accepted.rows):
            self._check_answer(prompt, answers[f"row-{number}"])
        for id, prompts in self._accepted.tasks.items():
            for prompt, answer in zip(prompts, self._client.task_answers(id), strict=True):
                self._check_answer(prompt, answer)
        for id, prompt in self._accepted.responses.items():
            self._check_answer(prompt, self._client.response_answer(id))

    def _check_answer(self, prompt: str, answer: str) -> None:
        found = _ANSWER.match(answer)
        assert found is not None, answer
        given = {visit.number for visit in self._upstream.visits(prompt)}
        assert int(found.group(1)) in given, f"the answer to {prompt} was given to another"

    def _check_stored(self) -> None:
        """One result each, and what was finished at a kill was not asked for again."""
        jobs, items = self._rows(_JOBS), self._rows(_ITEMS)
        with_request, with_result = (
            {row["item_id"] for row in self._rows(f"SELECT item_id FROM {table}")}
            for table in ("job_requests", "job_results")
        )
        check_items(items, with_request, with_result)
        assert {row["status"] for row in (*jobs, *items)} == {"completed"}
        assert len(jobs) == 1 + len(self._accepted.tasks) + len(self._accepted.responses)
        calls = [row for row in items if row["step"] == "call"]
        assert Counter(self._prompt_of(row) for row in calls) == Counter(self._accepted.prompts)
        visits = self._visits()
        again = {prompt: visits[prompt] for prompt, number in self._finished.items() if visits[prompt] != number}
        assert not again, f"finished rows were run again: {again}"
        # an attempt more is made of what was in work at a kill, and of nothing else
        repeats = sum(visits.values()) - len(self._accepted.prompts)
        assert repeats <= sum(self._report.lost), f"{repeats} requests too many"
        self._report.calls, self._report.visits = len(calls), sum(visits.values())

    def _visits(self) -> Counter[str]:
        """How often each prompt came upstream."""
        seen = Counter(self._prompt_in(visit.body) for visit in self._upstream.visits(self._mark))
        return Counter({prompt: seen[prompt] for prompt in self._accepted.prompts})

    def _prompt_of(self, row: Row) -> str:
        return self._prompt_in(row["request"])

    def _prompt_in(self, body: bytes) -> str:
        found = re.search(re.escape(self._mark).encode() + rb" [a-z]+-[0-9-]+\.", body)
        return found.group().decode() if found else ""

    def _rows(self, query: str) -> list[Row]:
        with closing(sqlite3.connect(self._proxy.database)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query)]


def run(plan: Plan) -> Report:
    with ScriptedUpstream() as upstream, tempfile.TemporaryDirectory() as folder:
        return Trial(plan, upstream, Path(folder)).run()


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill a server while it works on jobs.")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--workers", type=int, default=4)
    given = parser.parse_args()
    plan = Plan(given.rows, given.kills, given.seed, given.workers)
    print(plan, flush=True)
    print(run(plan))
    sys.exit(0)


if __name__ == "__main__":
    main()
