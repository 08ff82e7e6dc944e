"""How late the event loop wakes those who sleep: what every request waits for beside its own work."""

import asyncio
from collections import deque
from collections.abc import Callable

from llmproxy.observe.background import BackgroundTask

#: how long each sleep is, and how many of them are remembered: a minute
SLEEP_SECONDS, REMEMBERED = 0.5, 120


class Lag(BackgroundTask):
    """Sleeps, and tells ``on_lag`` how many seconds late it woke."""

    def __init__(self, on_lag: Callable[[float], None], seconds: float = SLEEP_SECONDS) -> None:
        super().__init__("event loop lag")
        self._on_lag = on_lag
        self._seconds = seconds
        self._lags: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def mean(self) -> float | None:
        """Seconds, over the last minute; None before the first sleep is over."""
        return sum(self._lags) / len(self._lags) if self._lags else None

    @property
    def highest(self) -> float | None:
        """Seconds, over the last minute; None before the first sleep is over."""
        return max(self._lags, default=None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._seconds
            await asyncio.sleep(self._seconds)
            lag = max(0.0, loop.time() - due)
            self._lags.append(lag)
            self._on_lag(lag)
