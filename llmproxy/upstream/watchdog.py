"""The idle and the total limit of one reply, at the price of one timer."""

import asyncio
from collections.abc import Callable


class Watchdog:
    """Calls ``expire`` once if a wait lasts ``idle`` seconds, or at loop time ``ends``; None sets no such limit.

    The timer is not moved at every wait: when it goes off too early, it is set again for the rest. Time in
    which nobody waits (the reader is busy with its own, slower reader) counts for ``ends`` only.
    """

    def __init__(self, idle: float | None, ends: float | None, expire: Callable[[], None]) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._idle = idle
        self._ends = ends
        self._expire = expire
        self._since: float | None = None
        #: why it went off: "idle" or "total"; "" while it has not
        self.expired = ""
        self._timer = None if idle is None and ends is None else loop.call_at(self._due(loop.time()), self._check)

    def wait(self) -> None:
        """From now on somebody waits."""
        self._since = self._loop.time()

    def fed(self) -> None:
        """What was waited for is there."""
        self._since = None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        now = self._loop.time()
        if self._ends is not None and now >= self._ends:
            self.expired = "total"
        elif self._idle is not None and self._since is not None and now >= self._since + self._idle:
            self.expired = "idle"
        else:
            self._timer = self._loop.call_at(self._due(now), self._check)
            return
        self._expire()

    def _due(self, now: float) -> float:
        due = float("inf") if self._idle is None else (now if self._since is None else self._since) + self._idle
        return due if self._ends is None else min(due, self._ends)
