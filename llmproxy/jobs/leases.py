"""Claims and leases, as conditions and statements on a connection whose transaction the queue holds.

A lease is the worker's name and the number of the claim on the item's row. Whoever changes several items locks them in
the order of their ids, or passes over those that are locked: so nobody waits crosswise. A claim never waits: it passes
over items and jobs that others have locked. So it may lock items first and jobs then, which everybody else does the
other way round.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    BindParameter,
    Column,
    ColumnElement,
    Double,
    Integer,
    RowMapping,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningUpdate

from llmproxy.jobs.model import Claimed, ItemStatus, Job, JobStatus, Lane, Step
from llmproxy.jobs.store import LONGEST_SECONDS
from llmproxy.jobs.tables import items, jobs, requests

#: in the statement's text: a partial index is used only if its condition is seen before the values are
WAITING = items.c.status == literal_column(f"'{ItemStatus.WAITING}'")
RUNNING = items.c.status == literal_column(f"'{ItemStatus.RUNNING}'")

#: the due time of an item that waits for nothing, by any clock
AT_ONCE = 0.0

#: the columns of a released item
RELEASED: dict[str, Any] = {"status": ItemStatus.WAITING, "worker": None, "leased_until": None}


def is_due(now: BindParameter[float]) -> ColumnElement[bool]:
    """Whether an item may be claimed."""
    return or_(items.c.due_at <= now, _is_foreign(items.c.due_at, now))


def has_lapsed(now: BindParameter[float]) -> ColumnElement[bool]:
    """Whether a lease has run out."""
    return or_(items.c.leased_until < now, _is_foreign(items.c.leased_until, now))


def _is_foreign(moment: Column[float], now: BindParameter[float]) -> ColumnElement[bool]:
    """Whether a moment was written by the clock of another start of the machine."""
    return moment > now + literal_column(str(LONGEST_SECONDS), Double)


def locked_in_order(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """The items of which ``which`` is true, locked one after the other in the order of their ids."""
    # sorted by a term: to have the ids themselves in their order SQLite would read the whole table, and no index
    turn = items.c.id + literal_column("0")
    chosen = select(items.c.id).where(*conditions).order_by(turn).with_for_update().cte("chosen")
    return items.c.id.in_(select(chosen.c.id))


def _unlocked(*conditions: ColumnElement[bool]) -> CTE:
    return select(items.c.id).where(*conditions).with_for_update(skip_locked=True).cte("chosen")


_OF_WORKER = (RUNNING, items.c.worker == bindparam("by"))
_ONE = (*_OF_WORKER, items.c.id == bindparam("item"), items.c.claims == bindparam("number"))

_LAPSED = _unlocked(RUNNING, has_lapsed(bindparam("now", type_=Double)))
_LAPSE = update(items).where(items.c.id.in_(select(_LAPSED.c.id))).values(**RELEASED)
_RENEW = (
    update(items)
    .where(locked_in_order(*_OF_WORKER))
    .values(leased_until=bindparam("until"))
    .returning(items.c.id, items.c.claims)
)
# counted by what it returns: SQLite's driver counts no statement that begins with WITH
_RELEASE = update(items).where(locked_in_order(*_OF_WORKER)).values(**RELEASED).returning(items.c.id)
_GIVE_BACK = update(items).where(*_ONE).values(**RELEASED)
_RESCHEDULE = _GIVE_BACK.values(due_at=bindparam("due"), attempts=items.c.attempts + bindparam("counted"))
_HOLDS = select(items.c.id).where(*_ONE)
_HOLDERS = select(items.c.worker).where(RUNNING).distinct()


async def lapse(connection: AsyncConnection, now: float) -> None:
    """Gives back the leases that ran out before ``now``."""
    await connection.execute(_LAPSE, {"now": now})


async def renew(connection: AsyncConnection, worker: str, until: float) -> dict[int, int]:
    """Puts off the end of a worker's leases. Returns them: item -> number of the claim."""
    renewed = await connection.execute(_RENEW, {"by": worker, "until": until})
    return {row.id: row.claims for row in renewed}


async def release(connection: AsyncConnection, worker: str) -> int:
    """Gives back every lease of a worker. Returns how many there were."""
    return len((await connection.execute(_RELEASE, {"by": worker})).all())


async def give_back(connection: AsyncConnection, worker: str, item_id: int, claims: int) -> None:
    """Gives back one lease."""
    await connection.execute(_GIVE_BACK, {"by": worker, "item": item_id, "number": claims})


async def reschedule(connection: AsyncConnection, worker: str, claimed: Claimed, due: float, counted: int) -> None:
    """Gives back one lease, and nobody claims the item before ``due``; ``counted`` attempts are added."""
    await connection.execute(_RESCHEDULE, {**_lease(worker, claimed), "due": due, "counted": counted})


async def holds(connection: AsyncConnection, worker: str, claimed: Claimed) -> bool:
    """Whether a lease is still held."""
    return (await connection.execute(_HOLDS, _lease(worker, claimed))).first() is not None


async def holders(connection: AsyncConnection) -> set[str]:
    """The workers that hold leases."""
    return set((await connection.execute(_HOLDERS)).scalars().all())


def _lease(worker: str, claimed: Claimed) -> dict[str, Any]:
    return {"by": worker, "item": claimed.id, "number": claimed.claims}


#: by the clock of waits and leases, as the end of a lease is; and in Unix seconds
_NOW = bindparam("now", type_=Double)
_STARTED_AT = bindparam("started", type_=Double)
_BY = bindparam("by", type_=items.c.worker.type)
_UNTIL = bindparam("until", type_=Double)

_LOWEST = bindparam("lowest", type_=Integer)
_HIGHEST = bindparam("highest", type_=Integer)

_DUE = (WAITING, is_due(_NOW), items.c.priority.between(_LOWEST, _HIGHEST))
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
_ANY_LAPSED = select(items.c.id).where(RUNNING, has_lapsed(_NOW)).limit(1)


async def any_due(connection: AsyncConnection, now: float, lane: Lane) -> bool:
    """Whether anything could be claimed."""
    for query, values in ((_WAITS, {"now": now, **_bounds(lane)}), (_ANY_LAPSED, {"now": now})):
        if (await connection.execute(query, values)).first() is not None:
            return True
    return False


def _bounds(lane: Lane) -> dict[str, int]:
    lowest, highest = lane.value
    return {"lowest": lowest, "highest": highest}


async def claim(
    connection: AsyncConnection, worker: str, limit: int, now: float, until: float, started_at: float, lane: Lane
) -> tuple[list[Claimed], set[str]]:
    """Takes items. Returns them in the order of the queue, and the jobs of which these are the first calls."""
    await lapse(connection, now)
    lease = {"by": worker, "until": until}
    values = {**lease, **_bounds(lane), "now": now, "started": started_at, "most": limit}
    taken = (await connection.execute(_TAKE, values)).mappings().all()
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
