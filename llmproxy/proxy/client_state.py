"""Whether the caller is still there."""

from collections.abc import Callable
from typing import Protocol


class ClientDisconnected(Exception):
    """The caller closed the connection before the answer was complete."""


class StreamAborted(Exception):
    """Half an answer is out and the rest will not come: only a broken connection tells."""


class Client(Protocol):
    """Someone who waits for an answer."""

    @property
    def disconnected(self) -> bool: ...

    def watch(self, wake: Callable[[], None]) -> None:
        """Calls ``wake`` once the caller is gone."""
        ...
