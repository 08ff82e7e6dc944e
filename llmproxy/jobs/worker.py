"""The workers of one process: they claim items, have them done, and make the results count.

How many calls run at once is decided here too: interactive requests go first.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from llmproxy.config.settings import Settings
from llmproxy.jobs.handler import CancelToken, Handlers
from llmproxy.jobs.model import BATCH_STEPS, Claimed, ItemResult, Lane, Reschedule
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.result_writer import OnAttempt, ResultWriter, internal_failure, passes
from llmproxy.jobs.retry import BACKOFF, pause_after
from llmproxy.runtime.background import LogOnce
from llmproxy.runtime.process_id import process_id
from llmproxy.upstream.upstreams import Upstreams
from llmproxy.wire.errors import ProxyError

#: an interactive caller asks again soon: a slot is kept free for so long
_RECENT_SECONDS = 10.0


class Capacity(Protocol):
    """How many items may be in work at once."""

    @property
    def paused(self) -> bool: ...

    def allowed(self, running: int) -> int:
        """How many items may be in work, of which ``running`` are."""
        ...


class FixedLimit:
    """A ``Capacity`` that does not change."""

    paused = False

    def __init__(self, most: int) -> None:
        self._most = most

    def allowed(self, running: int) -> int:
        return self._most


class InteractiveFirst:
    """The ``Capacity`` for calls. It reads the upstreams' state each time. ``clock`` is monotonic, in seconds."""

    def __init__(self, settings: Settings, upstreams: Upstreams, clock: Callable[[], float] = monotonic) -> None:
        self._workers = settings.task_queue_workers
        self._beside = settings.job_beside_interactive
        self._upstreams = upstreams
        self._clock = clock
        self._seen = -_RECENT_SECONDS

    @property
    def paused(self) -> bool:
        """Whether no model server can be reached: calls wait, and lose no attempts."""
        return not self._upstreams.ready()[0]

    def allowed(self, running: int) -> int:
        """How many calls may be in work, of which ``running`` are.

        While interactive requests are upstream, or were a moment ago, a slot of the model servers stays free for the
        next one; one call may always run, so that jobs never stand still.
        """
        interactive = max(0, self._upstreams.in_flight - running)
        if interactive:
            self._seen = self._clock()
        if self._clock() - self._seen >= _RECENT_SECONDS:
            return self._workers
        slots = self._upstreams.slots
        beside = self._beside or (slots - max(1, interactive) if slots is not None else 1)
        return min(self._workers, max(1, beside))


log = logging.getLogger(__name__)

#: how long an idle worker waits before it looks whether another process left something to do
_POLL_SECONDS = 0.5
#: the same while calls are held back for interactive requests
_HELD_SECONDS = 0.05
#: items claimed ahead: so many as were done in this time
_AHEAD_SECONDS = 0.5
_MOST_AHEAD = 256
#: steps of batches in work beside the calls
_STEPS_AT_ONCE = 2
#: how long a call may go on that the shutdown finds in work, and how long its end may take when it is cancelled
_LAST_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Run:
    """One claim of an item in work. While it is on its way out, the same item may be here once more: claimed again."""

    item: Claimed
    cancel_token: CancelToken
    task: asyncio.Task[None] | None = None


class Workers:
    """The workers of one lane. Owns one task that claims, and one for each item in work.

    ``capacity`` is for the items of the lane, but for the steps of batches, which have a little room of their own. What
    is claimed ahead waits here under its lease, so that an upstream that answers at once does not wait for the
    database.
    """

    def __init__(
        self,
        queue: Queue,
        handlers: Handlers,
        lane: Lane,
        capacity: Capacity,
        settings: Settings,
        on_attempt: OnAttempt,
    ) -> None:
        self.name = process_id()
        self._queue = queue
        self._handlers = handlers
        self._lane = lane
        self._capacity = capacity
        self._lease = settings.job_lease_seconds
        self._most_attempts = settings.job_max_attempts
        self._ready: deque[Claimed] = deque()
        self._runs: set[_Run] = set()
        #: how many of the runs are steps of batches
        self._steps = 0
        self._on_attempt = on_attempt
        self._results = ResultWriter(queue, self.name, on_attempt, self._wake)
        self._pace = _Pace()
        #: set when the feeder shall look again for something to claim
        self._woken = asyncio.Event()
        self._claimer: asyncio.Task[None] | None = None
        #: the lane in which the last look found nothing more to claim
        self._exhausted: Lane | None = None

    def open(self) -> None:
        self._queue.notifications.on_job_ended(self._drop_job)
        self._queue.notifications.on_work(self._there_is_work)
        self._results.open()
        self._claimer = asyncio.create_task(self._claim_loop(), name="job workers")

    async def close(self) -> None:
        """Gives every lease back within seconds. Safe to call twice."""
        if self._claimer is None:
            return
        self._claimer.cancel()
        await asyncio.wait({self._claimer})
        self._claimer = None
        self._ready.clear()
        tasks = {run.task for run in self._runs if run.task is not None}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_LAST_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.wait(tasks, timeout=_LAST_SECONDS)
        await self._results.close()
        with suppress(ProxyError):
            await self._queue.release(self.name)

    def held(self) -> dict[int, int]:
        """The leases that this process knows of: item -> number of the claim."""
        leases = {item.id: item.claims for item in self._ready}
        leases |= {run.item.id: run.item.claims for run in self._runs if not run.cancel_token.disconnected}
        # a result that still waits is older than a claim of the same item
        return self._results.held() | leases

    def drop(self, item_ids: set[int]) -> None:
        """Drops items whose leases this process has lost: others have them, or they are over."""
        self._ready = deque(item for item in self._ready if item.id not in item_ids)
        for run in self._runs:
            if run.item.id in item_ids:
                run.cancel_token.leave()

    def _drop_job(self, job_id: str) -> None:
        self.drop({item.id for item in self._ready if item.job.id == job_id})
        self.drop({run.item.id for run in self._runs if run.item.job.id == job_id})

    def _wake(self) -> None:
        self._woken.set()

    def _there_is_work(self, lane: Lane) -> None:
        if lane in (Lane.ALL, self._lane) or self._lane is Lane.ALL:
            # known, so that nobody needs to look before claiming
            self._exhausted = None
            self._wake()

    async def _claim_loop(self) -> None:
        failures = 0
        once = LogOnce(log)
        while True:
            self._woken.clear()
            self._start()
            try:
                claimed = await self._claim()
            except ProxyError as error:
                failures += 1
                # the database warns by itself
                once.failed("jobs wait: %s", error.message, level=logging.DEBUG)
                await asyncio.sleep(BACKOFF.seconds(failures))
                continue
            once.worked("jobs go on", level=logging.DEBUG)
            failures = 0
            if not claimed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_HELD_SECONDS if self._ready else _POLL_SECONDS):
                        await self._woken.wait()

    async def _claim(self) -> bool:
        """Whether anything was claimed."""
        lane, ahead = self._lane, self._pace.ahead()
        number = self._free() + ahead - len(self._ready)
        if lane is Lane.WORK and (self._capacity.paused or (number <= 0 and not self._ready)):
            # every call there may be is in work, or none may be: the steps of batches go on
            lane, number = Lane.STEPS, _STEPS_AT_ONCE - self._steps
        if number <= 0 or not self._is_low(ahead) or self._results.full:
            return False
        if self._exhausted is lane and not await self._queue.waiting(lane):
            return False
        claimed = await self._queue.claim(self.name, number, self._lease, lane)
        self._exhausted = lane if len(claimed) < number else None
        self._ready.extend(claimed)
        return bool(claimed)

    def _is_low(self, ahead: int) -> bool:
        """Whether half of what was claimed ahead is worked off. Before that nothing more is claimed: a claim costs more
        than its items."""
        return len(self._ready) <= ahead // 2

    def _free(self) -> int:
        """How many more items other than the steps of batches may run."""
        running = len(self._runs) - self._steps
        return self._capacity.allowed(running) - running

    def _start(self) -> None:
        """Begins as many of the claimed items as may run now."""
        if not self._ready:
            return
        room = self._free()
        while self._ready:
            is_step = self._ready[0].step in BATCH_STEPS
            if (_STEPS_AT_ONCE - self._steps if is_step else room) <= 0:
                return
            run = _Run(self._ready.popleft(), CancelToken())
            self._runs.add(run)
            self._steps += is_step
            room -= not is_step
            run.task = asyncio.create_task(self._run(run))

    async def _run(self, run: _Run) -> None:
        item = run.item
        try:
            done = await self._handle(run)
            if run.cancel_token.disconnected:
                # cut off: whatever came of it, the lease is gone
                return
            if isinstance(done, Reschedule):
                await self._reschedule(run, done)
            else:
                self._results.add(item, done)
                self._pace.done()
        finally:
            self._runs.discard(run)
            self._steps -= item.step in BATCH_STEPS
            if self._claimer is not None:
                self._start()
                if self._is_low(self._pace.ahead()):
                    self._wake()

    async def _reschedule(self, run: _Run, reschedule: Reschedule) -> None:
        """Gives an item back. It tries for as long as it takes: else the item would wait for the end of its lease, and
        the attempt would not be counted."""
        item, failures, once = run.item, 0, LogOnce(log)
        while not run.cancel_token.disconnected:
            try:
                await self._queue.reschedule(self.name, item, reschedule)
            except ProxyError as error:
                failures += 1
                once.failed("an item could not be put off: %s", error.message)
                if not passes(error):
                    return
                await asyncio.sleep(BACKOFF.seconds(failures))
                continue
            self._on_attempt(item.job.kind, item.step, "again" if reschedule.counts else "put-off")
            self._exhausted = None
            return

    async def _handle(self, run: _Run) -> ItemResult | Reschedule:
        item = run.item
        try:
            return await self._handlers[item.job.kind, item.step](item, run.cancel_token)
        except ProxyError as error:
            return Reschedule(pause_after(item.claims, error), counts=False)
        except Exception:  # a defect of ours must end the item with a reason: otherwise it would run for ever
            log.exception("an item of job %s crashed", item.job.id)
            if item.attempts + 1 < self._most_attempts:
                return Reschedule(BACKOFF.seconds(item.attempts + 1))
            return internal_failure("The proxy failed while it worked on this item.")


class _Pace:
    """The rate at which items are done."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=_MOST_AHEAD)

    def done(self) -> None:
        self._times.append(self._clock())

    def ahead(self) -> int:
        """How many to claim beyond what can be started now."""
        since = self._clock() - _AHEAD_SECONDS
        while self._times and self._times[0] < since:
            self._times.popleft()
        return len(self._times)
