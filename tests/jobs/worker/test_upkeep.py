"""What is done now and then: leases of the dead come back, what is lost here is dropped, old things go."""

import asyncio
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from llmproxy.jobs import lifecycle, maintenance, queries
from llmproxy.jobs.handler import CancelToken
from llmproxy.jobs.model import Claimed, ItemResult, ItemStatus, JobKind, JobStatus, Lane, Reschedule, Step
from llmproxy.jobs.tables import requests
from llmproxy.jobs.worker import InteractiveFirst, Workers
from llmproxy.runtime.process_id import is_dead, process_id
from tests.jobs.opened import calls, opened, over, submit, until
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.timeouts import WAIT_SECONDS


def dead_worker() -> str:
    """The name of a worker that was killed."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    place, _, _, rest = process_id().rsplit(":", 3)
    name = f"{place}:{child.pid}:{psutil.Process(child.pid).create_time():.2f}:{rest}"
    assert not is_dead(name)
    child.kill()
    child.communicate()
    return name


def test_a_worker_is_dead_when_its_process_is() -> None:
    assert is_dead(dead_worker())
    assert not is_dead(process_id())


@pytest.mark.parametrize("name", ["", "elsewhere", "elsewhere:1:1.0:ab", "a:b:c:d"])
def test_of_other_machines_nothing_is_known(name: str) -> None:
    assert not is_dead(name)


def test_a_process_that_got_the_number_of_a_dead_one_is_another() -> None:
    place, pid, start, rest = process_id().rsplit(":", 3)
    assert is_dead(f"{place}:{pid}:{float(start) - 100:.2f}:{rest}")


async def test_leases_of_the_dead_are_given_back_at_once(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with opened(upstream.url, folder=tmp_path, task_queue_workers=0) as jobs:
        job = await submit(jobs, [marker(), marker()])
        mine, theirs = process_id(), dead_worker()
        assert len(await jobs.queue.claim(mine, 1, 1000)) == 1
        assert len(await jobs.queue.claim(theirs, 1, 1000)) == 1
        await maintenance.release_crashed(jobs.queue)
        backlog = await queries.backlog(jobs.store)
        assert (backlog.waiting, backlog.running) == (1, 1)
        assert await jobs.queue.workers() == {mine}
    async with opened(upstream.url, folder=tmp_path) as jobs:
        await jobs.queue.release(mine)
        assert (await over(jobs, job.id)).completed == 2


class Held:
    """What ``Heartbeat`` asks of the workers."""

    name = "w"

    def __init__(self) -> None:
        self.known: dict[int, int] = {}
        self.gone: set[int] = set()

    def held(self) -> dict[int, int]:
        return dict(self.known)

    def drop(self, item_ids: set[int]) -> None:
        self.gone |= item_ids


async def test_a_beat_drops_what_others_have_taken(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with opened(upstream.url, folder=tmp_path, task_queue_workers=0) as jobs:
        await submit(jobs, [marker(), marker()])
        one, two = await jobs.queue.claim("w", 2, 1000)
        held = Held()
        held.known = {one.id: one.claims, two.id: two.claims}
        beat = maintenance.Heartbeat(jobs.queue, held, 1000)
        await beat()
        assert held.gone == set()
        await jobs.queue.give_back("w", one.id, one.claims)
        await jobs.queue.claim("another", 1, 1000)
        await beat()
        assert held.gone == {one.id}


async def test_a_beat_gives_back_what_nobody_here_knows_of(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with opened(upstream.url, folder=tmp_path, task_queue_workers=0) as jobs:
        await submit(jobs, [marker(), marker()])
        known, stray = await jobs.queue.claim("w", 2, 1000)
        held = Held()
        held.known = {known.id: known.claims}
        beat = maintenance.Heartbeat(jobs.queue, held, 1000)
        await beat()
        assert (await queries.backlog(jobs.store)).running == 2, "a claim may be about to bring it"
        await beat()
        backlog = await queries.backlog(jobs.store)
        assert (backlog.waiting, backlog.running) == (1, 1)
        assert [item.id for item in await jobs.queue.claim("another", 2, 1000)] == [stray.id]


async def test_jobs_expire(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with opened(upstream.url, folder=tmp_path, task_queue_workers=0) as jobs:
        late = await submit(jobs, [marker()], expires_at=jobs.queue.clock() - 1)
        early = await submit(jobs, [marker()], expires_at=jobs.queue.clock() + 1000)
        await maintenance.expire(jobs.queue)
        job = await over(jobs, late.id)
        assert (job.status, job.expired) == (JobStatus.EXPIRED, 1)
        assert (await until(jobs, early.id, lambda job: True)).status is JobStatus.PENDING
        assert [item.status for item in await calls(jobs, late.id)] == [ItemStatus.EXPIRED]


async def test_what_is_old_goes_with_all_that_belongs_to_it(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with opened(upstream.url, folder=tmp_path) as jobs:
        old = await over(jobs, (await submit(jobs, [marker(), marker()])).id)
        running = await submit(jobs, [f"{marker()} [script:gate={upstream.gate().name}]"])
        told: list[float] = []

        async def others(before: float) -> None:
            told.append(before)

        await maintenance.delete_old(jobs.queue, 1.0, [others])
        assert await queries.job(jobs.store, old.id) is not None
        await maintenance.delete_old(jobs.queue, -1.0, [others])
        assert await queries.job(jobs.store, old.id) is None
        assert await calls(jobs, old.id) == []
        assert await jobs.store.scalars(select(requests.c.body).where(requests.c.item_id == 1)) == []
        assert await queries.job(jobs.store, running.id) is not None
        assert len(told) == 2
        await lifecycle.cancel(jobs.queue, running.id)


async def test_a_round_that_fails_does_not_end_the_others() -> None:
    rounds: asyncio.Queue[int] = asyncio.Queue()
    counted = 0

    async def work() -> None:
        nonlocal counted
        counted += 1
        rounds.put_nowait(counted)
        if counted == 1:
            raise RuntimeError("a defect")

    every = maintenance.periodic("test", 0.001, work)
    every.open()
    async with asyncio.timeout(WAIT_SECONDS):
        while await rounds.get() < 3:
            pass
    await every.close()


async def test_a_handler_that_crashes_ends_the_item_with_a_reason(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async def crash(item: Claimed, cancel_token: CancelToken) -> ItemResult | Reschedule:
        raise RuntimeError("a defect")

    async with opened(upstream.url, folder=tmp_path, task_queue_workers=0, job_max_attempts=2) as jobs:
        job = await submit(jobs, [marker()])
        settings = jobs.proxy.settings.model_copy(update={"task_queue_workers": 1})
        handlers = {(JobKind.TASK, Step.CALL): crash}
        on_attempt: list[str] = []
        workers = Workers(
            jobs.queue,
            handlers,
            Lane.ALL,
            InteractiveFirst(settings, jobs.proxy.upstreams),
            settings,
            lambda *told: on_attempt.append(told[-1]),
        )
        workers.open()
        job = await over(jobs, job.id)
        (item,) = await calls(jobs, job.id)
        await workers.close()
    assert (item.status, item.attempts, item.status_code) == (ItemStatus.FAILED, 2, 500)
    assert on_attempt == ["again", "failed"]
