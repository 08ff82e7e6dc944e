"""Results on their way into the database: those that come while a transaction is under way share the next one."""

import asyncio
import logging
from collections.abc import Callable

from llmproxy.database.faults import fault_of
from llmproxy.jobs.model import Claimed, Failure, ItemResult, ItemStatus
from llmproxy.jobs.queue import Queue
from llmproxy.jobs.store import DEFECTS
from llmproxy.runtime.background import Backoff, LogOnce
from llmproxy.wire.errors import InternalError, ProxyError

log = logging.getLogger(__name__)

#: results in one transaction
_GROUP = 256
#: results, and bytes of them, that may wait before no more work is begun
_MOST = 512
_MOST_BYTES = 64 * 1024 * 1024
#: how long results are gathered for one transaction where there are many of them
_GATHER_SECONDS = 0.1
#: how long the last results may take at the end
_CLOSE_SECONDS = 3.0

_BACKOFF = Backoff(longest=10.0)

_UNKEPT = "The proxy could not keep the answer to this item."

#: told of each try at an item: the job's kind, the step, what came of it
Tried = Callable[[str, str, str], None]


class ResultWriter:
    """While the database is away results wait, and nothing new is begun once there are many of them.

    A result that can never be written ends its item as failed: it must not keep the others from counting. ``freed`` is
    called when there is room again after ``full``.
    """

    def __init__(self, queue: Queue, worker: str, tried: Tried, freed: Callable[[], None]) -> None:
        self._queue = queue
        self._worker = worker
        self._tried = tried
        self._freed = freed
        self._waiting: list[tuple[Claimed, ItemResult]] = []
        self._writing: list[tuple[Claimed, ItemResult]] = []
        self._bytes = 0
        self._group = _GROUP
        self._wanted = asyncio.Event()
        self._closing = False
        self._log = LogOnce(log)
        self._task: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        return len(self._waiting) >= _MOST or self._bytes >= _MOST_BYTES

    def held(self) -> dict[int, int]:
        """The items whose results do not count yet: item -> number of the claim."""
        return {item.id: item.claims for item, _ in (*self._writing, *self._waiting)}

    def open(self) -> None:
        self._task = asyncio.create_task(self._run(), name="job results")

    def add(self, item: Claimed, result: ItemResult) -> None:
        self._waiting.append((item, result))
        self._bytes += len(result.body)
        self._wanted.set()

    async def close(self) -> None:
        """Writes what waits, for a few seconds at most. What is left is done again by whoever claims it next."""
        self._closing = True
        self._wanted.set()
        if self._task is not None:
            _, late = await asyncio.wait({self._task}, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()
                await asyncio.wait({task})
            self._task = None

    async def _run(self) -> None:
        many = False
        while not self._closing or self._waiting:
            await self._wanted.wait()
            self._wanted.clear()
            while self._waiting:
                if many and not self._closing:
                    # they come faster than transactions end: a transaction costs more than its results
                    await asyncio.sleep(_GATHER_SECONDS)
                was_full = self.full
                self._writing, self._waiting = self._waiting[: self._group], self._waiting[self._group :]
                many = len(self._writing) > 1
                if await self._write():
                    self._bytes -= sum(len(result.body) for _, result in self._writing)
                    self._group = min(2 * self._group, _GROUP)
                else:
                    self._refused()
                self._writing = []
                if was_full:
                    self._freed()
            if self._closing:
                return

    async def _write(self) -> bool:
        """One group, for as long as it takes. False if it would be refused however often it was tried."""
        failures = 0
        while True:
            try:
                kept = await self._queue.finish(self._worker, self._writing)
            except ProxyError as error:
                if not passes(error):
                    return False
                failures += 1
                self._log.failed("results wait: %s", error.message)
                await asyncio.sleep(_BACKOFF.seconds(failures))
                continue
            self._log.worked()
            for item, result in self._writing:
                self._tried(item.job.kind, item.step, result.status if item.id in kept else "lost")
            return True

    def _refused(self) -> None:
        """Smaller and smaller groups find the result that is refused, which is replaced by the word of that."""
        self._group = max(1, len(self._writing) // 2)
        if len(self._writing) > 1:
            self._waiting = self._writing + self._waiting
            return
        ((item, result),) = self._writing
        self._bytes -= len(result.body)
        log.error("a result of job %s cannot be kept", item.job.id)
        if result.error is None or result.error.message != _UNKEPT:
            self.add(item, crashed(_UNKEPT))


def crashed(message: str) -> ItemResult:
    """The result of an item that a defect of ours has ended."""
    error = InternalError(message)
    return ItemResult(
        ItemStatus.FAILED, error.http_status, error.body(), error=Failure(error.error_code or "", error.message)
    )


def passes(error: ProxyError) -> bool:
    """Whether what the database did not take may be taken later."""
    cause = error.__cause__
    return cause is None or (fault_of(cause).passes and not isinstance(cause, DEFECTS))
