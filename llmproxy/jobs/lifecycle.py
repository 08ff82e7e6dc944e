"""Jobs that end otherwise than by themselves: cancelled, expired, tried again, deleted."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.jobs import transitions
from llmproxy.jobs.leases import AT_ONCE
from llmproxy.jobs.model import TRAITS, ItemStatus, Job, JobStatus, Step
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.tables import items, jobs, requests, results
from llmproxy.wire.errors import Conflict

#: jobs that are looked for at a time
_LATE = 100
#: rows deleted in one transaction
_CHUNK = 500


async def cancel(queue: Queue, job_id: str) -> tuple[Job | None, bool]:
    """Ends a job and every call of it that is not over, in flight or not.

    Returns the job, None if there is none, and whether this call has ended it: one that is over stays as it is.
    """
    return await _end(queue, job_id, ItemStatus.CANCELLED, JobStatus.CANCELLED)


async def expire(queue: Queue) -> list[Job]:
    """Ends the jobs whose time is up."""
    # the index of the ends has those that are not over in one place
    late = select(jobs.c.id).where(
        jobs.c.finished_at.is_(None),
        jobs.c.status.in_([JobStatus.PENDING, JobStatus.RUNNING]),
        jobs.c.expires_at <= queue.clock(),
    )
    ids = await queue.store.scalars(late.limit(_LATE))
    ended = [await _end(queue, id, ItemStatus.EXPIRED, JobStatus.EXPIRED) for id in ids]
    return [job for job, done in ended if job is not None and done]


async def _end(queue: Queue, job_id: str, item_status: ItemStatus, status: JobStatus) -> tuple[Job | None, bool]:
    now = queue.clock()

    async def work(connection: AsyncConnection) -> tuple[Job | None, bool]:
        job = await transitions.lock(connection, job_id)
        if job is None or not job.status.open:
            return job, False
        changed = await transitions.end_items(connection, job, item_status, now)
        return await transitions.finish_calls(connection, job, status, now, changed), True

    job, done = await queue.store.write(work)
    if done:
        queue.notifications.job_ended(job_id)
        queue.notifications.job_changed(job_id)
        queue.notifications.work()
    return job, done


async def retry(queue: Queue, job_id: str) -> Job | None:
    """Makes every call of a job wait again that was not completed. None if there is no such job.

    Raises ``Conflict`` for a job that is not over, or has nothing to be tried again.
    """
    now = queue.clock()

    async def work(connection: AsyncConnection) -> Job | None:
        job = await transitions.lock(connection, job_id)
        if job is None:
            return None
        if not job.status.over:
            raise Conflict(f"Job {job_id} is {job.status}: only what is over can be tried again.")
        uncompleted = select(items.c.id).where(
            items.c.job_id == job_id, items.c.step == Step.CALL, items.c.status != ItemStatus.COMPLETED
        )
        number = int((await connection.execute(select(func.count()).select_from(uncompleted.subquery()))).scalar_one())
        if number == 0 or number != job.total - job.completed:
            raise Conflict(f"Job {job_id} has nothing that could be tried again.")
        await _undo_end(connection, job)
        await connection.execute(delete(results).where(results.c.item_id.in_(uncompleted)))
        await connection.execute(
            update(items).where(items.c.id.in_(uncompleted)).values(**_NEVER_TRIED, due_at=AT_ONCE)
        )
        changed: dict[str, Any] = {"status": JobStatus.RUNNING, "ending": "", "error": ""}
        changed |= dict.fromkeys(("failed", "cancelled", "expired"), 0)
        changed |= dict.fromkeys(("finished_at", "cancelling_at", "finalizing_at"))
        if job.expires_at is not None:
            # it has as much time as it had
            changed["expires_at"] = max(job.expires_at, now + job.expires_at - job.created_at)
        return await transitions.set_job(connection, job, **changed)

    job = await queue.store.write(work)
    if job is not None:
        queue.notifications.job_changed(job_id)
        queue.notifications.work()
    return job


#: a call that was never tried
_NEVER_TRIED: dict[str, Any] = {
    "status": ItemStatus.WAITING,
    "attempts": 0,
    "ended": None,
    "started_at": None,
    "finished_at": None,
}


async def _undo_end(connection: AsyncConnection, job: Job) -> None:
    """Takes back the steps that will be done once more at the end, and closes the ranks of the calls that stay."""
    last = TRAITS[job.kind].last
    after = [Step.DELIVER, *([last] if last is not None else [])]
    steps = select(items.c.id).where(items.c.job_id == job.id, items.c.step.in_(after))
    for table in (requests, results):
        await connection.execute(delete(table).where(table.c.item_id.in_(steps)))
    await connection.execute(delete(items).where(items.c.id.in_(steps)))
    stay = (
        select(items.c.id, func.row_number().over(order_by=items.c.ended).label("number"))
        .where(items.c.job_id == job.id, items.c.step == Step.CALL, items.c.status == ItemStatus.COMPLETED)
        .subquery("stay")
    )
    await connection.execute(update(items).where(items.c.id == stay.c.id).values(ended=stay.c.number))


async def delete_job(queue: Queue, job_id: str) -> bool:
    """Deletes a job that is over, with all that belongs to it, in pieces: its own row at the end. False if there is no
    such job. Raises ``Conflict`` for one that is not over."""

    async def some(connection: AsyncConnection) -> int | None:
        job = await transitions.lock(connection, job_id)
        if job is None:
            return None
        if not job.status.over:
            raise Conflict(f"Job {job_id} is {job.status}: cancel it first.")
        chunk = select(items.c.id).where(items.c.job_id == job_id).limit(_CHUNK)
        ids = (await connection.execute(chunk)).scalars().all()
        for table in (requests, results):
            await connection.execute(delete(table).where(table.c.item_id.in_(ids)))
        await connection.execute(delete(items).where(items.c.id.in_(ids)))
        if len(ids) < _CHUNK:
            await connection.execute(delete(jobs).where(jobs.c.id == job_id))
        return len(ids)

    deleted = await queue.store.write(some)
    existed = deleted is not None
    while deleted == _CHUNK:
        deleted = await queue.store.write(some)
    return existed


async def ended_before(queue: Queue, before: float, limit: int) -> Sequence[str]:
    """Jobs that were over before then, oldest first."""
    chosen = select(jobs.c.id).where(jobs.c.finished_at < before)
    return await queue.store.scalars(chosen.order_by(jobs.c.finished_at).limit(limit))
