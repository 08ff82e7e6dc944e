"""Who is woken by what."""

import asyncio
from typing import Any

from llmproxy.jobs.notifications import JobNotifications

#: longer than any test may take: who waits for so long was not woken
LONG = 60.0


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
        await changes.for_work(0, 0.001)
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


async def test_work_that_came_before_the_wait_is_not_missed() -> None:
    changes = JobNotifications()
    changes.work()
    async with asyncio.timeout(5):
        known = await changes.for_work(0, LONG)
    waits = [asyncio.create_task(changes.for_work(known, LONG)) for _ in range(2)]
    await begun(*waits)
    changes.work()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waits) == [known + 1] * 2


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
