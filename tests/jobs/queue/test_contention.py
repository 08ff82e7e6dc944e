"""Many who want the same rows at the same time: nobody waits crosswise, and nothing is lost or done twice."""

import asyncio
import random

import pytest
from sqlalchemy import event

from llmproxy.database.engine import Database, open_database
from llmproxy.jobs import lifecycle
from llmproxy.jobs.model import ItemStatus, JobKind, NewJob, Reschedule
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from llmproxy.jobs.tables import results
from tests.clock import Clock
from tests.jobs.queue.working import LEASE, PATH, calls_of, claim, count, finish, good, job_of, some_calls

WORKERS = 5
JOBS, CALLS = 6, 40


def errors_of(database: Database) -> list[str]:
    """What the database complains of from now on."""
    errors: list[str] = []

    @event.listens_for(database.engine.sync_engine, "handle_error")
    def on_error(context: object) -> None:
        errors.append(str(getattr(context, "original_exception", context)))

    return errors


async def work(queue: Queue, name: str, dice: random.Random) -> list[int]:
    """Claims of changing size, finished out of order and together; returns what counted."""
    mine: list[int] = []
    while claimed := await claim(queue, name, dice.randint(1, 25)):
        dice.shuffle(claimed)
        # the last ones are all finished: what is always given back never ends
        back, rest = (claimed[:2], claimed[2:]) if len(claimed) > 4 else ([], claimed)
        middle = len(rest) // 2
        done = await asyncio.gather(
            finish(queue, rest[:middle], worker=name), finish(queue, rest[middle:], worker=name), renewing(queue, name)
        )
        for item in back[:1]:
            await queue.reschedule(name, item, Reschedule(0, counts=False))
        await queue.release(name)
        mine += [id for ids in done for id in ids]
    return mine


async def renewing(queue: Queue, name: str) -> set[int]:
    for _ in range(3):
        await queue.renew(name, LEASE)
    return set()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_call_once_and_nobody_in_anybodys_way(
    queue: Queue, database: Database, clock: Clock, seed: int
) -> None:
    dice = random.Random(seed)
    made = [
        await queue.submit(NewJob(JobKind.RESPONSE if n % 2 else JobKind.TASK, PATH), some_calls(CALLS))
        for n in range(JOBS)
    ]
    async with open_database(database.engine.url.render_as_string(hide_password=False)) as other:
        queues = [queue, Queue(Store(other), JobNotifications(), clock, clock.shared)]
        errors = [errors_of(each) for each in (database, other)]

        async def cancel(number: int) -> None:
            for _ in range(number):
                await asyncio.sleep(0)
            await lifecycle.cancel(queue, made[number].id)

        shares = await asyncio.gather(
            *(work(queues[n % 2], f"w{n}", random.Random(dice.random())) for n in range(WORKERS)), cancel(0), cancel(1)
        )
    assert errors == [[], []]
    counted = [id for share in shares if share is not None for id in share]
    assert len(counted) == len(set(counted)) == await count(queue.store, results)
    for job in made:
        now = await job_of(queue, job.id)
        calls = await calls_of(queue, job)
        assert now.status.over
        assert now.completed + now.cancelled == CALLS
        assert {item.id for item in calls if item.status is ItemStatus.COMPLETED} == {
            item.id for item in calls if item.id in set(counted)
        }
    assert all([(await job_of(queue, job.id)).completed == CALLS for job in made[2:]])


async def test_a_result_is_as_good_as_its_lease_to_the_last(queue: Queue, database: Database, clock: Clock) -> None:
    """Somebody claims the item again in the moment in which its result comes: one of the two has it."""
    for _ in range(20):
        await queue.submit(NewJob(JobKind.TASK, PATH), some_calls(1))
        [item] = await claim(queue, "slow")
        clock.passes(LEASE + 1)
        kept, again = await asyncio.gather(queue.finish("slow", [(item, good())]), claim(queue, "quick"))
        assert bool(kept) is not bool(again)
        await finish(queue, again, worker="quick")
