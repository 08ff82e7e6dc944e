"""How jobs come in: whole, once, and in their order."""

import asyncio

import pytest
from sqlalchemy import select

from llmproxy.database.engine import Database, open_database
from llmproxy.jobs import queries
from llmproxy.jobs.model import ItemStatus, JobKind, JobStatus, NewCall, NewJob, Step
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from llmproxy.jobs.tables import items, jobs, requests
from llmproxy.wire.errors import BadRequest
from tests.clock import Clock
from tests.jobs.queue.working import PATH, a_task, calls_of, claim, count, job_of, some_calls, steps_of, submit


async def test_all_that_was_said_is_known_to_another_process(queue: Queue, database: Database, clock: Clock) -> None:
    new = NewJob(
        JobKind.TASK,
        PATH,
        model="m",
        scope="s",
        caller="c",
        user="u",
        session="t",
        headers=[(b"cache-control", b"no-cache"), (b"x-llmproxy-tags", b"\xe9")],
        detail={"instruction": "default"},
        expires_at=clock.now + 5,
        webhook_url="http://hook",
        idempotency_key="k",
    )
    made = await queue.submit(new, some_calls(2))
    async with open_database(database.engine.url.render_as_string(hide_password=False)) as other:
        found = await queries.job(Store(other), made.id, JobKind.TASK, "s")
        bodies = await Store(other).scalars(select(requests.c.body).order_by(requests.c.item_id))
    assert found == made
    assert (made.status, made.total, made.ended, made.created_at) == (JobStatus.PENDING, 2, 0, clock.now)
    assert (made.headers, made.detail, made.expires_at) == (new.headers, new.detail, new.expires_at)
    assert made.id.startswith("task_")
    assert bodies == [b'{"call": 0}', b'{"call": 1}']


async def test_as_many_calls_as_there_are_in_their_order(queue: Queue) -> None:
    """More than a statement has room for values."""
    number = 6_000
    made = await queue.submit(a_task(), list(reversed(some_calls(number))))
    found = await calls_of(queue, made)
    assert [item.position for item in found] == list(range(number))
    assert {item.status for item in found} == {ItemStatus.WAITING}
    assert all(item.label == f"label-{item.position}" for item in found)
    # in the order in which they were given
    assert [item.position for item in await claim(queue, limit=3)] == [number - 1, number - 2, number - 3]


async def test_a_batch_begins_with_its_first_step(queue: Queue) -> None:
    made = await queue.submit(NewJob(JobKind.BATCH, PATH), [])
    assert await steps_of(queue.store, made) == {Step.VALIDATE: ItemStatus.WAITING}
    [first] = await claim(queue)
    # reading its input is not yet work on it
    assert (first.step, first.job.status) == (Step.VALIDATE, JobStatus.PENDING)


async def test_a_job_that_could_never_end_is_not_accepted(queue: Queue) -> None:
    with pytest.raises(ValueError, match="never ends"):
        await queue.submit(a_task(), [])
    assert await count(queue.store, jobs) == 0


async def test_an_idempotency_key_is_one_job_of_its_kind_and_scope(queue: Queue) -> None:
    first = await submit(queue, 2, idempotency_key="k", scope="a")
    assert await submit(queue, 5, idempotency_key="k", scope="a") == first
    assert (await submit(queue, 1, idempotency_key="k", scope="b")).id != first.id
    other = await queue.submit(NewJob(JobKind.RESPONSE, PATH, idempotency_key="k", scope="a"), some_calls(1))
    assert other.id != first.id
    assert await count(queue.store, items) == 4
    assert await count(queue.store, requests) == 4


async def test_many_who_come_at_once_with_one_key_have_one_job(queue: Queue, database: Database, clock: Clock) -> None:
    async with open_database(database.engine.url.render_as_string(hide_password=False)) as other:
        queues = [queue, Queue(Store(other), JobNotifications(), clock, clock.shared)]
        made = await asyncio.gather(*(submit(queues[n % 2], 3, idempotency_key="k") for n in range(8)))
    assert len({job.id for job in made}) == 1
    assert await count(queue.store, jobs) == 1
    assert await count(queue.store, items) == 3


async def test_an_id_that_is_taken_is_no_idempotency_key(queue: Queue) -> None:
    await submit(queue, id="task_1")
    with pytest.raises(Exception, match="refused"):
        await submit(queue, id="task_1")
    assert await count(queue.store, items) == 3


async def test_a_job_whose_calls_are_refused_leaves_no_trace(queue: Queue) -> None:
    """Half a surrogate pair is refused on its way to any database, in the second thousand of the calls."""
    calls = [*some_calls(1_500), NewCall(1_500, b"", "\ud800")]
    with pytest.raises(BadRequest, match="surrogate"):
        await queue.submit(a_task(idempotency_key="k"), calls)
    assert (await count(queue.store, jobs), await count(queue.store, items), await count(queue.store, requests)) == (
        0,
        0,
        0,
    )
    await submit(queue, 1, idempotency_key="k")


async def test_texts_that_a_database_does_not_take_are_the_callers_mistake(
    queue: Queue, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    if database.dialect.name == "postgresql":
        with pytest.raises(BadRequest, match="NUL"):
            await submit(queue, user="secret\0")
    else:
        assert (await job_of(queue, (await submit(queue, user="secret\0")).id)).user_name == "secret\0"
    assert "secret" not in caplog.text
