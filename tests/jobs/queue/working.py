"""Words for what is done to a queue, and what stands in it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Table, func, select

from llmproxy.database.engine import Database, open_database
from llmproxy.jobs import queries
from llmproxy.jobs.model import (
    Claimed,
    Failure,
    Finalization,
    Item,
    ItemResult,
    ItemStatus,
    Job,
    JobKind,
    Lane,
    NewCall,
    NewJob,
    Step,
    TokenUsage,
)
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import Store
from llmproxy.jobs.tables import items
from tests.databases import sqlite_url

PATH = "/v1/chat/completions"
#: what a lease lasts
LEASE = 10.0
BROKEN = Failure("broken", "It broke.")


def some_calls(number: int) -> list[NewCall]:
    return [NewCall(position, b'{"call": %d}' % position, f"label-{position}") for position in range(number)]


def a_task(**more: Any) -> NewJob:
    return NewJob(JobKind.TASK, PATH, **more)


async def submit(queue: Queue, number: int = 3, **more: Any) -> Job:
    """A task with so many calls."""
    return await queue.submit(a_task(**more), some_calls(number))


async def claim(queue: Queue, worker: str = "w", limit: int = 100, **more: Any) -> list[Claimed]:
    return await queue.claim(worker, limit, LEASE, **more)


def good(number: int = 0) -> ItemResult:
    """An answer that took a few tokens."""
    return ItemResult(
        ItemStatus.COMPLETED,
        200,
        b"answer %d" % number,
        request_id=f"r{number}",
        cache="miss",
        tokens=TokenUsage(3, 5, 2, 1),
    )


def bad() -> ItemResult:
    return ItemResult(ItemStatus.FAILED, 502, b"{}", error=BROKEN)


async def finish(
    queue: Queue, claimed: Sequence[Claimed], result: ItemResult | None = None, worker: str = "w"
) -> set[int]:
    """Gives each of them the result, a good one of its own where none is said."""
    done = [(item, result if result is not None else good(item.position)) for item in claimed]
    return await queue.finish(worker, done)


def closing(result: ItemResult) -> ItemResult:
    """The result of a last step, with the move that it makes for its job."""
    return replace(result, move=Finalization((), (), {}))


async def batch(queue: Queue, number: int = 3, worker: str = "w", **more: Any) -> Job:
    """A batch whose first step has found and added so many calls."""
    made = await queue.submit(NewJob(JobKind.BATCH, PATH, **more), [])
    [first] = [item for item in await claim(queue, worker, lane=Lane.STEPS) if item.job.id == made.id]
    assert first.step is Step.VALIDATE
    assert await queue.begin(first, worker, number, "model") is not None
    assert await queue.add(first, worker, some_calls(number))
    await finish(queue, [first], worker=worker)
    return await job_of(queue, made.id)


async def job_of(queue: Queue, id: str) -> Job:
    job = await queries.job(queue.store, id, scope=None)
    assert job is not None
    return job


async def calls_of(queue: Queue, job: Job) -> list[Item]:
    return await queries.calls(queue.store, job.id, limit=100_000)


async def steps_of(store: Store, job: Job) -> dict[str, str]:
    """The items of a job that are not calls: step -> status."""
    query = select(items.c.step, items.c.status).where(items.c.job_id == job.id, items.c.step != Step.CALL)
    rows = await store.read(lambda connection: connection.execute(query))
    return {row.step: row.status for row in rows}


async def count(store: Store, table: Table) -> int:
    query = select(func.count()).select_from(table)
    return int((await store.read(lambda connection: connection.execute(query))).scalar_one())


async def opened(file: Path) -> Database:
    """The SQLite database in a file, with its schema."""
    database = open_database(sqlite_url(file))
    await database.verify()
    return database


async def made(file: Path) -> None:
    """Makes the file of a new database."""
    await (await opened(file)).close()
