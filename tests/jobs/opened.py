"""The opened rooms in the test's own process, with job workers, and words for what is done to them."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from llmproxy.api.services import JobServices
from llmproxy.app.deadline import Deadline
from llmproxy.app.lifespan import open_services
from llmproxy.config.settings import Settings
from llmproxy.jobs import queries
from llmproxy.jobs.model import Item, Job, JobKind, NewCall, NewJob
from llmproxy.observe.access_log import AccessLog, JsonFormatter
from llmproxy.observe.logs import AsyncLogWriter
from tests.timeouts import WAIT_SECONDS

PATH = "/v1/chat/completions"


@asynccontextmanager
async def opened(*upstreams: str, folder: Path, **settings: Any) -> AsyncIterator[JobServices]:
    """The job queue of a program in front of ``upstreams``, with its database in ``folder``."""
    wanted = Settings(upstream=upstreams, database_path=folder / "llmproxy.db", **settings)
    log = AccessLog(JsonFormatter(), AsyncLogWriter(io.StringIO(), lost=JsonFormatter().lost).write)
    async with open_services(wanted, log, Deadline(wanted.shutdown_seconds)) as state:
        assert state.jobs is not None
        yield state.jobs


def chat(prompt: str, **more: Any) -> bytes:
    """The body of a chat completion."""
    return json.dumps({"model": "scripted", "messages": [{"role": "user", "content": prompt}], **more}).encode()


async def submit(jobs: JobServices, prompts: Sequence[str], **more: Any) -> Job:
    """A task with a call for each prompt."""
    calls = [NewCall(position, chat(prompt)) for position, prompt in enumerate(prompts)]
    return await jobs.queue.submit(NewJob(JobKind.TASK, PATH, **more), calls)


async def over(jobs: JobServices, job_id: str) -> Job:
    """The job once it is over."""
    return await until(jobs, job_id, lambda job: job.status.over)


async def until(jobs: JobServices, job_id: str, holds: Callable[[Job], bool]) -> Job:
    """The job as soon as ``holds`` is true of it. Raises ``TimeoutError`` if it does not come to that."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            job = await queries.job(jobs.store, job_id, scope=None)
            assert job is not None
            if holds(job):
                return job
            await jobs.notifications.wait_for_job(job_id, 0.2)


async def calls(jobs: JobServices, job_id: str) -> list[Item]:
    return await queries.calls(jobs.store, job_id)
