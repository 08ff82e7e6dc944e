"""Single flight: identical requests share one piece of work. The first leads, the others follow."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from llmproxy.wire.records import record

Work = TypeVar("Work")


class Flight(Generic[Work]):
    """One piece of work and how many listen to it. It belongs to nobody.

    ``work`` is what listeners read from. The task that does the work survives its first caller for as long as anybody
    listens; when the last listener leaves, it goes on for ``grace`` seconds, so that a client's retry joins it instead
    of starting the work again, and is then cancelled, unless it is to finish by itself.
    """

    def __init__(self, work: Work, grace: float | None) -> None:
        self.work = work
        self.task: asyncio.Task[None] | None = None
        #: set once it was given up: nobody may join any more
        self.abandoned = False
        self._grace = grace
        self._listeners = 0
        self._timer: asyncio.TimerHandle | None = None

    def listen(self) -> None:
        self._listeners += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def leave(self) -> None:
        self._listeners -= 1
        if self._listeners == 0 and self._grace is not None and self.task is not None and not self.task.done():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._grace, self._abandon)

    def _abandon(self) -> None:
        if self._listeners == 0 and self.task is not None:
            self.abandoned = True
            self.task.cancel()


@record
class Subscription(Generic[Work]):
    """A listener's place on a flight. ``led`` for the one whose request started it."""

    flight: Flight[Work]
    led: bool


class Flights(Generic[Work]):
    """The running flights by key. Owns their tasks."""

    def __init__(self, grace: float | None, current: Callable[[], bool] = lambda: True) -> None:
        """``grace`` in seconds; None lets abandoned work finish. While it is not known that what is in the air is
        ``current``, nobody joins it."""
        self._grace = grace
        self._current = current
        self._by_key: dict[bytes, Flight[Work]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def find(self, key: bytes) -> Flight[Work] | None:
        flight = self._by_key.get(key)
        return None if flight is None or flight.abandoned or not self._current() else flight

    def launch(
        self, work: Work, run: Callable[[Work], Coroutine[Any, Any, None]], key: bytes | None = None
    ) -> Flight[Work]:
        """Starts the work, listened to once. Without a key nobody can join it."""
        flight = Flight(work, self._grace)
        flight.listen()
        flight.task = asyncio.get_running_loop().create_task(run(work))
        self._tasks.add(flight.task)
        if key is not None:
            self._by_key[key] = flight

        def landed(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if key is not None and self._by_key.get(key) is flight:
                del self._by_key[key]

        flight.task.add_done_callback(landed)
        return flight

    def part(self) -> None:
        """Has nobody join the running flights any more; they go on for those who listen already."""
        self._by_key.clear()

    def release(self, key: bytes | None, work: Work) -> None:
        """Has nobody join this flight any more: later requests find the stored answer, or lead."""
        if key is not None and (flight := self._by_key.get(key)) is not None and flight.work is work:
            del self._by_key[key]

    async def close(self, seconds: float) -> None:
        """Waits ``seconds`` for the flights to end, then cancels them."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
