"""Results: they count once, all or none of what belongs together, and move their job on."""

import asyncio
from dataclasses import asdict, replace

import pytest
from sqlalchemy import insert, select

from llmproxy.jobs import queries, transitions
from llmproxy.jobs.model import (
    Claimed,
    Completion,
    Event,
    File,
    Finalization,
    ItemResult,
    ItemStatus,
    JobKind,
    JobStatus,
    Lane,
    NewJob,
    Refusal,
    Step,
    TokenUsage,
)
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.response_events import read_events
from llmproxy.jobs.stored_model import AnswerKind, StoredAnswer
from llmproxy.jobs.tables import files, items, jobs, results, stored
from llmproxy.wire.errors import Unavailable
from tests.clock import Clock
from tests.jobs.queue.working import (
    BROKEN,
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


async def test_a_jobs_way_to_its_end(queue: Queue, clock: Clock) -> None:
    job = await submit(queue, 3)
    clock.passes(1)
    first, second, third = await claim(queue)
    clock.passes(1)
    # what is shown as a hit is an answer
    assert await queue.finish("w", [(third, good(2)), (first, replace(bad(), cache="hit"))]) == {first.id, third.id}
    job = await job_of(queue, job.id)
    assert (job.status, job.completed, job.failed, job.finished_at) == (JobStatus.RUNNING, 1, 1, None)
    clock.passes(1)
    await queue.finish("w", [(second, replace(good(1), cache="hit"))])
    job = await job_of(queue, job.id)
    assert (job.status, job.total, job.completed, job.failed, job.hits) == (JobStatus.COMPLETED, 3, 2, 1, 1)
    assert (job.started_at, job.finished_at) == (job.created_at + 1, job.created_at + 3)
    assert (job.prompt_tokens, job.completion_tokens, job.cached_tokens, job.reasoning_tokens) == (6, 10, 4, 2)
    found = await calls_of(queue, job)
    assert [item.ended for item in found] == [2, 3, 1]
    assert [(item.status, item.status_code, item.body, item.error) for item in found] == [
        (ItemStatus.FAILED, 502, b"{}", BROKEN),
        (ItemStatus.COMPLETED, 200, b"answer 1", None),
        (ItemStatus.COMPLETED, 200, b"answer 2", None),
    ]
    locked_in_order = await queries.ended(queue.store, job.id, after=1)
    assert [item.position for item in locked_in_order] == [0, 1]


async def test_a_job_of_which_nothing_came_is_failed(queue: Queue) -> None:
    job = await submit(queue, 2)
    await finish(queue, await claim(queue), bad())
    assert (await job_of(queue, job.id)).status is JobStatus.FAILED


async def test_the_second_result_of_a_claim_does_not_count(queue: Queue) -> None:
    job = await submit(queue, 2)
    [item] = await claim(queue, limit=1)
    assert await queue.finish("w", [(item, good(1)), (item, bad())]) == {item.id}
    assert await finish(queue, [item], bad()) == set()
    found = await job_of(queue, job.id)
    assert (found.completed, found.failed) == (1, 0)
    assert await count(queue.store, results) == 1


async def test_many_who_finish_at_once_are_counted_one_by_one(queue: Queue) -> None:
    several = [await submit(queue, 20) for _ in range(3)]
    claimed = await claim(queue)
    # each group has calls of every job
    await asyncio.gather(*(finish(queue, claimed[n::10]) for n in range(10)))
    for job in several:
        assert (await job_of(queue, job.id)).status is JobStatus.COMPLETED
        assert sorted(item.ended or 0 for item in await calls_of(queue, job)) == list(range(1, 21))


async def response(queue: Queue) -> Claimed:
    """The call of a Response of the background, whose answer waits for it."""
    answer = StoredAnswer("resp_1", AnswerKind.RESPONSE, "", "m", 0.0, b"{}", b"[]", background=True)
    await queue.submit(NewJob(JobKind.RESPONSE, PATH, id="resp_1"), some_calls(1), answer, [(0, b"begun")])
    [item] = await claim(queue)
    return item


async def kept(queue: Queue) -> tuple[bytes | None, float | None, list[Event]]:
    """The answer's document, when it expires, and its events."""
    query = select(stored.c.document, stored.c.expires_at)
    row = (await queue.store.read(lambda connection: connection.execute(query))).one()
    return row.document, row.expires_at, await read_events(queue.store, "resp_1", -1, 10)


async def test_an_answer_is_complete_once_its_result_counts(queue: Queue) -> None:
    item = await response(queue)
    assert await kept(queue) == (None, None, [(0, b"begun")])
    await finish(queue, [item], replace(good(), move=Completion(b"{}", 7.0, [(1, b"ended")])))
    assert await kept(queue) == (b"{}", 7.0, [(0, b"begun"), (1, b"ended")])
    assert (await job_of(queue, item.job.id)).status is JobStatus.COMPLETED


async def test_the_move_of_a_result_that_is_lost_is_not_made(queue: Queue) -> None:
    item = await response(queue)
    await queue.release("w")
    assert await finish(queue, [item], replace(good(), move=Completion(b"{}", None, [(1, b"ended")]))) == set()
    assert await kept(queue) == (None, None, [(0, b"begun")])


async def test_a_result_whose_move_fails_is_undone_with_it(queue: Queue) -> None:
    item = await response(queue)
    with pytest.raises(Unavailable):
        # an event with this number is there
        await finish(queue, [item], replace(good(), move=Completion(b"{}", None, [(1, b"ended"), (0, b"again")])))
    found = await job_of(queue, item.job.id)
    assert (found.status, found.completed) == (JobStatus.RUNNING, 0)
    assert await count(queue.store, results) == 0
    assert await kept(queue) == (None, None, [(0, b"begun")])


async def test_a_last_step_puts_its_files_in_the_place_of_those_before(queue: Queue, clock: Clock) -> None:
    made = await batch(queue, 1, detail={"input": "file-0"})
    await finish(queue, await claim(queue))
    [last] = await claim(queue)
    old = File("file-1", "", "batch_output", "x", 1, "ab", 0.0)
    gone = File("file-2", "", "batch_output", "y", 1, "ab", 0.0)
    await queue.store.write(lambda connection: connection.execute(insert(files), [asdict(old), asdict(gone)]))
    new = replace(old, bytes=9, expires_at=5.0)
    await finish(queue, [last], replace(good(), move=Finalization([new], ["file-2", "file-3"], {"output": "file-1"})))
    rows = await queue.store.read(lambda connection: connection.execute(select(files)))
    assert [File(**row) for row in rows.mappings()] == [new]
    found = await job_of(queue, made.id)
    assert (found.status, found.finished_at) == (JobStatus.COMPLETED, clock())
    assert found.detail == {"input": "file-0", "output": "file-1"}
    # of items only calls are counted
    assert set(await queue.store.scalars(select(items.c.ended).where(items.c.step != Step.CALL))) == {None}


async def test_a_last_step_of_a_batch_that_has_ended_changes_nothing(queue: Queue) -> None:
    made = await batch(queue, 1)
    await finish(queue, await claim(queue))
    [last] = await claim(queue)
    await queue.store.write(lambda connection: transitions.fail(connection, made.id, BROKEN, queue.clock()))
    file = File("file-1", "", "batch_output", "x", 1, "ab", 0.0)
    await finish(queue, [last], replace(good(), move=Finalization([file], [], {"output": "file-1"})))
    assert await count(queue.store, files) == 0
    found = await job_of(queue, made.id)
    assert (found.status, found.error, found.detail) == (JobStatus.FAILED, BROKEN, {})


async def test_no_number_of_tokens_keeps_a_result_out(queue: Queue) -> None:
    job = await submit(queue, 2)
    for item in await claim(queue):
        await finish(queue, [item], replace(good(), tokens=TokenUsage(10**30, 2**62, 0, 1)))
    found = await job_of(queue, job.id)
    assert (found.status, found.prompt_tokens, found.completion_tokens) == (JobStatus.COMPLETED, 2**63 - 1, 2**63 - 1)


async def test_a_batch_ends_with_its_last_step(queue: Queue, clock: Clock) -> None:
    lines = await batch(queue, 2)
    assert (lines.status, lines.total, lines.model) == (JobStatus.RUNNING, 2, "model")
    await finish(queue, await claim(queue))
    lines = await job_of(queue, lines.id)
    assert (lines.status, lines.ending) == (JobStatus.FINALIZING, "completed")
    assert await steps_of(queue.store, lines) == {
        Step.VALIDATE: ItemStatus.COMPLETED,
        Step.FINALIZE: ItemStatus.WAITING,
    }
    clock.passes(1)
    [last] = await claim(queue, lane=Lane.STEPS)
    await finish(queue, [last], closing(good()))
    lines = await job_of(queue, lines.id)
    assert (lines.status, lines.ending, lines.finished_at) == (JobStatus.COMPLETED, "", clock.now)


async def test_a_batch_whose_every_line_failed_is_completed(queue: Queue) -> None:
    lines = await batch(queue, 2)
    await finish(queue, await claim(queue), bad())
    assert (await job_of(queue, lines.id)).ending == "completed"


async def test_calls_may_all_end_before_the_step_that_found_them(queue: Queue) -> None:
    made = await queue.submit(NewJob(JobKind.BATCH, PATH), [])
    [first] = await claim(queue)
    await queue.begin(first, "w", 3, "model")
    await queue.add(first, "w", some_calls(2))
    await finish(queue, await claim(queue))
    assert (await job_of(queue, made.id)).status is JobStatus.RUNNING
    await queue.add(first, "w", some_calls(3)[2:])
    await finish(queue, await claim(queue))
    assert (await job_of(queue, made.id)).status is JobStatus.FINALIZING
    assert await finish(queue, [first]) == {first.id}
    assert (await job_of(queue, made.id)).status is JobStatus.FINALIZING


async def test_the_first_step_adds_only_while_it_holds_the_lease(queue: Queue) -> None:
    await queue.submit(NewJob(JobKind.BATCH, PATH), [])
    [lost] = await claim(queue, "a")
    await queue.release("a")
    [first] = await claim(queue, "b")
    assert await queue.begin(lost, "a", 9, "x") is None
    assert await queue.begin(first, "b", 1, "m") is not None
    assert not await queue.add(lost, "a", some_calls(1))
    assert await queue.add(first, "b", some_calls(1))


async def test_a_first_step_that_fails_for_good_fails_its_job(queue: Queue) -> None:
    made = await queue.submit(NewJob(JobKind.BATCH, PATH, webhook_url="http://hook"), [])
    [first] = await claim(queue)
    await queue.begin(first, "w", 3, "model")
    await queue.add(first, "w", some_calls(2))
    await finish(queue, [first], bad())
    found = await job_of(queue, made.id)
    assert (found.status, found.error, found.total, found.cancelled) == (JobStatus.FAILED, BROKEN, 3, 3)
    assert {item.status for item in await calls_of(queue, found)} == {ItemStatus.CANCELLED}
    assert [item.step for item in await claim(queue)] == [Step.DELIVER]


async def test_a_last_step_that_fails_for_good_fails_its_job(queue: Queue) -> None:
    lines = await batch(queue, 1)
    await finish(queue, await claim(queue))
    [last] = await claim(queue)
    await finish(queue, [last], ItemResult(ItemStatus.FAILED, 500))
    found = await job_of(queue, lines.id)
    assert (found.status, found.completed) == (JobStatus.FAILED, 1)
    assert found.error is not None


async def test_what_a_step_says_of_its_failure_stands(queue: Queue) -> None:
    made = await queue.submit(NewJob(JobKind.BATCH, PATH, detail={"file": "f"}), [])
    [first] = await claim(queue)
    await finish(queue, [first], replace(good(), move=Refusal(BROKEN, {"lines": [3]})))
    found = await job_of(queue, made.id)
    assert (found.status, found.error, found.detail) == (JobStatus.FAILED, BROKEN, {"file": "f", "lines": [3]})


async def test_workers_hear_of_the_steps_that_follow_from_a_result(queue: Queue) -> None:
    await submit(queue, 2, webhook_url="http://hook")
    first, second = await claim(queue)
    heard: list[Lane] = []
    queue.notifications.on_work(heard.append)
    await finish(queue, [first])
    assert heard == []
    await finish(queue, [second])
    assert heard == [Lane.ALL]
    await finish(queue, await claim(queue))
    assert heard == [Lane.ALL] * 2


async def test_a_job_that_is_over_does_not_fail_any_more(queue: Queue) -> None:
    made = await submit(queue, 1)
    await finish(queue, await claim(queue))
    before = await job_of(queue, made.id)
    await queue.store.write(lambda connection: transitions.fail(connection, made.id, BROKEN, queue.clock(), {"a": 1}))
    assert await job_of(queue, made.id) == before


async def test_a_word_that_could_not_be_delivered_changes_nothing(queue: Queue) -> None:
    job = await submit(queue, 1, webhook_url="http://hook")
    await finish(queue, await claim(queue))
    [word] = await claim(queue)
    assert (word.step, word.job.status) == (Step.DELIVER, JobStatus.COMPLETED)
    assert b'"type": "task.completed"' in word.body
    await finish(queue, [word], bad())
    assert (await job_of(queue, job.id)).status is JobStatus.COMPLETED


async def test_a_result_for_a_job_that_is_gone_is_dropped(queue: Queue) -> None:
    await submit(queue, 1)
    claimed = await claim(queue)
    await queue.store.write(lambda connection: connection.execute(jobs.delete()))
    assert await finish(queue, claimed) == set()
    missing = await queue.store.read(lambda connection: connection.execute(select(results.c.item_id)))
    assert missing.all() == []
