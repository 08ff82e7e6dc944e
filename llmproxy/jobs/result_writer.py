"""Results on their way into the database: those that come while a transaction is under way share the next one."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from llmproxy.database.breaker import CircuitBreaker, ignore
from llmproxy.database.faults import DEFECTS, fault_of
from llmproxy.database.write_behind import UNBOUNDED, WriteBehind
from llmproxy.jobs.model import Claimed, Failure, ItemResult, ItemStatus
from llmproxy.jobs.queue import Queue
from llmproxy.runtime.background import Backoff
from llmproxy.wire.errors import InternalError, ProxyError

log = logging.getLogger(__name__)

#: results in one transaction
_GROUP = 256
#: results, and bytes of them, that may wait before no more work is begun
_MOST = 512
_MOST_BYTES = 64 * 1024 * 1024
#: how long results are gathered for one transaction if there are many of them
_GATHER_SECONDS = 0.1
#: how long the last results may take at the end
_CLOSE_SECONDS = 3.0

_BACKOFF = Backoff(longest=10.0)

_UNKEPT = "The proxy could not keep the answer to this item."

#: called with each attempt at an item: the job's kind, the step, the outcome
OnAttempt = Callable[[str, str, str], None]


class ResultWriter:
    """Writes results in groups. While the database cannot be used they wait, and nothing new is begun once there are
    many.

    A result that can never be written ends its item as failed: it must not keep the others from counting. ``freed`` is
    called when there is room again after ``full``.
    """

    def __init__(self, queue: Queue, worker: str, on_attempt: OnAttempt, freed: Callable[[], None]) -> None:
        self._queue = queue
        self._worker = worker
        self._on_attempt = on_attempt
        self._freed = freed
        self._was_full = False
        self._waiting: WriteBehind[tuple[Claimed, ItemResult]] = WriteBehind(
            "job results",
            self._write,
            CircuitBreaker("jobs", ignore, fails="results wait: %(error)s", backoff=_BACKOFF),
            replace(UNBOUNDED, group_items=_GROUP),
            size=lambda waiting: len(waiting[1].body),
            written=self._free,
            refused=lambda error: isinstance(error, ProxyError) and not passes(error),
            substitute=self._substitute,
            # they come faster than transactions end: a transaction costs more than its results
            pace=lambda count, _: _GATHER_SECONDS if count > 1 else 0.0,
            insist=True,
        )
        self.open = self._waiting.open

    @property
    def full(self) -> bool:
        return len(self._waiting) >= _MOST or self._waiting.bytes >= _MOST_BYTES

    def held(self) -> dict[int, int]:
        """The items whose results are not written yet: item -> number of the claim."""
        return {item.id: item.claims for item, _ in self._waiting}

    def add(self, item: Claimed, result: ItemResult) -> None:
        self._waiting.put((item, result))

    async def close(self) -> None:
        """Writes what waits, for a few seconds at most. What is left is done again by the next worker that claims
        it."""
        await self._waiting.close(_CLOSE_SECONDS)

    async def _write(self, group: Sequence[tuple[Claimed, ItemResult]]) -> None:
        counted = await self._queue.finish(self._worker, group)
        self._was_full = self.full
        for item, result in group:
            self._on_attempt(item.job.kind, item.step, result.status if item.id in counted else "lost")

    def _free(self, group: Sequence[tuple[Claimed, ItemResult]]) -> None:
        if self._was_full:
            self._freed()

    def _substitute(self, refused: tuple[Claimed, ItemResult]) -> tuple[Claimed, ItemResult] | None:
        item, result = refused
        log.error("a result of job %s cannot be kept", item.job.id)
        replaced = result.error is not None and result.error.message == _UNKEPT
        return None if replaced else (item, internal_failure(_UNKEPT))


def internal_failure(message: str) -> ItemResult:
    """The result of an item that a defect of the proxy has ended."""
    error = InternalError(message)
    return ItemResult(
        ItemStatus.FAILED, error.http_status, error.body(), error=Failure(error.error_code or "", error.message)
    )


def passes(error: ProxyError) -> bool:
    """Whether the database may take later what it did not take now."""
    cause = error.__cause__
    return cause is None or (fault_of(cause).passes and not isinstance(cause, DEFECTS))
