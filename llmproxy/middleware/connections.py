"""How long and how much a connection may take, and which ones are closed where the process has no room for more."""

import heapq
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol as Shape
from typing import Self

from llmproxy.config.settings import Settings

#: no more descriptors than this are asked of the system; each is a connection
_MOST_DESCRIPTORS = 65_536
#: descriptors that new connections leave to calls upstream, to the database and to files: at least, and as a share
_LEAST_RESERVE, _RESERVE_SHARE = 32, 8
#: of all connections, this share is closed at once where there is no room
_EVICTED_SHARE = 16


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds for one connection; seconds and bytes. ``descriptor`` is the first one that says that room is scarce."""

    header_bytes: int
    header_seconds: float
    body_seconds: float
    write_seconds: float
    keep_alive_seconds: float
    descriptor: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if most == resource.RLIM_INFINITY:
            most = _MOST_DESCRIPTORS
        return cls(
            settings.max_header_bytes,
            settings.request_header_timeout,
            settings.request_body_timeout,
            settings.response_write_timeout,
            settings.keep_alive_timeout,
            most - max(_LEAST_RESERVE, most // _RESERVE_SHARE),
        )


class Connection(Shape):
    """What is asked of a connection here."""

    #: since when (``loop.time()``) it has been in its present state
    since: float

    @property
    def idle(self) -> bool:
        """Whether no request is being received or answered."""

    @property
    def expendable(self) -> bool:
        """Whether no whole request is lost with it."""

    @property
    def stalled(self) -> bool:
        """Whether its client has stopped in the middle, for longer than a network takes."""

    @property
    def closing(self) -> bool: ...

    def close(self) -> None: ...

    def check(self, now: float) -> None:
        """Ends what has outlived its limits."""


def raise_descriptor_limit() -> None:
    """Takes what the system's administrator allows, as servers in Go do: the usual soft limit is that of a shell."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def make_room(connections: Iterable[Connection], new: Connection) -> None:
    """Closes those that have been idle, or slow to send their head, for longest; where there are none, those whose
    clients stopped in the middle of a body or of an answer; else the new one: descriptors are needed for calls
    upstream too."""
    others = [each for each in connections if each is not new and not each.closing]
    candidates = [each for each in others if each.idle or each.expendable] or [each for each in others if each.stalled]
    for connection in heapq.nsmallest(1 + len(others) // _EVICTED_SHARE, candidates, key=lambda each: each.since):
        connection.close()
    if not candidates:
        new.close()


def sweep(connections: Iterable[Connection], now: float) -> None:
    """Checks each. Called every half second: a timer for each connection would cost each request two."""
    for connection in list(connections):
        connection.check(now)
