"""Claiming, as statements on a connection whose transaction the queue holds.

A claim never waits: it passes over items and jobs that others have locked. So it may lock items first and jobs then,
which everybody else does the other way round.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Double, Integer, RowMapping, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningUpdate

from llmproxy.jobs import leases
from llmproxy.jobs.job import Claimed, Job
from llmproxy.jobs.leases import RUNNING, WAITING
from llmproxy.jobs.states import ItemStatus, JobStatus, Lane, Step
from llmproxy.jobs.tables import items, jobs, requests

#: by the clock of waits and leases, as the end of a lease is; and in Unix seconds
_NOW = bindparam("now", type_=Double)
_STARTED_AT = bindparam("started", type_=Double)
_BY = bindparam("by", type_=items.c.worker.type)
_UNTIL = bindparam("until", type_=Double)

_LOWEST = bindparam("lowest", type_=Integer)
_HIGHEST = bindparam("highest", type_=Integer)

_DUE = (WAITING, leases.is_due(_NOW), items.c.priority.between(_LOWEST, _HIGHEST))
#: the items of one claim: no other of this worker ends at the very same time
_TAKEN = (RUNNING, items.c.worker == _BY, items.c.leased_until == _UNTIL)


def _take() -> ReturningUpdate[Any]:
    due = (
        select(items.c.id)
        .where(*_DUE)
        .order_by(items.c.priority, items.c.id)
        .limit(bindparam("most", type_=Integer))
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    body = select(requests.c.body).where(requests.c.item_id == items.c.id).scalar_subquery()
    return (
        update(items)
        .where(items.c.id.in_(select(due.c.id)))
        .values(
            status=ItemStatus.RUNNING,
            worker=_BY,
            leased_until=_UNTIL,
            claims=items.c.claims + 1,
            started_at=func.coalesce(items.c.started_at, _STARTED_AT),
        )
        .returning(items, body.label("body"))
    )


_TAKE = _take()
_OWNERS = select(jobs).where(jobs.c.id.in_(select(items.c.job_id).where(*_TAKEN)))
_STARTED = (
    select(jobs.c.id)
    .where(jobs.c.id.in_(select(items.c.job_id).where(*_TAKEN, items.c.step == Step.CALL)))
    .where(jobs.c.status == JobStatus.PENDING)
    .with_for_update(skip_locked=True)
    .cte("started")
)
_START = (
    update(jobs)
    .where(jobs.c.id.in_(select(_STARTED.c.id)))
    .values(status=JobStatus.RUNNING, started_at=_STARTED_AT)
    .returning(jobs)
)
_WAITS = select(items.c.id).where(*_DUE).limit(1)
_LAPSED = select(items.c.id).where(RUNNING, leases.is_over(_NOW)).limit(1)


async def waits(connection: AsyncConnection, now: float, lane: Lane) -> bool:
    """Whether anything could be claimed."""
    for query, values in ((_WAITS, {"now": now, **_bounds(lane)}), (_LAPSED, {"now": now})):
        if (await connection.execute(query, values)).first() is not None:
            return True
    return False


def _bounds(lane: Lane) -> dict[str, int]:
    lowest, highest = lane.value
    return {"lowest": lowest, "highest": highest}


async def claim(
    connection: AsyncConnection, worker: str, limit: int, now: float, until: float, started_at: float, lane: Lane
) -> tuple[list[Claimed], set[str]]:
    """What is taken, in the order of the queue; and the jobs of which these are the first calls."""
    await leases.lapse(connection, now)
    lease = {"by": worker, "until": until}
    wanted = {**lease, **_bounds(lane), "now": now, "started": started_at, "most": limit}
    taken = (await connection.execute(_TAKE, wanted)).mappings().all()
    if not taken:
        return [], set()
    owners = {row["id"]: Job.read(row) for row in (await connection.execute(_OWNERS, lease)).mappings()}
    started: dict[str, Job] = {}
    if any(owners[row["job_id"]].status is JobStatus.PENDING for row in taken if row["step"] == Step.CALL):
        rows = (await connection.execute(_START, {**lease, "started": started_at})).mappings()
        started = {row["id"]: Job.read(row) for row in rows}
    return _claimed(taken, owners | started, worker), set(started)


def _claimed(taken: Sequence[RowMapping], owners: dict[str, Job], worker: str) -> list[Claimed]:
    return [
        Claimed(
            id=row["id"],
            claims=row["claims"],
            attempts=row["attempts"],
            step=Step(row["step"]),
            position=row["position"],
            label=row["label"],
            body=row["body"],
            job=owners[row["job_id"]],
            worker=worker,
        )
        for row in sorted(taken, key=lambda row: (row["priority"], row["id"]))
    ]
