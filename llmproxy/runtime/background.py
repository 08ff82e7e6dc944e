"""Work beside the requests: a task that runs now and then, the pause after a failure, and what is logged of it."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, Self

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Pauses that double with each failure: bounded exponential backoff, with full jitter on the upper half.

    ``first`` and ``longest`` are in seconds.
    """

    first: float = 0.5
    longest: float = 60.0

    def seconds(self, failures: int) -> float:
        """The pause after so many failures in a row."""
        # the exponent is bounded before it is used: 2.0**1100 is no number
        pause = min(self.longest, self.first * 2.0 ** min(max(failures, 1) - 1, 30))
        return pause * (0.5 + random.random() / 2)


class LogOnce:
    """Logs the first of several failures in a row, and the success that ends them."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self.failing = False

    def failed(
        self, message: str, *args: object, error: BaseException | None = None, level: int = logging.WARNING
    ) -> None:
        """Notes a failure. With ``error`` its traceback is logged too, as an error."""
        if not self.failing:
            self._log.log(level if error is None else logging.ERROR, message, *args, exc_info=error)
        self.failing = True

    def worked(self, message: str = "", *args: object, level: int = logging.WARNING) -> None:
        """Notes a success."""
        if self.failing and message:
            self._log.log(level, message, *args)
        self.failing = False


class FailureObserver(Protocol):
    """Hears how each round of a ``Periodic`` ends."""

    def failed(self, error: Exception) -> object: ...

    def succeeded(self) -> object: ...


class FailureLogger:
    """Logs a failure with its traceback, once until a round succeeds."""

    def __init__(self, log: logging.Logger, message: str) -> None:
        self._once = LogOnce(log)
        self._message = message

    def failed(self, error: Exception) -> None:
        self._once.failed("%s", self._message, error=error)

    def succeeded(self) -> None:
        self._once.worked()


class Periodic:
    """Runs ``work`` every ``seconds`` in a task of its own, which ends with ``close``.

    A round that fails costs nothing but itself. ``observer`` hears how each round ended; by default failures are
    logged. After a failure the next round is not woken before its time: that is after ``seconds``, or, with ``retry``,
    after the pause that it gives. The first round begins at once, or after ``seconds`` if not ``at_once``.
    """

    def __init__(
        self,
        name: str,
        seconds: float,
        work: Callable[[], Awaitable[object]],
        *,
        observer: FailureObserver | None = None,
        retry: Backoff | None = None,
        at_once: bool = True,
    ) -> None:
        self._name = name
        self._seconds = seconds
        self._work = work
        self._observer = observer or FailureLogger(logger, f"{name} failed; silent until it works again")
        self._retry = retry
        self._at_once = at_once
        self._failures = 0
        self._woken = False
        self._waiting: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def running(self) -> bool:
        """Whether it was opened and not yet closed."""
        return self._task is not None

    def open(self) -> None:
        """Starts the task on the running loop."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def close(self, limit: float | None = None) -> None:
        """Cancels the task, in the middle of a round if need be, and waits for its end for ``limit`` seconds at most.

        Safe to call twice.
        """
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task}, timeout=limit)

    def wake(self) -> None:
        """Has the next round begin now; after a failure not before its time."""
        self._woken = True
        if self._failures == 0:
            self._end_pause()

    async def once(self) -> None:
        """Runs one round now, in the caller's task."""
        try:
            await self._work()
        except Exception as error:  # noqa: BLE001 - whatever it was, it must not end the rounds that follow
            self._failures += 1
            self._observer.failed(error)
        else:
            self._failures = 0
            self._observer.succeeded()

    async def _run(self) -> None:
        if not self._at_once:
            await self._pause()
        while True:
            self._woken = False
            await self.once()
            await self._pause()

    async def _pause(self) -> None:
        if self._woken and self._failures == 0:
            # yields all the same: work that does not wait must not hold up everybody else
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        seconds = self._retry.seconds(self._failures) if self._retry and self._failures else self._seconds
        self._waiting = loop.create_future()
        timer = loop.call_later(seconds, self._end_pause)
        try:
            await self._waiting
        finally:
            timer.cancel()

    def _end_pause(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
