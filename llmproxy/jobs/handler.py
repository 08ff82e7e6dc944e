"""What does the work of an item, and how it is told to stop."""

from collections.abc import Awaitable, Callable, Mapping

from llmproxy.jobs.model import Claimed, ItemResult, JobKind, Reschedule, Step


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


#: Does an item's work while it holds the lease. Ends soon after ``CancelToken.leave``, with whatever result: it will
#: not count. Raises ``ProxyError`` for what may pass: the item is put off.
Handler = Callable[[Claimed, CancelToken], Awaitable[ItemResult | Reschedule]]

Handlers = Mapping[tuple[JobKind, Step], Handler]
