"""Jobs that end otherwise than by themselves."""

import asyncio

import pytest

from llmproxy.jobs import lifecycle, queries
from llmproxy.jobs.model import ItemStatus, JobKind, JobStatus, NewJob, Step
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.tables import items, jobs, requests, results
from llmproxy.wire.errors import Conflict
from tests.clock import Clock
from tests.jobs.queue.working import (
    PATH,
    bad,
    batch,
    calls_of,
    claim,
    closing,
    count,
    finish,
    good,
    job_of,
    some_calls,
    steps_of,
    submit,
)


async def test_a_cancelled_job_ends_at_once_and_keeps_what_it_has(queue: Queue, clock: Clock) -> None:
    cut: list[str] = []
    queue.notifications.on_job_ended(cut.append)
    job = await submit(queue, 4)
    first, second, _ = await claim(queue, limit=3)
    await queue.finish("w", [(first, good()), (second, bad())])
    clock.passes(1)
    ended, done = await lifecycle.cancel(queue, job.id)
    assert ended is not None
    assert done
    assert cut == [job.id]
    assert (ended.status, ended.completed, ended.failed, ended.cancelled) == (JobStatus.CANCELLED, 1, 1, 2)
    assert (ended.finished_at, ended.cancelling_at) == (clock.now, clock.now)
    assert [item.status for item in await calls_of(queue, job)] == ["completed", "failed", "cancelled", "cancelled"]
    assert await claim(queue) == []
    assert await lifecycle.cancel(queue, job.id) == (ended, False)
    assert cut == [job.id]


async def test_the_result_of_a_call_that_was_cancelled_in_flight_does_not_count(queue: Queue) -> None:
    job = await submit(queue, 1)
    claimed = await claim(queue)
    await lifecycle.cancel(queue, job.id)
    assert await finish(queue, claimed) == set()
    assert (await job_of(queue, job.id)).completed == 0
    assert await count(queue.store, results) == 0


async def test_who_is_not_known_is_not_cancelled(queue: Queue) -> None:
    assert await lifecycle.cancel(queue, "task_x") == (None, False)


async def test_a_batch_cancelled_on_its_way_writes_what_it_has(queue: Queue, clock: Clock) -> None:
    lines = await batch(queue, 3)
    [item] = await claim(queue, limit=1)
    await finish(queue, [item])
    ended, done = await lifecycle.cancel(queue, lines.id)
    assert ended is not None
    assert (ended.status, ended.ending, ended.cancelled, done) == (JobStatus.CANCELLING, "cancelled", 2, True)
    assert (await lifecycle.cancel(queue, lines.id))[1] is False
    cancelled_at = clock()
    clock.passes(3)
    [last] = await claim(queue)
    assert last.step is Step.FINALIZE
    await finish(queue, [last], closing(good()))
    found = await job_of(queue, lines.id)
    assert found.status is JobStatus.CANCELLED
    assert (found.cancelling_at, found.finished_at) == (cancelled_at, cancelled_at + 3)


async def test_a_batch_cancelled_before_it_began_has_nothing_to_write(queue: Queue) -> None:
    made = await queue.submit(NewJob(JobKind.BATCH, PATH), [])
    [first] = await claim(queue)
    ended, _ = await lifecycle.cancel(queue, made.id)
    assert ended is not None
    assert (ended.status, ended.total) == (JobStatus.CANCELLED, 0)
    assert await steps_of(queue.store, made) == {Step.VALIDATE: ItemStatus.CANCELLED}
    assert await queue.begin(first, "w", 5, "m") is None
    assert await finish(queue, [first]) == set()


async def test_a_batch_cancelled_while_it_is_read_is_added_to_no_more(queue: Queue) -> None:
    made = await queue.submit(NewJob(JobKind.BATCH, PATH), [])
    [first] = await claim(queue)
    await queue.begin(first, "w", 5, "m")
    await queue.add(first, "w", some_calls(2))
    ended, _ = await lifecycle.cancel(queue, made.id)
    assert ended is not None
    # the lines that were not read yet are cancelled too
    assert (ended.status, ended.total, ended.cancelled) == (JobStatus.CANCELLING, 5, 5)
    assert not await queue.add(first, "w", some_calls(5)[2:])
    assert len(await calls_of(queue, made)) == 2


async def test_a_job_whose_time_is_up_expires(queue: Queue, clock: Clock) -> None:
    job = await submit(queue, 2, expires_at=clock.now + 5)
    lines = await batch(queue, 2, expires_at=clock.now + 5)
    late = await submit(queue, 1, expires_at=clock.now + 50)
    await finish(queue, await claim(queue, limit=1))
    assert await lifecycle.expire(queue) == []
    clock.passes(5)
    assert {ended.id for ended in await lifecycle.expire(queue)} == {job.id, lines.id}
    job, lines = await job_of(queue, job.id), await job_of(queue, lines.id)
    assert (job.status, job.completed, job.expired) == (JobStatus.EXPIRED, 1, 1)
    assert (lines.status, lines.ending, lines.expired) == (JobStatus.FINALIZING, "expired", 2)
    assert (await job_of(queue, late.id)).status is JobStatus.PENDING
    assert await lifecycle.expire(queue) == []


async def test_what_was_not_completed_is_tried_again(queue: Queue, clock: Clock) -> None:
    job = await submit(queue, 5, webhook_url="http://hook", expires_at=clock.now + 100)
    claimed = await claim(queue)
    # the first and the third to end are lost
    await queue.finish("w", [(item, bad() if item.position in (0, 2) else good(item.position)) for item in claimed])
    [word] = await claim(queue)
    clock.passes(200)
    again = await lifecycle.retry(queue, job.id)
    assert again is not None
    assert (again.status, again.completed, again.failed, again.finished_at) == (JobStatus.RUNNING, 3, 0, None)
    assert (again.prompt_tokens, again.expires_at) == (9, clock.now + 100)
    assert await finish(queue, [word]) == set()
    assert [item.ended for item in await calls_of(queue, job)] == [None, 1, None, 2, 3]
    assert await count(queue.store, results) == 3
    lost = await claim(queue)
    assert [(item.position, item.attempts) for item in lost] == [(0, 0), (2, 0)]
    await finish(queue, lost)
    found = await job_of(queue, job.id)
    assert (found.status, found.completed) == (JobStatus.COMPLETED, 5)
    assert sorted(item.ended or 0 for item in await calls_of(queue, job)) == [1, 2, 3, 4, 5]
    assert [item.step for item in await claim(queue)] == [Step.DELIVER]


async def test_a_batch_that_is_tried_again_writes_its_files_again(queue: Queue) -> None:
    lines = await batch(queue, 2)
    await lifecycle.cancel(queue, lines.id)
    [last] = await claim(queue)
    await finish(queue, [last], closing(good()))
    assert (await lifecycle.retry(queue, lines.id)) is not None
    await finish(queue, await claim(queue))
    assert (await job_of(queue, lines.id)).status is JobStatus.FINALIZING
    assert [item.step for item in await claim(queue)] == [Step.FINALIZE]


async def test_only_what_is_over_and_has_lost_calls_is_tried_again(queue: Queue) -> None:
    job = await submit(queue, 1)
    with pytest.raises(Conflict, match="over"):
        await lifecycle.retry(queue, job.id)
    await finish(queue, await claim(queue))
    with pytest.raises(Conflict, match="nothing"):
        await lifecycle.retry(queue, job.id)
    assert await lifecycle.retry(queue, "task_x") is None


async def test_a_batch_whose_lines_were_never_read_is_not_tried_again(queue: Queue) -> None:
    made = await queue.submit(NewJob(JobKind.BATCH, PATH), [])
    [first] = await claim(queue)
    await queue.begin(first, "w", 5, "m")
    await queue.add(first, "w", some_calls(2))
    await finish(queue, [first], bad())
    with pytest.raises(Conflict, match="nothing"):
        await lifecycle.retry(queue, made.id)


async def test_a_lease_from_before_the_retry_is_worth_nothing(queue: Queue) -> None:
    job = await submit(queue, 1)
    before = await claim(queue)
    await lifecycle.cancel(queue, job.id)
    await lifecycle.retry(queue, job.id)
    after = await claim(queue)
    assert await finish(queue, before, bad()) == set()
    assert await finish(queue, after) == {after[0].id}


async def test_a_job_is_deleted_with_all_that_belongs_to_it(queue: Queue) -> None:
    stays = await submit(queue, 2)
    job = await submit(queue, 1_200, webhook_url="http://hook")
    with pytest.raises(Conflict, match="cancel it first"):
        await lifecycle.delete_job(queue, job.id)
    await finish(queue, await claim(queue, limit=700))
    await lifecycle.cancel(queue, job.id)
    assert await lifecycle.delete_job(queue, job.id)
    assert not await lifecycle.delete_job(queue, job.id)
    assert await queries.job(queue.store, job.id, scope=None) is None
    assert [await count(queue.store, table) for table in (jobs, items, requests, results)] == [1, 2, 2, 2]
    assert (await job_of(queue, stays.id)).status is JobStatus.COMPLETED


async def test_a_word_in_flight_when_its_job_is_deleted_is_lost(queue: Queue) -> None:
    job = await submit(queue, 1, webhook_url="http://hook")
    await finish(queue, await claim(queue))
    word = await claim(queue)
    await lifecycle.delete_job(queue, job.id)
    assert await finish(queue, word) == set()
    assert await queue.renew("w", 5) == {}


async def test_old_jobs_oldest_first(queue: Queue, clock: Clock) -> None:
    async def over() -> str:
        job = await submit(queue, 1)
        await finish(queue, await claim(queue))
        clock.passes(10)
        return job.id

    first, second, third = await over(), await over(), await over()
    await submit(queue, 1)
    assert await lifecycle.ended_before(queue, clock.now - 10, 5) == [first, second]
    assert await lifecycle.ended_before(queue, clock.now, 1) == [first]
    assert await lifecycle.ended_before(queue, clock.now, 5) == [first, second, third]


async def test_what_is_done_to_one_job_at_once_happens_in_turn(queue: Queue) -> None:
    """Ten rounds of a finish, a cancellation and a renewal, whichever comes first."""
    for _ in range(10):
        job = await submit(queue, 6)
        claimed = await claim(queue)
        await asyncio.gather(
            finish(queue, claimed[::-1]),
            lifecycle.cancel(queue, job.id),
            queue.renew("w", 5),
            finish(queue, claimed[3:]),
        )
        found = await job_of(queue, job.id)
        assert found.status.over
        assert found.ended == 6
        statuses = [item.status for item in await calls_of(queue, job)]
        assert statuses.count(ItemStatus.COMPLETED) == found.completed
        assert statuses.count(ItemStatus.CANCELLED) == found.cancelled
