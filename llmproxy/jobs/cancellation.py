"""A worker as one who waits for an answer: it has no socket, and leaves when it is told to."""

from collections.abc import Callable


class CancelToken:
    """A ``proxy.listener.Listener``."""

    def __init__(self) -> None:
        self.disconnected = False
        self._wakes: list[Callable[[], None]] = []

    def watch(self, wake: Callable[[], None]) -> None:
        self._wakes.append(wake)
        if self.disconnected:
            wake()

    def leave(self) -> None:
        """The answer is not wanted any more: its call ends upstream, unless others listen to it."""
        self.disconnected = True
        for wake in self._wakes:
            wake()
