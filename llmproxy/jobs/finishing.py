"""Results that count, as statements on a connection whose transaction the queue holds.

First the jobs are locked, then the items: whose lease is still held then stays held until the result is there.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.jobs import transitions
from llmproxy.jobs.job import Claimed, Failure, ItemResult, Job
from llmproxy.jobs.leases import RUNNING
from llmproxy.jobs.states import ItemStatus, JobStatus, Step
from llmproxy.jobs.tables import items, results
from llmproxy.wire.vocabulary import HITS

Done = Sequence[tuple[Claimed, ItemResult]]

#: the largest number that a column holds: what model servers say of tokens is added up
_LARGEST = 2**63 - 1
#: steps without which a job cannot end by itself
_NEEDED = (Step.VALIDATE, Step.FINALIZE)
_UNKNOWN = Failure("internal_error", "The job could not be worked on.")

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


async def finish(connection: AsyncConnection, worker: str, done: Done, now: float) -> dict[str, set[int]]:
    """Makes the results of leases that are still held count. Returns their items, by job."""
    locked = await transitions.lock_all(connection, {claimed.job.id for claimed, _ in done})
    ids = transitions.rounded([claimed.id for claimed, _ in done])
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
    for job_id, group in counted.items():
        await _move(connection, locked[job_id], group, now)
    return {job_id: {claimed.id for claimed, _ in group} for job_id, group in counted.items()}


async def _write(connection: AsyncConnection, counted: Sequence[tuple[Job, Done]], now: float) -> None:
    moves, rows = [], []
    for job, group in counted:
        number = job.completed + job.failed
        for claimed, result in group:
            is_call = claimed.step is Step.CALL
            number += is_call
            moves.append({"item": claimed.id, "to": result.status, "now": now, "number": number if is_call else None})
            rows.append(_row(claimed, result))
    await connection.execute(_ENDED, moves)
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


async def _move(connection: AsyncConnection, job: Job, group: Done, now: float) -> None:
    """What follows for the job: further counts, its next step or its end."""
    for _, result in group:
        if result.also is not None:
            await result.also(connection)
    calls = [result for claimed, result in group if claimed.step is Step.CALL]
    if calls:
        changed = _counts(job, calls, now)
        await transitions.settle(connection, replace(job, **changed), now, changed)
    for claimed, result in group:
        if claimed.step in _NEEDED and result.status is ItemStatus.FAILED:
            # unless its own transaction has said so already
            await transitions.fail(connection, job.id, result.error or _UNKNOWN, now)


def _counts(job: Job, calls: Sequence[ItemResult], now: float) -> dict[str, Any]:
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
