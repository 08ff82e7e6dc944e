"""What the scripted upstream remembers, in a form that a test's thread can wait for."""

import asyncio
import hashlib
import json
import threading
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.timeouts import WAIT_SECONDS


class Signal:
    """Something that happens once, in the upstream's thread, and can be awaited in another, for a limited time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    @property
    def happened(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float = WAIT_SECONDS) -> None:
        """Raises ``TimeoutError`` if it does not happen in time."""
        if not self._event.wait(seconds):
            raise TimeoutError(f"{self.name} did not happen within {seconds} s")

    async def reached(self, seconds: float = WAIT_SECONDS) -> None:
        """``wait`` for coroutines."""
        await asyncio.to_thread(self.wait, seconds)


class Gate:
    """A place in an answer where the upstream waits until the test opens it."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.arrived = Signal(f"an answer at gate {name}")
        self._loop = loop
        self._open = asyncio.Event()

    def open(self) -> None:
        self._loop.call_soon_threadsafe(self._open.set)

    async def pass_through(self) -> None:
        """Called by the upstream's answer."""
        self.arrived.set()
        await self._open.wait()


@dataclass(slots=True)
class Visit:
    """One request that reached the upstream. ``body`` holds at most ``KEPT`` bytes of it, ``size`` counts all."""

    number: int
    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    connection: int
    body: bytes = b""
    size: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    #: the client closed its connection before the answer was complete
    left: Signal = field(default_factory=lambda: Signal("the client leaving"))
    answered: Signal = field(default_factory=lambda: Signal("the end of an answer"))

    KEPT: ClassVar[int] = 1024 * 1024

    def take(self, data: bytes) -> None:
        """Adds a piece of the request's body."""
        self.size += len(data)
        self.digest.update(data)
        self.body += data[: max(0, self.KEPT - len(self.body))]

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((v.decode("latin-1") for n, v in self.headers if n.lower() == name.lower().encode()), None)

    @property
    def json(self) -> dict[str, Any]:
        document = json.loads(self.body)
        assert isinstance(document, dict)
        return document


class Journal:
    """Every visit since the start, in order."""

    def __init__(self) -> None:
        self._visits: list[Visit] = []
        self._changed = threading.Condition()

    def note(self, visit: Visit) -> None:
        """Called when a request has arrived whole."""
        with self._changed:
            self._visits.append(visit)
            self._changed.notify_all()

    def visits(self, marker: str = "") -> list[Visit]:
        """The visits whose body or target contains ``marker``."""
        sought = marker.encode()
        with self._changed:
            return [visit for visit in self._visits if sought in visit.body or sought in visit.target]

    def repeats(self, visit: Visit) -> int:
        """How many visits had the very body of this one, itself included."""
        with self._changed:
            return sum(each.digest.digest() == visit.digest.digest() for each in self._visits)

    def wait(self, marker: str, count: int = 1, seconds: float = WAIT_SECONDS) -> Visit:
        """The ``count``-th visit with the marker, once it is there. Raises ``TimeoutError``."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.visits(marker)) >= count, seconds):
                raise TimeoutError(f"{len(self.visits(marker))} of {count} requests came within {seconds} s")
            return self.visits(marker)[count - 1]

    async def reached(self, marker: str, count: int = 1, seconds: float = WAIT_SECONDS) -> Visit:
        """``wait`` for coroutines."""
        return await asyncio.to_thread(self.wait, marker, count, seconds)
