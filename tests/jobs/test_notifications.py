"""Who is woken by what: when a job moves one after the other where there are many, all at once at the end."""

import asyncio
from typing import Any

from llmproxy.jobs.model import Lane
from llmproxy.jobs.notifications import JobNotifications
from tests.timeouts import WAIT_SECONDS

#: longer than any test may take: who waits for so long was not woken
LONG = 60.0
#: the last of so many has its turn after minutes
MANY = 20_000


async def begun(*tasks: asyncio.Task[Any]) -> None:
    """Until each of the tasks waits for what it waits for."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_everyone_who_waits_for_the_job_and_nobody_else() -> None:
    notifications = JobNotifications()
    mine = [asyncio.create_task(notifications.wait_for_job("a", LONG)) for _ in range(3)]
    other = asyncio.create_task(notifications.wait_for_job("b", LONG))
    await begun(*mine, other)
    notifications.job_changed("a")
    async with asyncio.timeout(WAIT_SECONDS):
        await asyncio.gather(*mine)
    assert not other.done()
    notifications.job_changed("b")
    async with asyncio.timeout(WAIT_SECONDS):
        await other


async def test_a_wait_ends_by_itself() -> None:
    notifications = JobNotifications()
    async with asyncio.timeout(WAIT_SECONDS):
        await notifications.wait_for_job("a", 0.001)
    # nothing is left of it
    notifications.job_changed("a")


async def test_one_who_leaves_takes_nobody_along() -> None:
    notifications = JobNotifications()
    leaves, stays = (asyncio.create_task(notifications.wait_for_job("a", LONG)) for _ in range(2))
    await begun(leaves, stays)
    leaves.cancel()
    await asyncio.wait({leaves})
    assert leaves.cancelled()
    assert not stays.done()
    notifications.job_changed("a")
    async with asyncio.timeout(WAIT_SECONDS):
        await stays


async def test_those_who_do_the_work_hear_of_it_with_its_lane() -> None:
    notifications = JobNotifications()
    heard: list[Lane] = []
    notifications.on_work(heard.append)
    notifications.work(Lane.WORK)
    notifications.work()
    assert heard == [Lane.WORK, Lane.ALL]


async def test_those_who_do_the_work_hear_of_jobs_that_were_cut_off() -> None:
    notifications = JobNotifications()
    heard: list[str] = []
    notifications.on_job_ended(heard.append)
    notifications.on_job_ended(lambda job_id: heard.append(f"also {job_id}"))
    notifications.job_ended("a")
    assert heard == ["a", "also a"]


async def test_the_end_wakes_everyone_and_keeps_nobody() -> None:
    notifications = JobNotifications()
    waiting = [asyncio.create_task(notifications.wait_for_job(id, LONG)) for id in ("a", "b")]
    await begun(*waiting)
    notifications.close()
    async with asyncio.timeout(WAIT_SECONDS):
        await asyncio.gather(*waiting)
        await notifications.wait_for_job("a", LONG)
    assert notifications.closed


async def test_one_alone_is_woken_at_once() -> None:
    notifications = JobNotifications()
    waiting = asyncio.create_task(notifications.wait_for_job("job", 1000))
    await asyncio.sleep(0)
    notifications.job_changed("another")
    notifications.job_changed("job")
    async with asyncio.timeout(WAIT_SECONDS):
        await waiting


async def test_many_take_turns_and_all_leave_when_the_server_stops() -> None:
    notifications = JobNotifications()
    waiting = [asyncio.create_task(notifications.wait_for_job("job", 1000)) for _ in range(MANY)]
    await asyncio.sleep(0)
    notifications.job_changed("job")
    async with asyncio.timeout(WAIT_SECONDS):
        await waiting[0]
        assert not waiting[-1].done()
        notifications.close()
        await asyncio.gather(*waiting)
        await notifications.wait_for_job("job", 1000)


async def test_one_who_left_takes_nobodys_turn() -> None:
    notifications = JobNotifications()
    waiting = [asyncio.create_task(notifications.wait_for_job("job", 1000)) for _ in range(MANY)]
    await asyncio.sleep(0)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    alone = asyncio.create_task(notifications.wait_for_job("job", 1000))
    await asyncio.sleep(0)
    notifications.job_changed("job")
    async with asyncio.timeout(WAIT_SECONDS):
        await alone
