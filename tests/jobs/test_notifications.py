"""Who is woken by what: when a job moves one after the other where there are many, all at once at the end."""

import asyncio
from typing import Any

from llmproxy.jobs.model import Lane
from llmproxy.jobs.notifications import JobNotifications

#: longer than any test may take: who waits for so long was not woken
LONG = 60.0
PATIENCE = 10.0
#: the last of so many has its turn after minutes
MANY = 20_000


async def begun(*tasks: asyncio.Task[Any]) -> None:
    """Until each of the tasks waits for what it waits for."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_everyone_who_waits_for_the_job_and_nobody_else() -> None:
    changes = JobNotifications()
    mine = [asyncio.create_task(changes.of("a", LONG)) for _ in range(3)]
    other = asyncio.create_task(changes.of("b", LONG))
    await begun(*mine, other)
    changes.moved("a")
    async with asyncio.timeout(5):
        await asyncio.gather(*mine)
    assert not other.done()
    changes.moved("b")
    async with asyncio.timeout(5):
        await other


async def test_a_wait_ends_by_itself() -> None:
    changes = JobNotifications()
    async with asyncio.timeout(5):
        await changes.of("a", 0.001)
    # nothing is left of it
    changes.moved("a")


async def test_one_who_leaves_takes_nobody_along() -> None:
    changes = JobNotifications()
    leaves, stays = (asyncio.create_task(changes.of("a", LONG)) for _ in range(2))
    await begun(leaves, stays)
    leaves.cancel()
    await asyncio.wait({leaves})
    assert leaves.cancelled()
    assert not stays.done()
    changes.moved("a")
    async with asyncio.timeout(5):
        await stays


async def test_those_who_do_the_work_hear_of_it_with_its_lane() -> None:
    changes = JobNotifications()
    heard: list[Lane] = []
    changes.on_work(heard.append)
    changes.work(Lane.WORK)
    changes.work()
    assert heard == [Lane.WORK, Lane.ALL]


async def test_those_who_do_the_work_hear_of_jobs_that_were_cut_off() -> None:
    changes = JobNotifications()
    heard: list[str] = []
    changes.on_cut(heard.append)
    changes.on_cut(lambda job_id: heard.append(f"also {job_id}"))
    changes.cut("a")
    assert heard == ["a", "also a"]


async def test_the_end_wakes_everyone_and_keeps_nobody() -> None:
    changes = JobNotifications()
    waiting = [asyncio.create_task(changes.of(id, LONG)) for id in ("a", "b")]
    await begun(*waiting)
    changes.close()
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)
        await changes.of("a", LONG)
    assert changes.closed


async def test_one_alone_is_woken_at_once() -> None:
    changes = JobNotifications()
    waiting = asyncio.create_task(changes.of("job", 1000))
    await asyncio.sleep(0)
    changes.moved("another")
    changes.moved("job")
    async with asyncio.timeout(PATIENCE):
        await waiting


async def test_many_take_turns_and_all_leave_when_the_server_stops() -> None:
    changes = JobNotifications()
    waiting = [asyncio.create_task(changes.of("job", 1000)) for _ in range(MANY)]
    await asyncio.sleep(0)
    changes.moved("job")
    async with asyncio.timeout(PATIENCE):
        await waiting[0]
        assert not waiting[-1].done()
        changes.close()
        await asyncio.gather(*waiting)
        await changes.of("job", 1000)


async def test_one_who_left_takes_nobodys_turn() -> None:
    changes = JobNotifications()
    waiting = [asyncio.create_task(changes.of("job", 1000)) for _ in range(MANY)]
    await asyncio.sleep(0)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    alone = asyncio.create_task(changes.of("job", 1000))
    await asyncio.sleep(0)
    changes.moved("job")
    async with asyncio.timeout(PATIENCE):
        await alone
