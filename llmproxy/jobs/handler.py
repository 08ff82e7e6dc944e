"""The interface of handlers, which do the work of an item, and the token that cancels it."""

from collections.abc import Awaitable, Callable, Mapping

from llmproxy.jobs.model import Claimed, ItemResult, JobKind, Reschedule, Step


class CancelToken:
    """A ``proxy.listen.Client`` without a socket: it leaves when its work is cancelled."""

    def __init__(self) -> None:
        self.disconnected = False
        self._wakes: list[Callable[[], None]] = []

    def watch(self, wake: Callable[[], None]) -> None:
        self._wakes.append(wake)
        if self.disconnected:
            wake()

    def leave(self) -> None:
        """Cancels the work: its call ends upstream, unless others listen to it."""
        self.disconnected = True
        for wake in self._wakes:
            wake()


#: Does an item's work while it holds the lease. Ends soon after ``CancelToken.leave``, with whatever result: it will
#: not count. Raises ``ProxyError`` for what may pass: the item is put off.
Handler = Callable[[Claimed, CancelToken], Awaitable[ItemResult | Reschedule]]

Handlers = Mapping[tuple[JobKind, Step], Handler]
