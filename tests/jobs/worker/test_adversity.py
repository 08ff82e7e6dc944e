"""Items claimed again while an earlier claim is on its way out, results that are refused, a database that is away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmproxy.api.services import JobServices
from llmproxy.jobs import lifecycle
from llmproxy.jobs.handler import CancelToken, Handler
from llmproxy.jobs.model import Claimed, ItemResult, ItemStatus, JobKind, JobStatus, Lane, Reschedule, Step
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.result_writer import ResultWriter
from llmproxy.jobs.worker import InteractiveFirst, Workers
from llmproxy.wire.errors import Unavailable
from tests.jobs.opened import calls, opened, over, submit
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.timeouts import WAIT_SECONDS


def ignore(kind: str, step: str, what: str) -> None:
    """For tests that count no tries."""


@asynccontextmanager
async def working(jobs: JobServices, handler: Handler) -> AsyncIterator[Workers]:
    """Workers of the test's own, which have calls done by ``handler``."""
    settings = jobs.proxy.settings.model_copy(update={"task_queue_workers": 2})
    handlers = {(JobKind.TASK, Step.CALL): handler}
    workers = Workers(
        jobs.queue, handlers, Lane.ALL, InteractiveFirst(settings, jobs.proxy.upstreams), settings, ignore
    )
    workers.open()
    try:
        yield workers
    finally:
        await workers.close()


async def test_the_end_of_a_lost_claim_does_not_touch_the_next_one(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    begun: asyncio.Queue[Claimed] = asyncio.Queue()
    gates = {1: asyncio.Event(), 2: asyncio.Event()}

    async def slow(item: Claimed, cancel_token: CancelToken) -> ItemResult | Reschedule:
        begun.put_nowait(item)
        # whether it is still wanted or not
        await gates[item.claims].wait()
        return ItemResult(ItemStatus.COMPLETED, 200, b"{}")

    async with opened(upstream.url, folder=tmp_path, task_queue_workers=0) as jobs, asyncio.timeout(WAIT_SECONDS):
        job = await submit(jobs, [marker()])
        async with working(jobs, slow) as workers:
            first = await begun.get()
            await lifecycle.cancel(jobs.queue, job.id)
            assert workers.held() == {}
            await lifecycle.retry(jobs.queue, job.id)
            second = await begun.get()
            assert (second.id, second.claims) == (first.id, 2)
            gates[1].set()
            # the first one has left when another item can be begun in its place
            gates[1] = asyncio.Event()
            await submit(jobs, [marker()])
            await begun.get()
            assert workers.held()[second.id] == 2
            gates[2].set()
            gates[1].set()
            assert (await over(jobs, job.id)).completed == 1


class Stumbling(Queue):
    """Its database is away at the first time that an item is put off."""

    away = True

    async def reschedule(self, worker: str, claimed: Claimed, how: Reschedule) -> None:
        if self.away:
            self.away = False
            raise Unavailable("The database is away.")
        await super().reschedule(worker, claimed, how)


async def test_an_item_is_put_off_once_the_database_is_back(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async def again(item: Claimed, cancel_token: CancelToken) -> ItemResult | Reschedule:
        return Reschedule(0.0) if item.attempts == 0 else ItemResult(ItemStatus.COMPLETED, 200, b"{}")

    async with opened(upstream.url, folder=tmp_path, task_queue_workers=0, job_lease_seconds=1000) as jobs:
        job = await submit(jobs, [marker()])
        async with working(replace(jobs, queue=Stumbling(jobs.store, jobs.notifications)), again):
            job = await over(jobs, job.id)
        (item,) = await calls(jobs, job.id)
    assert (job.completed, item.attempts) == (1, 2)


@pytest.mark.parametrize("defect", [{"body": "no bytes"}, {"tokens": None}])
async def test_a_result_that_is_refused_fails_alone(
    upstream: ScriptedUpstream, tmp_path: Path, defect: dict[str, Any]
) -> None:
    async with opened(upstream.url, folder=tmp_path, task_queue_workers=0) as jobs, asyncio.timeout(WAIT_SECONDS):
        job = await submit(jobs, [marker() for _ in range(5)])
        items = await jobs.queue.claim("w", 5, 1000)
        committer = ResultWriter(jobs.queue, "w", ignore, lambda: None)
        for place, item in enumerate(items):
            given: dict[str, Any] = {"body": b"{}", **(defect if place == 2 else {})}
            committer.add(item, ItemResult(ItemStatus.COMPLETED, 200, **given))
        committer.open()
        job = await over(jobs, job.id)
        await committer.close()
        done = await calls(jobs, job.id)
    assert (job.status, job.completed, job.failed) == (JobStatus.COMPLETED, 4, 1)
    assert done[2].error is not None
    assert (done[2].status, done[2].status_code, done[2].error.code) == (ItemStatus.FAILED, 500, "internal_error")
