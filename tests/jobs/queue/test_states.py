"""No order of events leaves a job or an item in a state that must not be.

The rules do to a real database whatever workers, callers, time and death can do, and keep an account of who holds which
lease and which results counted. After each one all that is stored is held against the account and against the laws.
"""

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import Table

from llmproxy.database.engine import Database
from llmproxy.jobs import lifecycle
from llmproxy.jobs.model import (
    BATCH_STEPS,
    TRAITS,
    Claimed,
    ItemStatus,
    JobKind,
    JobStatus,
    Lane,
    NewJob,
    Reschedule,
    Step,
)
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from llmproxy.jobs.tables import items, jobs, requests, results
from llmproxy.wire.errors import Conflict
from tests.clock import Clock
from tests.jobs.queue.lawful import ENDED, Row, check_items, check_jobs
from tests.jobs.queue.working import LEASE, PATH, bad, closing, good, made, opened, some_calls

T = TypeVar("T")
Held = tuple[str, Claimed]
WORKERS = st.sampled_from(["a", "b"])
#: one of those that there are
WHICH = st.integers(0, 20)


class QueueMachine(RuleBasedStateMachine):
    """Jobs of every kind, two workers, one clock. ``empty`` is the file of a new database."""

    empty: Path
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        file = Path(self.folder.name) / "x.db"
        shutil.copy(self.empty, file)
        self.database: Database = self.do(opened(file))
        # past the program, and quicker
        self.looking = sqlite3.connect(file)
        self.looking.row_factory = sqlite3.Row
        self.clock = Clock(1_700_000_000.0)
        self.queue = Queue(Store(self.database), JobNotifications(), self.clock, self.clock.shared)
        #: leases as they should be held, by item
        self.held: dict[int, Held] = {}
        #: leases that were lost, given back or used up
        self.lost: list[Held] = []
        #: results that counted: item -> number of the claim
        self.counted: dict[int, int] = {}
        self.removed: set[str] = set()

    def teardown(self) -> None:
        self.looking.close()
        self.do(self.database.close())
        self.runner.close()
        self.folder.cleanup()

    # what callers do

    @precondition(lambda self: len(self.rows(jobs)) < 4)
    @rule(
        target=ids,
        kind=st.sampled_from([JobKind.BATCH, JobKind.BATCH, JobKind.TASK, JobKind.RESPONSE]),
        number=st.integers(1, 4),
        late=st.sampled_from([False, False, True]),
        hook=st.booleans(),
    )
    def submit(self, kind: JobKind, number: int, late: bool, hook: bool) -> str:
        calls = [] if TRAITS[kind].first else some_calls(number)
        expires = self.clock.now + 2 * LEASE if late else None
        new = NewJob(kind, PATH, expires_at=expires, webhook_url="http://hook" if hook else "")
        return self.do(self.queue.submit(new, calls)).id

    @rule(id=ids)
    def cancel(self, id: str) -> None:
        _, done = self.do(lifecycle.cancel(self.queue, id))
        if done:
            self.ended(id)

    @rule(id=ids)
    def retry(self, id: str) -> None:
        before = self.rows(jobs)
        try:
            again = self.do(lifecycle.retry(self.queue, id))
        except Conflict:
            assert self.rows(jobs) == before
            return
        if again is not None:
            self.ended(id)
            stay = {row["id"] for row in self.rows(items) if row["status"] in ENDED}
            self.counted = {item: claims for item, claims in self.counted.items() if item in stay}

    @rule(id=ids)
    def remove(self, id: str) -> None:
        present = {row["id"]: row["status"] for row in self.rows(jobs)}
        try:
            assert self.do(lifecycle.delete_job(self.queue, id)) is (id in present)
        except Conflict:
            assert not JobStatus(present[id]).over
            return
        self.removed.add(id)
        self.ended(id)
        left = {row["id"] for row in self.rows(items)}
        self.counted = {item: claims for item, claims in self.counted.items() if item in left}

    # what workers do

    @rule(worker=WORKERS, limit=st.integers(1, 3), lane=st.sampled_from(Lane))
    def claim(self, worker: str, limit: int, lane: Lane) -> None:
        self.claimed(worker, limit, lane)

    @rule(worker=WORKERS, limit=st.integers(1, 6), rounds=st.integers(1, 3), failing=st.sets(st.integers(0, 5)))
    def work(self, worker: str, limit: int, rounds: int, failing: set[int]) -> None:
        """Claims, and does at once what there is to do."""
        for _ in range(rounds):
            for number, item in enumerate(self.claimed(worker, limit, Lane.ALL)):
                if item.step is Step.VALIDATE:
                    self.find(worker, item, 3, 3)
                self.end(worker, item, fails=number in failing and item.step is Step.CALL)

    @precondition(lambda self: self.held)
    @rule(which=WHICH, fails=st.booleans())
    def finish(self, which: int, fails: bool) -> None:
        worker, item = self.one_held(which)
        self.end(worker, item, fails)

    @precondition(lambda self: self.held)
    @rule(which=WHICH, total=st.integers(1, 4), added=st.integers(0, 4))
    def validate(self, which: int, total: int, added: int) -> None:
        """The first step finds its calls, and adds all of them or is interrupted."""
        worker, item = self.one_held(which)
        if item.step is Step.VALIDATE:
            self.find(worker, item, total, added)

    @precondition(lambda self: self.held)
    @rule(which=WHICH, seconds=st.sampled_from([0.0, 3.0]), counts=st.booleans())
    def reschedule(self, which: int, seconds: float, counts: bool) -> None:
        worker, item = self.one_held(which)
        self.do(self.queue.reschedule(worker, item, Reschedule(seconds, counts)))
        self.lose(item.id)

    @precondition(lambda self: self.held)
    @rule(which=WHICH)
    def give_back(self, which: int) -> None:
        worker, item = self.one_held(which)
        self.do(self.queue.give_back(worker, item.id, item.claims))
        self.lose(item.id)

    @precondition(lambda self: self.lost)
    @rule(which=WHICH, fails=st.booleans())
    def come_late(self, which: int, fails: bool) -> None:
        """Whatever is done under a lease that was lost changes nothing."""
        self.without_a_lease(*self.lost[which % len(self.lost)], fails)

    @precondition(lambda self: self.held)
    @rule(which=WHICH, fails=st.booleans())
    def pretend(self, which: int, fails: bool) -> None:
        """Nor does it under another's."""
        worker, item = self.one_held(which)
        self.without_a_lease({"a": "b", "b": "a"}[worker], item, fails)

    @rule(worker=WORKERS)
    def renew(self, worker: str) -> None:
        still = self.do(self.queue.renew(worker, LEASE))
        assert still == {id: item.claims for id, (holder, item) in self.held.items() if holder == worker}

    @rule(worker=WORKERS)
    def die(self, worker: str) -> None:
        """Somebody notices, and gives back what it held."""
        mine = [id for id, (holder, _) in self.held.items() if holder == worker]
        assert self.do(self.queue.release(worker)) == len(mine)
        for id in mine:
            self.lose(id)

    # what time does

    @rule(seconds=st.sampled_from([1.0, LEASE + 1, 3 * LEASE]))
    def time_passes(self, seconds: float) -> None:
        self.clock.passes(seconds)

    @rule()
    def expire(self) -> None:
        for job in self.do(lifecycle.expire(self.queue)):
            assert job.expires_at is not None
            assert job.expires_at <= self.clock.now
            self.ended(job.id)

    # what must be true whatever was done

    @invariant()
    def the_laws_are_kept(self) -> None:
        there = self.rows(items)
        check_jobs(self.rows(jobs), there, good().tokens)
        check_items(there, *({row["item_id"] for row in self.rows(table)} for table in (requests, results)))
        assert not self.removed & {row["id"] for row in self.rows(jobs)}
        claims = {row["id"]: row["claims"] for row in there if row["status"] in ENDED}
        assert claims == self.counted, "what counted stays, and is claimed no more"
        running = {row["id"]: (row["worker"], row["claims"]) for row in there if row["status"] == ItemStatus.RUNNING}
        assert running == {id: (worker, item.claims) for id, (worker, item) in self.held.items()}

    # what the rules are made of

    def do(self, work: Awaitable[T]) -> T:
        async def doing() -> T:
            return await work

        return self.runner.run(doing())

    def rows(self, table: Table) -> Sequence[Row]:
        return [dict(row) for row in self.looking.execute(f"SELECT * FROM {table.name}")]

    def one_held(self, which: int) -> Held:
        return self.held[sorted(self.held)[which % len(self.held)]]

    def lose(self, id: int) -> None:
        self.lost.append(self.held.pop(id))

    def ended(self, job_id: str) -> None:
        """The job has ended, or is gone: of its items only a word to a webhook may still be in work."""
        status = {row["id"]: row["status"] for row in self.rows(items)}
        for id in [id for id, (_, item) in self.held.items() if item.job.id == job_id]:
            if status.get(id) != ItemStatus.RUNNING:
                self.lose(id)

    def claimed(self, worker: str, limit: int, lane: Lane) -> Sequence[Claimed]:
        for row in self.rows(items):
            if (row["leased_until"] or self.clock.now) < self.clock.now:
                self.lose(row["id"])
        claimed = self.do(self.queue.claim(worker, limit, LEASE, lane))
        assert len(claimed) <= limit
        for item in claimed:
            assert item.id not in self.held, "two have it at once"
            assert item.id not in self.counted, "it runs though it is over"
            assert lane is not Lane.STEPS or item.step in BATCH_STEPS
            assert lane is not Lane.MESSAGES or item.step is Step.DELIVER
            self.held[item.id] = (worker, item)
        return claimed

    def end(self, worker: str, item: Claimed, fails: bool) -> None:
        mine = [row for row in self.rows(items) if row["job_id"] == item.job.id and row["step"] == Step.CALL]
        if item.step is Step.VALIDATE:
            # what it has not added it does not say it has
            total = next(row["total"] for row in self.rows(jobs) if row["id"] == item.job.id)
            fails = fails or len(mine) < max(total, 1)
        result = bad() if fails else good()
        if item.step is Step.FINALIZE and not fails:
            result = closing(result)
        assert self.do(self.queue.finish(worker, [(item, result)])) == {item.id}
        self.lose(item.id)
        self.counted[item.id] = item.claims
        self.ended(item.job.id)

    def find(self, worker: str, item: Claimed, total: int, added: int) -> None:
        there = {row["position"] for row in self.rows(items) if row["job_id"] == item.job.id and row["step"] == "call"}
        # another turn of the same step finds what the one before found
        known = next(row["total"] for row in self.rows(jobs) if row["id"] == item.job.id) or total
        new = [call for call in some_calls(min(known, added)) if call.position not in there]
        begun = self.do(self.queue.begin(item, worker, known, "m"))
        assert (begun is not None) is self.do(self.queue.add(item, worker, new))

    def without_a_lease(self, worker: str, item: Claimed, fails: bool) -> None:
        before = [self.rows(table) for table in (jobs, items, results, requests)]
        assert self.do(self.queue.finish(worker, [(item, bad() if fails else good())])) == set()
        self.do(self.queue.reschedule(worker, item, Reschedule(3.0)))
        self.do(self.queue.give_back(worker, item.id, item.claims))
        assert self.do(self.queue.begin(item, worker, 9, "x")) is None
        assert not self.do(self.queue.add(item, worker, some_calls(9)))
        assert [self.rows(table) for table in (jobs, items, results, requests)] == before


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A new database's file: making its tables for each example would cost more than all the rest."""
    file = tmp_path / "empty.db"
    asyncio.run(made(file))
    return file


def test_no_order_of_events_is_wrong(empty: Path) -> None:
    run_state_machine_as_test(
        type("Machine", (QueueMachine,), {"empty": empty}),
        settings=settings(
            max_examples=25, stateful_step_count=35, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
