"""Jobs put into the database of a running program, as another process would, and awaited through the operator's API."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

from llmproxy.database.engine import open_database
from llmproxy.jobs.model import JobKind, NewCall, NewJob
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from tests.databases import sqlite_url
from tests.server import Proxy
from tests.timeouts import WAIT_SECONDS

Json = dict[str, Any]


def task(**more: Any) -> NewJob:
    """A job whose calls are chats."""
    return NewJob(JobKind.TASK, "/v1/chat/completions", **more)


def chats(prompts: Sequence[str]) -> list[NewCall]:
    """A call for each prompt, labelled with its number."""
    return [
        NewCall(
            number, json.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}]}).encode(), f"r{number}"
        )
        for number, prompt in enumerate(prompts)
    ]


async def submit(proxy: Proxy, *prompts: str, **more: Any) -> str:
    """Gives the program a task with these prompts. Returns its id."""
    async with open_database(sqlite_url(proxy.database)) as database:
        job = await Queue(Store(database), JobNotifications()).submit(task(**more), chats(prompts))
    return job.id


@asynccontextmanager
async def operator(proxy: Proxy, token: str = "") -> AsyncIterator[httpx.AsyncClient]:
    """A client of the program, with the admin token where one is given."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=proxy.url, trust_env=False, timeout=60, headers=headers) as client:
        yield client


async def until(client: httpx.AsyncClient, id: str, wanted: Callable[[Json], bool]) -> Json:
    """The job as the operator sees it, once it is as wanted. Raises ``TimeoutError``."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            job: Json = (await client.get(f"/admin/jobs/{id}")).raise_for_status().json()
            if wanted(job):
                return job
            await asyncio.sleep(0.05)


def over(job: Json) -> bool:
    return job["status"] in ("completed", "failed", "cancelled", "expired")
