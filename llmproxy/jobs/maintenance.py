"""Periodic work: leases are renewed, those of crashed workers released, jobs expire, what is old is deleted."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from llmproxy.jobs import lifecycle
from llmproxy.jobs.queue import Queue
from llmproxy.runtime.background import LogOnce, Periodic
from llmproxy.runtime.process_id import is_dead
from llmproxy.wire.errors import ProxyError

log = logging.getLogger(__name__)

#: renewals in the time of a lease
_BEATS = 5
#: jobs deleted at a time
_CHUNK = 50
DAY = 86_400.0

Work = Callable[[], Awaitable[object]]


class FailedRounds:
    """Logs rounds that failed: those that found no database for whoever debugs, defects each time as errors."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._once = LogOnce(log)

    def failed(self, error: Exception) -> None:
        if isinstance(error, ProxyError):
            # the database warns by itself
            self._once.failed("jobs: %s failed: %s", self._name, error.message, level=logging.DEBUG)
        else:
            log.error("jobs: %s failed", self._name, exc_info=error)

    def succeeded(self) -> None:
        self._once.worked()


def periodic(name: str, seconds: float, work: Work) -> Periodic:
    """``work`` every so many ``seconds``, beginning at once."""
    return Periodic(f"jobs: {name}", seconds, work, observer=FailedRounds(name))


class LeaseHolder(Protocol):
    """What holds this process's leases."""

    @property
    def name(self) -> str: ...

    def held(self) -> dict[int, int]:
        """The leases that are known here: item -> number of the claim."""
        ...

    def drop(self, item_ids: set[int]) -> None:
        """These leases are not ours any more."""
        ...


class Heartbeat:
    """One beat renews this process's leases, and drops here the items whose leases were lost."""

    def __init__(self, queue: Queue, workers: LeaseHolder, lease_seconds: float) -> None:
        self._queue = queue
        self._workers = workers
        self._lease = lease_seconds
        self._strays: dict[int, int] = {}

    @property
    def seconds(self) -> float:
        """Between two beats."""
        return self._lease / _BEATS

    async def __call__(self) -> None:
        leases = self._workers.held()
        if not leases and not self._strays:
            return
        still = await self._queue.renew(self._workers.name, self._lease)
        now = self._workers.held()
        self._workers.drop({id for id, claims in leases.items() if now.get(id) == claims and still.get(id) != claims})
        await self._give_back(still)

    async def _give_back(self, still: dict[int, int]) -> None:
        """Gives back leases in this process's name that nothing here holds: their item could not be rescheduled. A
        lease that a claim is just bringing is unknown too, so only one that was a stray before is given back."""
        held = self._workers.held()
        strays = {id: claims for id, claims in still.items() if id not in held}
        for id, claims in strays.items():
            if self._strays.get(id) == claims:
                await self._queue.give_back(self._workers.name, id, claims)
        self._strays = strays


async def release_crashed(queue: Queue) -> None:
    """Gives back the leases of workers that died on this machine."""
    for worker in await queue.workers():
        if await asyncio.to_thread(is_dead, worker):
            released = await queue.release(worker)
            log.info("%d items of a worker that is gone are waiting again", released)


async def expire(queue: Queue) -> None:
    """Ends the jobs whose time is up."""
    await lifecycle.expire(queue)


async def delete_old(queue: Queue, days: float, others: Sequence[Callable[[float], Awaitable[object]]]) -> None:
    """Deletes jobs that were over ``days`` ago; ``others`` delete what is older than that."""
    before = queue.clock() - days * DAY
    while ids := await lifecycle.ended_before(queue, before, _CHUNK):
        for job_id in ids:
            await lifecycle.delete_job(queue, job_id)
    for delete in others:
        await delete(before)
