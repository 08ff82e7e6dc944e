"""Who waits for a job to move: woken when it does, one after the other where there are many, all at once at the end."""

import asyncio

from llmproxy.jobs.notifications import JobNotifications

PATIENCE = 10.0
#: the last of so many has its turn after minutes
MANY = 20_000


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
