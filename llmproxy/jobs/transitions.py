"""The moves that jobs and items make, as statements on a connection whose transaction the queue holds.

Whoever changes a job locks its row first, then what changes of its items; several are locked in the order of their ids.
So two who change the same job take turns, and never wait for each other crosswise. A result counts while its lease is
still held; locked, it stays held until the result is there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any, TypeVar

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.jobs.leases import AT_ONCE, RUNNING, locked_in_order
from llmproxy.jobs.model import (
    STEP_PRIORITIES,
    TRAITS,
    Claimed,
    Completion,
    Failure,
    Finalization,
    ItemResult,
    ItemStatus,
    Job,
    JobStatus,
    NewCall,
    NewJob,
    Refusal,
    Step,
    new_id,
    outcome,
    write_headers,
)
from llmproxy.jobs.response_events import put_events
from llmproxy.jobs.stored import complete_answer
from llmproxy.jobs.tables import files, items, jobs, requests, results
from llmproxy.wire.vocabulary import HITS

T = TypeVar("T")
#: columns of a job's row, or members of its detail
Values = Mapping[str, Any]
NOTHING: Values = MappingProxyType({})
Results = Sequence[tuple[Claimed, ItemResult]]

#: the largest number that a column holds: what model servers say of tokens is added up
_LARGEST = 2**63 - 1
#: steps without which a job cannot end by itself
_REQUIRED_STEPS = (Step.VALIDATE, Step.FINALIZE)
_UNKNOWN = Failure("internal_error", "The job could not be worked on.")

#: as values, so that the job's own index is used: those of the queue hold the items of all others too
_OPEN = items.c.status.in_([ItemStatus.WAITING, ItemStatus.RUNNING])

#: rows whose values are put together without a pause for others
_PAGE = 500


async def lock(connection: AsyncConnection, job_id: str) -> Job | None:
    """The job as it is now; it stays so until the transaction ends."""
    row = (await connection.execute(select(jobs).where(jobs.c.id == job_id).with_for_update())).mappings().first()
    return None if row is None else Job.read(row)


async def lock_all(connection: AsyncConnection, job_ids: set[str]) -> dict[str, Job]:
    """``lock`` of several, one after the other in the order of their ids."""
    rows = await connection.execute(_LOCK_ALL, {"ids": padded(sorted(job_ids))})
    return {row["id"]: Job.read(row) for row in rows.mappings()}


_LOCK_ALL = select(jobs).where(jobs.c.id.in_(bindparam("ids", expanding=True))).order_by(jobs.c.id).with_for_update()


def padded(ids: list[T]) -> list[T]:
    """Filled up with the last one to a power of two: a statement with each number of ids would be prepared anew."""
    return ids + ids[-1:] * ((1 << (len(ids) - 1).bit_length()) - len(ids)) if ids else ids


async def put_job(connection: AsyncConnection, new: NewJob, total: int, now: float) -> Job:
    """Raises ``IntegrityError`` if the idempotency key is known already."""
    row: dict[str, Any] = {
        "id": new.id or new_id(new.kind),
        "kind": new.kind,
        "status": JobStatus.PENDING,
        "scope": new.scope,
        "caller": new.caller,
        "user_name": new.user,
        "session": new.session,
        "path": new.path,
        "model": new.model,
        "created_at": new.created_at if new.created_at is not None else now,
        "expires_at": new.expires_at,
        "total": total,
        "headers": write_headers(new.headers),
        "detail": json.dumps(dict(new.detail)),
        "webhook_url": new.webhook_url,
        "idempotency_key": new.idempotency_key,
    }
    return Job.read((await connection.execute(insert(jobs).values(**row).returning(jobs))).mappings().one())


async def put_calls(connection: AsyncConnection, job: Job, calls: Sequence[NewCall]) -> None:
    """Adds calls that wait to be made."""
    await _put(connection, job.id, Step.CALL, TRAITS[job.kind].priority, calls)


async def put_step(connection: AsyncConnection, job_id: str, step: Step, body: bytes) -> None:
    """Adds a step that is not a call; a job has one of each sort at most."""
    await _put(connection, job_id, step, STEP_PRIORITIES[step], [NewCall(0, body)])


_ITEM = insert(items)
_REQUEST = insert(requests).from_select(
    ["item_id", "body"],
    select(items.c.id, bindparam("given", type_=requests.c.body.type)).where(
        items.c.job_id == bindparam("job"),
        items.c.step == bindparam("does"),
        items.c.position == bindparam("at"),
    ),
)


async def _put(connection: AsyncConnection, job_id: str, step: Step, priority: int, calls: Sequence[NewCall]) -> None:
    same = {"job_id": job_id, "step": step, "status": ItemStatus.WAITING, "priority": priority, "due_at": AT_ONCE}
    for start in range(0, len(calls), _PAGE):
        page = calls[start : start + _PAGE]
        # by the driver's own loops: a quarter of the time of one long INSERT that returns the ids
        await connection.execute(_ITEM, [{**same, "position": call.position, "label": call.label} for call in page])
        await connection.execute(
            _REQUEST, [{"given": call.body, "job": job_id, "does": step, "at": call.position} for call in page]
        )


async def set_job(connection: AsyncConnection, job: Job, **values: Any) -> Job:
    """Changes columns of a locked job. Returns it as it is then."""
    changed = update(jobs).where(jobs.c.id == job.id).values(**values).returning(jobs)
    return Job.read((await connection.execute(changed)).mappings().one())


async def advance(connection: AsyncConnection, job: Job, now: float, changed: Values = NOTHING) -> Job:
    """Moves a locked job on once all its calls have ended: to its last step, or to its end.

    ``changed``, here and below, are columns that are written with it; ``job`` may show them already.
    """
    if job.status.open and job.ended >= job.total:
        return await finish_calls(connection, job, outcome(job.completed, job.cancelled, job.expired), now, changed)
    return await set_job(connection, job, **changed) if changed else job


async def finish_calls(
    connection: AsyncConnection, job: Job, status: JobStatus, now: float, changed: Values = NOTHING
) -> Job:
    """Ends a locked job whose calls have all ended: by its last step if its kind has one and the job ever began."""
    last = TRAITS[job.kind].last
    if last is None or job.status is JobStatus.PENDING:
        return await close_job(connection, job, status, now, changed=changed)
    if status is JobStatus.FAILED:
        # a batch of which every line failed is completed: its error file says so
        status = JobStatus.COMPLETED
    await put_step(connection, job.id, last, b"")
    columns: dict[str, Any] = {"status": JobStatus.FINALIZING, "finalizing_at": now}
    if status is JobStatus.CANCELLED:
        columns = {"status": JobStatus.CANCELLING, "cancelling_at": now}
    return await set_job(connection, job, **{**changed, **columns, "ending": status})


async def close_job(
    connection: AsyncConnection,
    job: Job,
    status: JobStatus,
    now: float,
    error: Failure | None = None,
    changed: Values = NOTHING,
) -> Job:
    """The last move of a locked job: its final status, and word of it to a webhook."""
    if job.webhook_url:
        event = {"type": f"{job.kind}.{status}", "created_at": int(now), "data": {"id": job.id}}
        await put_step(connection, job.id, Step.DELIVER, json.dumps(event).encode())
    columns: dict[str, Any] = {"status": status, "ending": "", "finished_at": now}
    columns["error"] = error.json() if error is not None else ""
    if status is JobStatus.CANCELLED and job.cancelling_at is None:
        columns["cancelling_at"] = now
    return await set_job(connection, job, **{**changed, **columns})


async def end_items(connection: AsyncConnection, job: Job, status: ItemStatus, now: float) -> dict[str, Any]:
    """Ends every item of a locked job that is not over, in flight or not. Returns the columns that change with it."""
    ended = {"status": status, "worker": None, "leased_until": None, "finished_at": now}
    # the first step too: what it has not added by now it must not add any more, and counts as if it had been
    await connection.execute(update(items).where(locked_in_order(items.c.job_id == job.id, _OPEN)).values(**ended))
    return {str(status.value): job.total - job.completed - job.failed}


async def fail(connection: AsyncConnection, job_id: str, error: Failure, now: float, detail: Values = NOTHING) -> None:
    """Ends a job that cannot be worked on, unless it is over. ``detail`` is added to the job's own."""
    job = await lock(connection, job_id)
    if job is None or job.status.over:
        return
    changed: dict[str, Any] = {"detail": json.dumps({**job.detail, **detail})}
    if job.status.open:
        changed |= await end_items(connection, job, ItemStatus.CANCELLED, now)
    await close_job(connection, job, JobStatus.FAILED, now, error, changed)


_HELD = (
    select(items.c.id, items.c.claims)
    .where(items.c.id.in_(bindparam("ids", expanding=True)), RUNNING, items.c.worker == bindparam("by"))
    .order_by(items.c.id)
    .with_for_update()
)
_ENDED = (
    update(items)
    .where(items.c.id == bindparam("item"))
    .values(
        status=bindparam("to"),
        worker=None,
        leased_until=None,
        finished_at=bindparam("now"),
        attempts=items.c.attempts + 1,
        ended=bindparam("number"),
    )
)


async def finish(
    connection: AsyncConnection, worker: str, done: Results, now: float
) -> tuple[dict[str, set[int]], bool]:
    """Makes the results of leases that are still held count. Returns their items, by job, and whether there may be
    something new to claim."""
    locked = await lock_all(connection, {claimed.job.id for claimed, _ in done})
    ids = padded([claimed.id for claimed, _ in done])
    rows = await connection.execute(_HELD, {"ids": ids, "by": worker})
    held = {row.id: row.claims for row in rows}
    counted: dict[str, list[tuple[Claimed, ItemResult]]] = {}
    for claimed, result in done:
        if claimed.job.id in locked and held.get(claimed.id) == claimed.claims:
            # once: the second result of the same claim is one too many
            del held[claimed.id]
            counted.setdefault(claimed.job.id, []).append((claimed, result))
    if counted:
        await _write(connection, [(locked[id], group) for id, group in counted.items()], now)
    added = [await _advance_job(connection, locked[job_id], group, now) for job_id, group in counted.items()]
    return {job_id: {claimed.id for claimed, _ in group} for job_id, group in counted.items()}, any(added)


async def _write(connection: AsyncConnection, counted: Sequence[tuple[Job, Results]], now: float) -> None:
    updates, rows = [], []
    for job, group in counted:
        number = job.completed + job.failed
        for claimed, result in group:
            is_call = claimed.step is Step.CALL
            number += is_call
            updates.append({"item": claimed.id, "to": result.status, "now": now, "number": number if is_call else None})
            rows.append(_row(claimed, result))
    await connection.execute(_ENDED, updates)
    await connection.execute(insert(results), rows)


def _row(claimed: Claimed, result: ItemResult) -> dict[str, Any]:
    return {
        "item_id": claimed.id,
        "status_code": result.status_code,
        "body": result.body,
        "error": result.error.json() if result.error is not None else "",
        "request_id": result.request_id,
        "cache": result.cache,
        "seconds": result.seconds,
    }


async def _advance_job(connection: AsyncConnection, job: Job, group: Results, now: float) -> bool:
    """What follows for the job: further counts, its next step or its end. Whether a step may have been added."""
    for _, result in group:
        if result.move is not None:
            await _make_move(connection, job, result.move, now)
    calls = [result for claimed, result in group if claimed.step is Step.CALL]
    advanced = job
    if calls:
        changed = _counters(job, calls, now)
        advanced = await advance(connection, replace(job, **changed), now, changed)
    for claimed, result in group:
        if claimed.step in _REQUIRED_STEPS and result.status is ItemStatus.FAILED:
            # unless the result itself has said so already
            await fail(connection, job.id, result.error or _UNKNOWN, now)
    return len(calls) < len(group) or advanced.status.open != job.status.open


async def _make_move(
    connection: AsyncConnection, job: Job, move: Refusal | Finalization | Completion, now: float
) -> None:
    """Makes the move of a locked job that belongs to a result."""
    match move:
        case Refusal():
            await fail(connection, job.id, move.error, now, move.detail)
        case Finalization():
            await finalize(connection, job, move, now)
        case Completion():
            await put_events(connection, job.id, move.events)
            await complete_answer(connection, job.id, move.document, move.expires_at)


async def finalize(connection: AsyncConnection, job: Job, move: Finalization, now: float) -> None:
    """Ends a locked job whose last step is done, unless it has ended meanwhile."""
    if job.status not in (JobStatus.FINALIZING, JobStatus.CANCELLING):
        return
    ids = [*move.removed, *(file.id for file in move.files)]
    await connection.execute(delete(files).where(files.c.id.in_(ids)))
    if move.files:
        await connection.execute(insert(files), [asdict(file) for file in move.files])
    detail = json.dumps({**job.detail, **move.detail})
    await close_job(connection, job, JobStatus(job.ending), now, changed={"detail": detail})


def _counters(job: Job, calls: Sequence[ItemResult], now: float) -> dict[str, Any]:
    """The columns of a job that its calls' ends change."""
    completed = [result for result in calls if result.status is ItemStatus.COMPLETED]
    tokens = [result.tokens for result in completed]
    return {
        "status": JobStatus.RUNNING if job.status is JobStatus.PENDING else job.status,
        "started_at": job.started_at if job.started_at is not None else now,
        "completed": job.completed + len(completed),
        "failed": job.failed + len(calls) - len(completed),
        "hits": job.hits + sum(result.cache in HITS for result in completed),
        "prompt_tokens": min(_LARGEST, job.prompt_tokens + sum(each.prompt for each in tokens)),
        "completion_tokens": min(_LARGEST, job.completion_tokens + sum(each.completion for each in tokens)),
        "cached_tokens": min(_LARGEST, job.cached_tokens + sum(each.cached for each in tokens)),
        "reasoning_tokens": min(_LARGEST, job.reasoning_tokens + sum(each.reasoning for each in tokens)),
    }
