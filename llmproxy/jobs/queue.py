"""The durable queue: jobs come in, items are claimed under a lease, results count once.

A lease is the worker's name and the number of the claim on the item's row. A result counts only while both are still
there: a worker that lost the lease, to the clock or to a cancellation, cannot overwrite what came after.
"""

import time
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.jobs import leases, transitions
from llmproxy.jobs.model import TRAITS, Claimed, Event, ItemResult, Job, JobStatus, Lane, NewCall, NewJob, Reschedule
from llmproxy.jobs.notifications import JobNotifications
from llmproxy.jobs.response_events import put_events
from llmproxy.jobs.store import LONGEST_SECONDS, SharedClock, Store
from llmproxy.jobs.stored import put_answer
from llmproxy.jobs.stored_model import StoredAnswer
from llmproxy.jobs.tables import jobs


class Queue:
    """See the module. Every method raises ``Unavailable`` if the database cannot be used. ``clock`` gives Unix seconds,
    for what callers see. Waits and leases go by ``shared``, because the clock on the wall may be set while they last.

    Results are on the disk when a method returns. Leases need not be: a machine that loses its power loses its workers
    with their leases.
    """

    def __init__(
        self,
        store: Store,
        notifications: JobNotifications,
        clock: Callable[[], float] = time.time,
        shared: Callable[[], Awaitable[float]] | None = None,
    ) -> None:
        self.store = store
        self.shared = shared or SharedClock(store)
        self.notifications = notifications
        self.clock = clock

    async def submit(
        self, new: NewJob, calls: Sequence[NewCall], answer: StoredAnswer | None = None, events: Sequence[Event] = ()
    ) -> Job:
        """Accepts a job: it is on the disk when this returns. The same idempotency key gives the first one's job.

        ``answer``, which will be the job's, and its first ``events`` are stored with it, and not for a job that was
        there already.
        Raises ``ValueError`` for a job that would never end: without calls, and without a step that finds them.
        """
        first = TRAITS[new.kind].first
        if not calls and first is None:
            raise ValueError(f"a {new.kind} without calls never ends")
        now = self.clock()

        async def work(connection: AsyncConnection) -> Job:
            try:
                async with connection.begin_nested():
                    job = await transitions.put_job(connection, new, len(calls), now)
            except IntegrityError:
                if new.idempotency_key is None:
                    raise
                return await _same_key(connection, new)
            await transitions.put_calls(connection, job, calls)
            if first is not None:
                await transitions.put_step(connection, job.id, first, b"")
            if answer is not None:
                await put_answer(connection, answer)
                await put_events(connection, answer.id, events)
            return job

        job = await self.store.write(work)
        self.notifications.work(Lane.WORK)
        return job

    async def waiting(self, lane: Lane = Lane.ALL) -> bool:
        """Whether anything could be claimed now. Cheap: it takes no lock."""
        now = await self.shared()
        return await self.store.read(lambda connection: leases.any_due(connection, now, lane))

    async def claim(self, worker: str, limit: int, seconds: float, lane: Lane = Lane.ALL) -> list[Claimed]:
        """Up to ``limit`` items of a lane that wait, for ``seconds`` from now.

        A lease that ran out is given back on the way.
        """
        now, started = await self.shared(), self.clock()
        claimed, started_jobs = await self.store.write(
            lambda connection: leases.claim(connection, worker, limit, now, now + seconds, started, lane),
            durable=False,
        )
        for job_id in started_jobs:
            self.notifications.job_changed(job_id)
        return claimed

    async def renew(self, worker: str, seconds: float) -> dict[int, int]:
        """Puts off the end of this worker's leases. Returns those it still has: item -> number of the claim."""
        until = await self.shared() + seconds
        return await self.store.write(lambda connection: leases.renew(connection, worker, until), durable=False)

    async def finish(self, worker: str, done: Sequence[tuple[Claimed, ItemResult]]) -> set[int]:
        """Makes results count. Returns the items whose results do: the leases of the others were lost."""
        now = self.clock()
        kept, added = await self.store.write(lambda connection: transitions.finish(connection, worker, done, now))
        for job_id in kept:
            self.notifications.job_changed(job_id)
        if added:
            self.notifications.work()
        return {id for ids in kept.values() for id in ids}

    async def reschedule(self, worker: str, claimed: Claimed, how: Reschedule) -> None:
        """Gives an item back, to be claimed again when its time has come."""
        due, counted = await self.shared() + min(how.seconds, LONGEST_SECONDS), int(how.counts)
        await self.store.write(
            lambda connection: leases.reschedule(connection, worker, claimed, due, counted), durable=False
        )

    async def give_back(self, worker: str, item_id: int, claims: int) -> None:
        """Gives up one lease, by the item's id and the number of the claim."""
        await self.store.write(lambda connection: leases.give_back(connection, worker, item_id, claims), durable=False)
        self.notifications.work()

    async def release(self, worker: str) -> int:
        """Gives back every lease of a worker that ends, or is known to be dead. Returns how many there were."""
        released = await self.store.write(lambda connection: leases.release(connection, worker), durable=False)
        if released:
            self.notifications.work()
        return released

    async def workers(self) -> set[str]:
        """The workers that hold leases."""
        return await self.store.read(leases.holders)

    async def begin(self, claimed: Claimed, worker: str, total: int, model: str) -> Job | None:
        """The first step found ``total`` calls: they are added next. None if the lease was lost."""
        now = self.clock()

        async def work(connection: AsyncConnection) -> Job | None:
            job = await transitions.lock(connection, claimed.job.id)
            if job is None or not job.status.open or not await leases.holds(connection, worker, claimed):
                return None
            started = job.started_at if job.started_at is not None else now
            return await transitions.set_job(
                connection, job, status=JobStatus.RUNNING, started_at=started, total=total, model=model
            )

        job = await self.store.write(work)
        self.notifications.job_changed(claimed.job.id)
        return job

    async def add(self, claimed: Claimed, worker: str, calls: Sequence[NewCall]) -> bool:
        """Adds calls to a job that ``begin`` began. False if the lease was lost: another worker continues with it."""

        async def work(connection: AsyncConnection) -> bool:
            job = await transitions.lock(connection, claimed.job.id)
            if job is None or not job.status.open or not await leases.holds(connection, worker, claimed):
                return False
            await transitions.put_calls(connection, job, calls)
            return True

        added = await self.store.write(work)
        self.notifications.work(Lane.WORK)
        return added


async def _same_key(connection: AsyncConnection, new: NewJob) -> Job:
    same = select(jobs).where(
        jobs.c.kind == new.kind, jobs.c.scope == new.scope, jobs.c.idempotency_key == new.idempotency_key
    )
    return Job.read((await connection.execute(same)).mappings().one())
