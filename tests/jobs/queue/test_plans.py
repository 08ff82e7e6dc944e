"""How SQLite answers the queue's questions: by an index, so that a million finished items cost nothing."""

import re

import pytest
from sqlalchemy import event

from llmproxy.database.engine import Database
from llmproxy.jobs import lifecycle, queries
from llmproxy.jobs.model import JobKind, Lane, Reschedule
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queries import JobQuery
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from tests.clock import Clock
from tests.jobs.queue.working import LEASE, bad, batch, claim, finish, submit

#: what may be read from one end to the other: they hold only what waits, and what runs
SHORT = ("ix_job_items_waiting", "ix_job_items_running")

_SCAN = re.compile(r"SCAN (?:jobs|job_items|job_requests|job_results)\b(?: USING (?:COVERING )?INDEX (\w+))?")


@pytest.fixture
def queue(sqlite: Database, clock: Clock) -> Queue:
    return Queue(Store(sqlite), JobNotifications(), clock, clock.shared)


class Statements:
    """Every statement that is executed, with values for one execution of it."""

    def __init__(self, database: Database) -> None:
        self.seen: dict[str, object] = {}
        self._engine = database.engine.sync_engine
        event.listen(self._engine, "before_cursor_execute", self._note)

    def _note(self, connection: object, cursor: object, text: str, values: object, context: object, many: bool) -> None:
        if text.startswith(("SELECT", "UPDATE", "DELETE", "INSERT", "WITH")):
            self.seen.setdefault(text, values[0] if many else values)  # type: ignore[index]  # a list of many

    def stop(self) -> None:
        event.remove(self._engine, "before_cursor_execute", self._note)


async def everything(queue: Queue, clock: Clock) -> None:
    """All that is ever asked of the queue while it works."""
    lines = await batch(queue, 4, expires_at=clock.now + LEASE)
    job = await submit(queue, 6, idempotency_key="k", webhook_url="http://hook")
    await submit(queue, 6, idempotency_key="k")
    await queue.waiting()
    claimed = await claim(queue, limit=8)
    await queue.renew("w", LEASE)
    await queue.reschedule("w", claimed[0], Reschedule(1))
    await queue.give_back("w", claimed[1].id, claimed[1].claims)
    await finish(queue, claimed[2:6])
    await finish(queue, claimed[6:], bad())
    await queue.workers()
    await queries.backlog(queue.store)
    await queue.release("w")
    await queries.calls(queue.store, job.id)
    await queries.ended(queue.store, job.id)
    await lifecycle.cancel(queue, job.id)
    await lifecycle.retry(queue, job.id)
    await lifecycle.cancel(queue, job.id)
    clock.passes(2 * LEASE)
    await lifecycle.expire(queue)
    await claim(queue, lane=Lane.STEPS)
    await lifecycle.ended_before(queue, clock.now, 5)
    await lifecycle.delete_job(queue, job.id)
    await queries.page(queue.store, JobQuery(kind=JobKind.BATCH, after=lines.id))


async def test_no_table_is_read_from_one_end_to_the_other(queue: Queue, clock: Clock, sqlite: Database) -> None:
    statements = Statements(sqlite)
    await everything(queue, clock)
    statements.stop()
    plans: dict[str, list[str]] = {}
    async with sqlite.read() as connection:
        for text, values in statements.seen.items():
            rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)  # type: ignore[arg-type]
            plans[text] = [str(row.detail) for row in rows]
    scans = [
        (found.group(1), text)
        for text, plan in plans.items()
        for line in plan
        if (found := _SCAN.match(line)) is not None
    ]
    assert [text for index, text in scans if index not in SHORT] == []
    # the indexes of what waits and what runs are in use, and by nobody who wants one job's items
    used = {index: [text for text, plan in plans.items() if any(index in line for line in plan)] for index in SHORT}
    assert all(used.values())
    assert not [text for texts in used.values() for text in texts if "job_items.job_id = ?" in text]
