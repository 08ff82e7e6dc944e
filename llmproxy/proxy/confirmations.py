"""Answers that have been delivered and are not kept yet: first the model server says which model made them."""

import asyncio
import logging
from asyncio import CancelledError
from collections.abc import Collection, Coroutine
from typing import Any

log = logging.getLogger(__name__)

#: answers that wait hold no more than this together; beyond it they are not kept
_MOST_BYTES = 64 * 1024 * 1024


class Confirmations:
    """The questions under way, by the keys that their answers may be found under. The owner of their tasks.

    Interleaving: an answer is announced here before its listeners are told the end, in one step. So whoever has seen
    the end and asks the same again finds it here or in the cache: ``wait`` returns once it is decided, and what was
    kept is in the memory tier by then. Who has waited in vain goes upstream.
    """

    def __init__(self, wait_seconds: float) -> None:
        """``wait_seconds``: how long a caller who may find such an answer waits for it."""
        self._wait_seconds = wait_seconds
        self._waiting: dict[bytes, asyncio.Task[None]] = {}
        self._tasks: dict[asyncio.Task[None], int] = {}

    @property
    def full(self) -> bool:
        """Whether too much waits already."""
        return sum(self._tasks.values()) > _MOST_BYTES

    @property
    def pending(self) -> bool:
        """Whether there is anything to wait for."""
        return bool(self._waiting)

    def begin(self, keys: Collection[bytes], size: int, decide: Coroutine[Any, Any, None]) -> None:
        """Starts to decide. ``size`` is how many bytes wait for it."""
        task = asyncio.get_running_loop().create_task(self._run(decide), name="confirmation")
        self._tasks[task] = size
        for key in keys:
            self._waiting[key] = task

        def decided(task: asyncio.Task[None]) -> None:
            del self._tasks[task]
            for key in keys:
                if self._waiting.get(key) is task:
                    del self._waiting[key]

        task.add_done_callback(decided)

    async def wait(self, keys: Collection[bytes]) -> bool:
        """Until it is decided whether the answers under these keys are kept, but not for long. Whether it is."""
        if self._waiting and (tasks := {task for key in keys if (task := self._waiting.get(key)) is not None}):
            _, undecided = await asyncio.wait(tasks, timeout=self._wait_seconds)
            return not undecided
        return True

    async def close(self, seconds: float) -> None:
        """Lets them be decided for so many seconds; what is not decided then is not kept."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, decide: Coroutine[Any, Any, None]) -> None:
        try:
            await decide
        except CancelledError:
            raise
        except Exception:  # a defect of ours: everybody has the answer, only it is not kept
            log.exception("an answer could not be kept")
