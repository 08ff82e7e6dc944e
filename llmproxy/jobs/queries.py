"""Reading jobs and their items, a page at a time."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, Select, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.database.paging import Keyset, cut
from llmproxy.jobs.leases import AT_ONCE, RUNNING, WAITING
from llmproxy.jobs.model import Failure, Item, ItemStatus, Job, JobKind, JobStatus, Step
from llmproxy.jobs.store import Store
from llmproxy.jobs.tables import items, jobs, results

_ITEM = (
    *(
        items.c[name]
        for name in ("id", "position", "label", "status", "attempts", "started_at", "finished_at", "ended")
    ),
    *(results.c[name] for name in ("status_code", "body", "error", "request_id", "cache", "seconds")),
)


_NEWEST = Keyset(jobs.c.created_at, jobs.c.id)


@dataclass(frozen=True, slots=True)
class JobQuery:
    """Which jobs. ``scope`` None sees all of them; ``after`` is the id of the last one of the page before."""

    kind: JobKind | None = None
    scope: str | None = ""
    status: JobStatus | None = None
    user: str | None = None
    after: str | None = None
    limit: int = 20


async def job(store: Store, id: str, kind: JobKind | None = None, scope: str | None = "") -> Job | None:
    """The job, None if there is none of this kind in this scope; ``scope`` None sees all of them."""
    query = _visible(select(jobs).where(jobs.c.id == id), kind, scope)
    rows = await store.rows(query)
    return Job.read(rows[0]) if rows else None


async def page(store: Store, query: JobQuery) -> tuple[list[Job], bool]:
    """The jobs, newest first, and whether there are more. The list ends with an ``after`` that does not exist."""
    statement, after = _filtered(select(jobs), query), None
    if query.after is not None:
        # not even the age of another caller's job is revealed
        created = select(jobs.c.created_at).where(jobs.c.id == query.after)
        after = (_visible(created, query.kind, query.scope).scalar_subquery(), query.after)
    rows, last = cut(await store.rows(_NEWEST.page(statement, query.limit, after)), query.limit)
    return [Job.read(row) for row in rows], last is not None


async def calls(store: Store, job_id: str, *, after: int = -1, limit: int = 1000) -> list[Item]:
    """Calls of a job with their results, in their order; ``after`` is a position."""
    query = _items(job_id).where(items.c.position > after).order_by(items.c.position).limit(limit)
    return [_item(row) for row in await store.rows(query)]


async def ended(store: Store, job_id: str, *, after: int = 0, limit: int = 1000) -> list[Item]:
    """Calls of a job in the order in which they ended; ``after`` is the number of the last one that was read."""
    query = _items(job_id).where(items.c.ended > after).order_by(items.c.ended).limit(limit)
    return [_item(row) for row in await store.rows(query)]


async def failed(store: Store, job_id: str, *, limit: int) -> list[Item]:
    """The first failed calls of a job, in their order."""
    query = _items(job_id).where(items.c.status == ItemStatus.FAILED).order_by(items.c.position).limit(limit)
    return [_item(row) for row in await store.rows(query)]


async def attempts(store: Store, job_id: str) -> int:
    """The attempts at all calls of a job so far."""
    query = select(func.coalesce(func.sum(items.c.attempts), 0)).where(
        items.c.job_id == job_id, items.c.step == Step.CALL
    )
    return int((await store.scalars(query))[0])


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the queue holds. ``oldest`` is when the job was accepted whose untried item has waited longest, Unix
    seconds."""

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


def _filtered(statement: Select[Any], query: JobQuery) -> Select[Any]:
    statement = _visible(statement, query.kind, query.scope)
    if query.status is not None:
        statement = statement.where(jobs.c.status == query.status)
    if query.user is not None:
        statement = statement.where(jobs.c.user_name == query.user)
    return statement


def _visible(query: Select[Any], kind: JobKind | None, scope: str | None) -> Select[Any]:
    """None stands for every kind, and for everybody's."""
    if kind is not None:
        query = query.where(jobs.c.kind == kind)
    return query if scope is None else query.where(jobs.c.scope == scope)


def _items(job_id: str) -> Select[Any]:
    joined = items.outerjoin(results, results.c.item_id == items.c.id)
    return select(*_ITEM).select_from(joined).where(items.c.job_id == job_id, items.c.step == Step.CALL)


def _item(row: RowMapping) -> Item:
    return Item(**{**row, "status": ItemStatus(row["status"]), "error": Failure.read(row["error"] or "")})
