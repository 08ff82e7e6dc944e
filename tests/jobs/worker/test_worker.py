"""Workers: what is tried again and what is not, who waits for whom, and how leases come back."""

import asyncio
import time
from pathlib import Path
from time import perf_counter

import pytest

from llmproxy.api.services import JobServices
from llmproxy.jobs import lifecycle, queries
from llmproxy.jobs.call import LOCAL, fetch_answer
from llmproxy.jobs.handler import CancelToken
from llmproxy.jobs.model import ItemStatus, JobKind, JobStatus, NewCall, NewJob
from llmproxy.proxy.pipeline import parse_request
from llmproxy.wire.endpoints import BY_PATH
from llmproxy.wire.exchange import Exchange
from tests.jobs.opened import PATH, calls, chat, opened, over, submit, until
from tests.scripted import marker
from tests.scripted_upstream import ScriptedUpstream
from tests.timeouts import WAIT_SECONDS


async def test_every_call_has_its_answer(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    prompts = [marker() for _ in range(50)]
    async with opened(upstream.url, folder=tmp_path) as jobs:
        job = await over(jobs, (await submit(jobs, prompts)).id)
        done = await calls(jobs, job.id)
    assert (job.status, job.total, job.completed) == (JobStatus.COMPLETED, 50, 50)
    assert [item.status for item in done] == [ItemStatus.COMPLETED] * 50
    assert sorted(item.ended or 0 for item in done) == list(range(1, 51))
    assert all(len(upstream.visits(prompt)) == 1 for prompt in prompts)
    assert job.completion_tokens > 0


async def test_the_same_call_twice_is_made_once(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    prompt = marker()
    async with opened(upstream.url, folder=tmp_path) as jobs:
        await over(jobs, (await submit(jobs, [prompt])).id)
        job = await over(jobs, (await submit(jobs, [prompt] * 10)).id)
    assert (job.completed, job.hits) == (10, 10)
    assert len(upstream.visits(prompt)) == 1


@pytest.mark.parametrize("fault", ["status=500", "status=503", "status=429 retry=0", "status=408", "status=409"])
async def test_what_may_pass_is_tried_again(upstream: ScriptedUpstream, tmp_path: Path, fault: str) -> None:
    prompt = f"{marker()} [script:{fault} times=2]"
    async with opened(upstream.url, folder=tmp_path) as jobs:
        job = await over(jobs, (await submit(jobs, [prompt])).id)
        (item,) = await calls(jobs, job.id)
    assert job.status is JobStatus.COMPLETED
    assert item.attempts == 3
    assert len(upstream.visits(prompt)) == 3


@pytest.mark.parametrize("fault", ["cut", "reset", "clean-end", "half-frame", "error-frame", "drop"])
async def test_a_broken_stream_is_tried_again(tmp_path: Path, fault: str) -> None:
    prompt = f"{marker()} [script:{fault} times=1]"
    with ScriptedUpstream("llamacpp") as upstream:
        async with opened(upstream.url, folder=tmp_path) as jobs:
            job = await over(jobs, (await submit(jobs, [prompt])).id)
        assert job.status is JobStatus.COMPLETED
        assert len(upstream.visits(prompt)) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 422, 501])
async def test_what_would_come_again_ends_at_once(upstream: ScriptedUpstream, tmp_path: Path, status: int) -> None:
    prompt = f"{marker()} [script:status={status}]"
    async with opened(upstream.url, folder=tmp_path) as jobs:
        job = await over(jobs, (await submit(jobs, [prompt, marker()])).id)
        failed, fine = await calls(jobs, job.id)
    assert job.status is JobStatus.COMPLETED, "something came out of it"
    assert (failed.status, failed.status_code, failed.attempts) == (ItemStatus.FAILED, status, 1)
    assert failed.error is not None
    assert failed.error.message
    assert fine.status is ItemStatus.COMPLETED
    assert len(upstream.visits(prompt)) == 1


async def test_attempts_end(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    prompt = f"{marker()} [script:status=500]"
    async with opened(upstream.url, folder=tmp_path, job_max_attempts=2) as jobs:
        job = await over(jobs, (await submit(jobs, [prompt])).id)
        (item,) = await calls(jobs, job.id)
    assert job.status is JobStatus.FAILED, "nothing came out of it"
    assert (item.status, item.attempts, item.status_code) == (ItemStatus.FAILED, 2, 500)
    assert len(upstream.visits(prompt)) == 2


async def test_a_call_that_is_none_fails_without_asking_anyone(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with opened(upstream.url, folder=tmp_path) as jobs:
        told = marker()
        call = NewCall(0, chat(told, stream="maybe"))
        job = await over(jobs, (await jobs.queue.submit(NewJob(JobKind.TASK, PATH), [call])).id)
        (item,) = await calls(jobs, job.id)
    assert (item.status, item.status_code) == (ItemStatus.FAILED, 400)
    assert not upstream.visits(told)


async def test_an_upstream_that_is_away_costs_no_attempts(tmp_path: Path) -> None:
    prompts = [marker() for _ in range(6)]
    with ScriptedUpstream() as upstream:
        async with opened(upstream.url, folder=tmp_path, job_max_attempts=1) as jobs:
            upstream.down()
            job = await submit(jobs, prompts)
            # it was believed to be there: the first ones find out
            await until(jobs, job.id, lambda job: job.status is JobStatus.RUNNING)
            await until_paused(jobs)
            assert (await until(jobs, job.id, lambda job: True)).ended == 0
            upstream.up()
            job = await over(jobs, job.id)
            done = await calls(jobs, job.id)
    assert (job.status, job.completed) == (JobStatus.COMPLETED, 6)
    assert {item.attempts for item in done} == {1}


async def test_cancelling_ends_the_call_upstream(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    gate = upstream.gate()
    running, waiting = marker(), marker()
    async with opened(upstream.url, folder=tmp_path, task_queue_workers=1, disconnect_grace=0) as jobs:
        job = await submit(jobs, [f"{running} [script:gate={gate.name}]", waiting])
        visit = await upstream.journal.reached(running)
        ended, done = await lifecycle.cancel(jobs.queue, job.id)
        await visit.left.reached()
        assert ended is not None
        assert (ended.status, ended.cancelled, done) == (JobStatus.CANCELLED, 2, True)
        again, done = await lifecycle.cancel(jobs.queue, job.id)
        assert again == ended
        assert not done
        other = await over(jobs, (await submit(jobs, [marker()])).id)
        assert other.status is JobStatus.COMPLETED, "the worker is free again"
    assert not upstream.visits(waiting)


async def test_stopping_gives_leases_back(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    gate = upstream.gate()
    prompt = f"{marker()} [script:gate={gate.name} times=1]"
    async with opened(upstream.url, folder=tmp_path, task_queue_workers=1, disconnect_grace=0) as jobs:
        job = await submit(jobs, [prompt, marker()])
        visit = await upstream.journal.reached(prompt.split(maxsplit=1)[0])
    await visit.left.reached()
    async with opened(upstream.url, folder=tmp_path, task_queue_workers=0) as jobs:
        backlog = await queries.backlog(jobs.store)
        assert (backlog.waiting, backlog.running) == (2, 0)
    async with opened(upstream.url, folder=tmp_path) as jobs:
        job = await over(jobs, job.id)
        done = await calls(jobs, job.id)
    assert job.completed == 2
    assert {item.attempts for item in done} == {1}, "the interrupted try was none"


async def test_calls_hold_back_beside_interactive_requests(tmp_path: Path) -> None:
    """Four slots: with an interactive request in work, at most three calls."""
    with ScriptedUpstream("llamacpp") as upstream:
        chatting, batch = upstream.gate(), upstream.gate()
        async with opened(upstream.url, folder=tmp_path, task_queue_workers=8) as jobs:
            prompt = f"{marker()} [script:gate={chatting.name}]"
            interactive = asyncio.create_task(ask(jobs, prompt))
            await upstream.journal.reached(prompt.split(maxsplit=1)[0])
            prompts = [f"{marker()} [script:gate={batch.name}]" for _ in range(8)]
            job = await submit(jobs, prompts)
            for prompt in prompts[:3]:
                await upstream.journal.reached(prompt.split()[0])
            batch.open()
            job = await over(jobs, job.id)
            chatting.open()
            assert await interactive == 200
            assert job.completed == 8
    assert upstream.most_at_once == 4


async def test_calls_use_every_worker_when_nobody_chats(tmp_path: Path) -> None:
    with ScriptedUpstream("llamacpp") as upstream:
        gate = upstream.gate()
        async with opened(upstream.url, folder=tmp_path, task_queue_workers=6) as jobs:
            prompts = [f"{marker()} [script:gate={gate.name}]" for _ in range(6)]
            job = await submit(jobs, prompts)
            for prompt in prompts:
                await upstream.journal.reached(prompt.split()[0])
            gate.open()
            await over(jobs, job.id)
    assert upstream.most_at_once == 6


async def ask(jobs: JobServices, prompt: str) -> int:
    """An interactive request: its status."""
    exchange = Exchange("asked", "POST", PATH, perf_counter(), time.time())
    asked = await parse_request(exchange, BY_PATH[PATH], chat(prompt), PATH.encode(), [], LOCAL, jobs.proxy)
    return (await fetch_answer(exchange, asked, jobs.proxy, CancelToken())).status


async def until_paused(jobs: JobServices) -> None:
    """Until it is known that no model server answers. Raises ``TimeoutError``."""
    async with asyncio.timeout(WAIT_SECONDS):
        while jobs.proxy.upstreams.ready()[0]:  # noqa: ASYNC110 - nothing tells when it changes
            await asyncio.sleep(0.02)


async def test_what_is_no_answer_is_none_for_a_job_either(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    prompt = f"{marker()} [script:error-member]"
    async with opened(upstream.url, folder=tmp_path, job_max_attempts=2) as jobs:
        job = await over(jobs, (await submit(jobs, [prompt])).id)
        (item,) = await calls(jobs, job.id)
    assert (item.status, item.attempts) == (ItemStatus.FAILED, 2)
    assert item.error is not None
    assert "holds an error" in item.error.message
