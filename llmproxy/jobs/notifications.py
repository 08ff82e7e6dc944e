"""Wakes the tasks of this process that wait for work, or for a job to change. Other processes poll."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress

from llmproxy.jobs.model import Lane

#: seconds of pause for each waiter: one looks at once, each of a hundred once per second, however much happens
_TURN_SECONDS = 0.01


class JobNotifications:
    """Wakes waiters. They read the database afterwards: a wake-up may be missed, or mean nothing."""

    def __init__(self) -> None:
        self._jobs: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._on_work: list[Callable[[Lane], None]] = []
        self._on_job_ended: list[Callable[[str], None]] = []
        #: how many wait for jobs
        self._waiting = 0
        self._closed = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether the server stops: streams of events end then."""
        return self._closed.is_set()

    def close(self) -> None:
        """Wakes every waiter for a job, for the last time."""
        self._closed.set()
        for job_id in list(self._jobs):
            self.job_changed(job_id)

    def on_work(self, client: Callable[[Lane], None]) -> None:
        """``client`` is called with the lane in which there may be something to claim."""
        self._on_work.append(client)

    def work(self, lane: Lane = Lane.ALL) -> None:
        """Reports that there may be something to claim in ``lane``."""
        for client in self._on_work:
            client(lane)

    def job_changed(self, job_id: str) -> None:
        """Wakes the waiters for a job whose state has changed."""
        for future in self._jobs.pop(job_id, ()):
            if not future.done():
                future.set_result(None)

    def on_job_ended(self, client: Callable[[str], None]) -> None:
        """``client`` is called with the id of each job that was ended while calls of it may be in flight."""
        self._on_job_ended.append(client)

    def job_ended(self, job_id: str) -> None:
        """Reports that a job was ended from outside."""
        for client in self._on_job_ended:
            client(job_id)

    async def wait_for_job(self, job_id: str, seconds: float) -> None:
        """Waits until the job changes, at most ``seconds``. A change before the call is not seen: read first, then
        wait.

        The more waiters there are, the longer each of them waits: their reads must not take the time of the work that
        they look at.
        """
        if self.closed:
            return
        self._waiting += 1
        try:
            turn = self._waiting * _TURN_SECONDS
            over = asyncio.get_running_loop().time() + turn
            await self._wait(job_id, max(seconds, turn))
            with suppress(TimeoutError):
                async with asyncio.timeout_at(over):
                    await self._closed.wait()
        finally:
            self._waiting -= 1

    async def _wait(self, job_id: str, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs[job_id].add(future)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await future
        finally:
            waiting = self._jobs.get(job_id)
            if waiting is not None:
                waiting.discard(future)
                if not waiting:
                    del self._jobs[job_id]
