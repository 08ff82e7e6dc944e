"""Work that is done every so often, by a task with an owner and an end."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self

from llmproxy.database.breaker import CircuitBreaker, OnFault


class PeriodicLoop:
    """Does ``work`` every ``seconds`` while it is entered. A fault is counted and costs some rounds, no more: it is
    tried again after ``longest_rest`` seconds at the latest."""

    def __init__(
        self,
        name: str,
        seconds: float,
        work: Callable[[], Awaitable[object]],
        on_fault: OnFault,
        longest_rest: float = math.inf,
    ):
        self._name = name
        self._longest_rest = longest_rest
        self._seconds = seconds
        self._work = work
        self._health = CircuitBreaker("sql", name, on_fault, time.monotonic)
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"cache {self._name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def wake(self) -> None:
        """The next round comes now; not before its time while the database fails."""
        self._woken.set()

    async def once(self) -> None:
        """One round, now."""
        try:
            await self._work()
        except Exception as error:  # noqa: BLE001 - the failure contract: a fault of the database is counted, not raised
            self._health.failed(error)
        else:
            self._health.worked()

    async def _run(self) -> None:
        while True:
            await self.once()
            rest = min(self._health.remaining, self._longest_rest)
            await asyncio.sleep(rest)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._seconds - rest)):
                    await self._woken.wait()
            self._woken.clear()
