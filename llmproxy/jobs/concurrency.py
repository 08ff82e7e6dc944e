"""How many calls of jobs may run now: interactive requests go first, and nobody is asked who is not there."""

from collections.abc import Callable
from time import monotonic
from typing import Protocol

from llmproxy.config.settings import Settings
from llmproxy.upstream.upstreams import Upstreams

#: whoever chats asks again soon: a slot is kept free for so long
_RECENT_SECONDS = 10.0


class Capacity(Protocol):
    """How much may be in work at once."""

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
    """The ``Capacity`` for calls. Reads the upstreams' state at each question. ``clock`` is monotonic, in seconds."""

    def __init__(self, settings: Settings, upstreams: Upstreams, clock: Callable[[], float] = monotonic) -> None:
        self._workers = settings.task_queue_workers
        self._beside = settings.job_beside_interactive
        self._upstreams = upstreams
        self._clock = clock
        self._seen = -_RECENT_SECONDS

    @property
    def paused(self) -> bool:
        """Whether no model server is there: calls wait, and lose no attempts."""
        return not self._upstreams.ready()[0]

    def allowed(self, running: int) -> int:
        """How many calls may be in work, of which ``running`` are.

        While interactive requests are upstream, or were a moment ago, so many that a slot of the model servers stays
        free for the next one; at least one, so that jobs never stand still.
        """
        interactive = max(0, self._upstreams.in_flight - running)
        if interactive:
            self._seen = self._clock()
        if self._clock() - self._seen >= _RECENT_SECONDS:
            return self._workers
        slots = self._upstreams.slots
        beside = self._beside or (slots - max(1, interactive) if slots is not None else 1)
        return min(self._workers, max(1, beside))
