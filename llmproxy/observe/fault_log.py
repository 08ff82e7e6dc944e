"""The last fault of each part, so that its state can be told without trying it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

#: how long a fault stands for the state of its part
RECENT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class LoggedFault:
    """``kind`` is a word; ``at`` Unix seconds."""

    kind: str
    at: float


class FaultLog:
    """``clock`` gives Unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._last: dict[str, LoggedFault] = {}

    def note(self, part: str, kind: str) -> None:
        """``part`` and ``kind`` are words of closed lists."""
        self._last[part] = LoggedFault(str(kind), self._clock())

    def last(self, part: str) -> LoggedFault | None:
        return self._last.get(part)

    def failing(self, part: str) -> bool:
        """Whether it failed within the last minute."""
        fault = self._last.get(part)
        return fault is not None and self._clock() - fault.at < RECENT_SECONDS
