"""Who works on what, for how long, and what becomes of it when they do not come back."""

import asyncio

import pytest

from llmproxy.database.engine import Database, open_database
from llmproxy.jobs import lifecycle, queries
from llmproxy.jobs.model import ItemStatus, JobKind, JobStatus, Lane, NewJob, Reschedule, Step
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queries import Backlog
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from tests.clock import Clock
from tests.jobs.queue.working import LEASE, PATH, batch, calls_of, claim, finish, job_of, some_calls, submit
from tests.timeouts import WAIT_SECONDS

#: on SQLite writers take turns as a whole
ROWS_ARE_LOCKED = pytest.mark.parametrize("database_kind", ["postgresql"])


async def test_what_comes_first_and_what_somebody_waits_for(queue: Queue) -> None:
    """Steps and Responses before tasks, tasks before batches; within one, the order of coming."""
    lines = await batch(queue, 2)
    task = await submit(queue, 2)
    answer = await queue.submit(NewJob(JobKind.RESPONSE, PATH), some_calls(1))
    step = await queue.submit(NewJob(JobKind.BATCH, PATH), [])
    claimed = await claim(queue)
    assert [item.job.id for item in claimed] == [step.id, answer.id, task.id, task.id, lines.id, lines.id]
    assert [item.position for item in claimed] == [0, 0, 0, 1, 0, 1]


async def test_a_claim_has_all_that_its_work_needs(queue: Queue, clock: Clock) -> None:
    job = await submit(queue, 3, model="m", headers=[(b"cache-control", b"no-store")])
    clock.passes(2)
    [item] = await claim(queue, limit=1)
    assert (item.claims, item.attempts, item.step, item.position, item.label) == (1, 0, Step.CALL, 0, "label-0")
    assert item.body == b'{"call": 0}'
    assert (item.job.id, item.job.model, item.job.headers) == (job.id, "m", [(b"cache-control", b"no-store")])
    assert (item.job.status, item.job.started_at) == (JobStatus.RUNNING, clock.now)
    assert await job_of(queue, job.id) == item.job


async def test_only_steps(queue: Queue) -> None:
    await submit(queue, 2)
    await queue.submit(NewJob(JobKind.RESPONSE, PATH), some_calls(1))
    await queue.submit(NewJob(JobKind.BATCH, PATH), [])
    assert [item.step for item in await claim(queue, lane=Lane.STEPS)] == [Step.VALIDATE]
    assert len(await claim(queue)) == 3


async def test_many_who_claim_at_once_share_without_overlap(queue: Queue, database: Database, clock: Clock) -> None:
    job = await submit(queue, 200)
    async with open_database(database.engine.url.render_as_string(hide_password=False)) as other:
        queues = [queue, Queue(Store(other), JobNotifications(), clock, clock.shared)]

        async def work(worker: str, queue: Queue) -> list[int]:
            mine: list[int] = []
            while claimed := await claim(queue, worker, 7):
                mine += [item.id for item in claimed]
            return mine

        shares = await asyncio.gather(*(work(f"w{n}", queues[n % 2]) for n in range(6)))
    taken = [id for share in shares for id in share]
    assert sorted(taken) == [item.id for item in await calls_of(queue, job)]


async def test_a_lease_that_ran_out_is_claimed_again_and_its_result_does_not_count(queue: Queue, clock: Clock) -> None:
    job = await submit(queue, 1)
    [slow] = await claim(queue, "slow")
    clock.passes(LEASE)
    assert await claim(queue, "quick") == []
    clock.passes(0.1)
    assert await queue.waiting()
    [again] = await claim(queue, "quick")
    assert (again.id, again.claims, again.attempts) == (slow.id, 2, 0)
    assert await finish(queue, [slow], worker="slow") == set()
    assert await finish(queue, [slow], worker="quick") == set()
    assert (await job_of(queue, job.id)).completed == 0
    assert await finish(queue, [again], worker="quick") == {again.id}
    assert (await job_of(queue, job.id)).status is JobStatus.COMPLETED


async def test_a_result_after_the_lease_counts_while_nobody_else_has_the_item(queue: Queue, clock: Clock) -> None:
    await submit(queue, 1)
    claimed = await claim(queue)
    clock.passes(LEASE * 3)
    assert await finish(queue, claimed) == {claimed[0].id}


async def test_leases_are_renewed_for_their_worker_alone(queue: Queue, clock: Clock) -> None:
    await submit(queue, 2)
    [mine] = await claim(queue, "a", 1)
    [theirs] = await claim(queue, "b", 1)
    clock.passes(LEASE - 1)
    assert await queue.renew("a", LEASE) == {mine.id: 1}
    clock.passes(2)
    assert [item.id for item in await claim(queue, "c")] == [theirs.id]
    assert await queue.renew("b", LEASE) == {}


async def test_what_was_put_off_waits_for_its_time(queue: Queue, clock: Clock) -> None:
    job = await submit(queue, 1)
    [item] = await claim(queue)
    await queue.reschedule("w", item, Reschedule(5))
    assert await claim(queue) == []
    assert not await queue.waiting()
    clock.passes(5)
    assert await queue.waiting()
    [item] = await claim(queue)
    assert (item.attempts, item.claims) == (1, 2)
    await queue.reschedule("w", item, Reschedule(0, counts=False))
    [item] = await claim(queue)
    assert (item.attempts, item.claims) == (1, 3)
    await finish(queue, [item])
    assert [(item.attempts, item.status) for item in await calls_of(queue, job)] == [(2, ItemStatus.COMPLETED)]


async def test_who_lost_the_lease_cannot_put_off_or_give_back(queue: Queue, clock: Clock) -> None:
    await submit(queue, 1)
    [lost] = await claim(queue)
    clock.passes(LEASE + 1)
    [item] = await claim(queue)
    await queue.reschedule("w", lost, Reschedule(100))
    await queue.give_back("w", lost.id, lost.claims)
    await queue.give_back("somebody", item.id, item.claims)
    assert await queue.renew("w", LEASE) == {item.id: item.claims}
    await queue.give_back("w", item.id, item.claims)
    assert await queue.renew("w", LEASE) == {}
    assert len(await claim(queue)) == 1


async def test_a_worker_that_ends_gives_everything_back(queue: Queue) -> None:
    await submit(queue, 5)
    await claim(queue, "a", 2)
    await claim(queue, "b", 1)
    assert await queue.workers() == {"a", "b"}
    assert await queue.release("a") == 2
    assert await queue.release("a") == 0
    assert await queue.workers() == {"b"}
    assert await queries.backlog(queue.store) == Backlog(4, 1, queue.clock())
    assert [item.claims for item in await claim(queue)] == [2, 2, 1, 1]


@ROWS_ARE_LOCKED
async def test_a_claim_does_not_wait_for_a_job_that_somebody_changes(queue: Queue, database: Database) -> None:
    """It finds the job locked, and the job is said to have begun when its first result comes."""
    job = await submit(queue, 2)
    async with database.write() as connection:
        await connection.exec_driver_sql("SELECT id FROM jobs FOR UPDATE")
        claimed = await asyncio.wait_for(claim(queue), WAIT_SECONDS)
    assert [item.job.status for item in claimed] == [JobStatus.PENDING] * 2
    await finish(queue, claimed[:1])
    assert (await job_of(queue, job.id)).status is JobStatus.RUNNING


@ROWS_ARE_LOCKED
async def test_what_is_being_ended_is_passed_over(queue: Queue, database: Database) -> None:
    job, other = await submit(queue, 2), await submit(queue, 1)
    async with database.write() as connection:
        await connection.exec_driver_sql(f"SELECT id FROM job_items WHERE job_id = '{job.id}' FOR UPDATE")
        claimed = await asyncio.wait_for(claim(queue), WAIT_SECONDS)
    assert [item.job.id for item in claimed] == [other.id]
    await lifecycle.cancel(queue, job.id)
    assert await claim(queue) == []


async def test_a_job_that_waits_makes_those_who_look_see_it(queue: Queue, clock: Clock) -> None:
    assert not await queue.waiting()
    assert await queries.backlog(queue.store) == Backlog(0, 0, None)
    await submit(queue, 1)
    assert await queue.waiting()
    assert await queries.backlog(queue.store) == Backlog(1, 0, clock.now)
    await finish(queue, await claim(queue))
    assert not await queue.waiting()
