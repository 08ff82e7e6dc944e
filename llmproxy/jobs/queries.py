"""What is known of jobs and their items, a page at a time."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, literal, literal_column, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.jobs.leases import AT_ONCE, RUNNING, WAITING
from llmproxy.jobs.model import Failure, Item, ItemStatus, Job, JobKind, JobStatus, Step
from llmproxy.jobs.store import Store
from llmproxy.jobs.tables import items, jobs, requests, results

_ITEM = (
    *(
        items.c[name]
        for name in ("id", "position", "label", "status", "attempts", "started_at", "finished_at", "ended")
    ),
    *(results.c[name] for name in ("status_code", "body", "error", "request_id", "cache", "seconds")),
)


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs. ``scope`` None sees all of them; ``after`` is the id of the last one of the page before."""

    kind: JobKind | None = None
    scope: str | None = ""
    status: JobStatus | None = None
    user: str | None = None
    after: str | None = None
    limit: int = 20
    newest_first: bool = True


async def job(store: Store, id: str, kind: JobKind | None = None, scope: str | None = "") -> Job | None:
    """The job, None where there is none of this kind in this scope; ``scope`` None sees all of them."""
    query = _visible(select(jobs).where(jobs.c.id == id), kind, scope)

    async def work(connection: AsyncConnection) -> Job | None:
        row = (await connection.execute(query)).mappings().first()
        return None if row is None else Job.read(row)

    return await store.read(work)


async def page(store: Store, which: JobQuery) -> tuple[list[Job], bool]:
    """The jobs, and whether there are more. An ``after`` that is not known ends the list."""
    query = _filtered(select(jobs), which)
    if which.after is not None:
        # of another's job not even the age is told
        theirs = select(jobs.c.created_at).where(jobs.c.id == which.after)
        at = _visible(theirs, which.kind, which.scope).scalar_subquery()
        here, last = tuple_(jobs.c.created_at, jobs.c.id), tuple_(at, literal(which.after))
        query = query.where(here < last if which.newest_first else here > last)
    order = (jobs.c.created_at, jobs.c.id)
    query = query.order_by(*(each.desc() if which.newest_first else each for each in order)).limit(which.limit + 1)

    async def work(connection: AsyncConnection) -> list[Job]:
        return [Job.read(row) for row in (await connection.execute(query)).mappings().all()]

    found = await store.read(work)
    return found[: which.limit], len(found) > which.limit


async def calls(store: Store, job_id: str, *, after: int = -1, limit: int = 1000) -> list[Item]:
    """Calls of a job with their results, in their order; ``after`` is a position."""
    query = _items(job_id).where(items.c.position > after).order_by(items.c.position).limit(limit)
    return await store.read(lambda connection: _read_items(connection, query))


async def ended(store: Store, job_id: str, *, after: int = 0, limit: int = 1000) -> list[Item]:
    """Calls of a job in the order in which they ended; ``after`` is the number of the last one that is known."""
    query = _items(job_id).where(items.c.ended > after).order_by(items.c.ended).limit(limit)
    return await store.read(lambda connection: _read_items(connection, query))


async def failed(store: Store, job_id: str, *, limit: int) -> list[Item]:
    """The first failed calls of a job, in their order."""
    query = _items(job_id).where(items.c.status == ItemStatus.FAILED).order_by(items.c.position).limit(limit)
    return await store.read(lambda connection: _read_items(connection, query))


async def attempts(store: Store, job_id: str) -> int:
    """The attempts at all calls of a job so far."""
    query = select(func.coalesce(func.sum(items.c.attempts), 0)).where(
        items.c.job_id == job_id, items.c.step == Step.CALL
    )

    async def work(connection: AsyncConnection) -> int:
        return int((await connection.execute(query)).scalar_one())

    return await store.read(work)


async def request(store: Store, item_id: int) -> bytes | None:
    """The request of an item."""
    query = select(requests.c.body).where(requests.c.item_id == item_id)

    async def work(connection: AsyncConnection) -> bytes | None:
        body: bytes | None = (await connection.execute(query)).scalar()
        return body

    return await store.read(work)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the queue holds. ``oldest`` is when the job was accepted whose item has waited longest
    without having been tried, Unix seconds."""

    waiting: int
    running: int
    oldest: float | None


async def backlog(store: Store) -> Backlog:
    waits = select(func.count()).where(WAITING)
    # sorted by a term: in the order of the ids themselves SQLite would read the whole table
    by_id = items.c.id + literal_column("0")
    first = select(items.c.job_id).where(WAITING, items.c.due_at == AT_ONCE).order_by(by_id).limit(1)
    accepted = select(jobs.c.created_at).where(jobs.c.id == first.scalar_subquery())
    runs = select(func.count()).select_from(items).where(RUNNING)

    async def work(connection: AsyncConnection) -> Backlog:
        waiting = (await connection.execute(waits)).scalar_one()
        oldest = (await connection.execute(accepted)).scalar()
        return Backlog(waiting, (await connection.execute(runs)).scalar_one(), oldest)

    return await store.read(work)


def _filtered(query: Select[Any], which: JobQuery) -> Select[Any]:
    query = _visible(query, which.kind, which.scope)
    if which.status is not None:
        query = query.where(jobs.c.status == which.status)
    if which.user is not None:
        query = query.where(jobs.c.user_name == which.user)
    return query


def _visible(query: Select[Any], kind: JobKind | None, scope: str | None) -> Select[Any]:
    """None stands for every kind, and for everybody's."""
    if kind is not None:
        query = query.where(jobs.c.kind == kind)
    return query if scope is None else query.where(jobs.c.scope == scope)


def _items(job_id: str) -> Select[Any]:
    joined = items.outerjoin(results, results.c.item_id == items.c.id)
    return select(*_ITEM).select_from(joined).where(items.c.job_id == job_id, items.c.step == Step.CALL)


async def _read_items(connection: AsyncConnection, query: Select[Any]) -> list[Item]:
    rows = (await connection.execute(query)).mappings().all()
    return [
        Item(**{**row, "status": ItemStatus(row["status"]), "error": Failure.read(row["error"] or "")}) for row in rows
    ]
