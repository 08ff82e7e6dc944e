"""One upstream answer while it arrives, for any number of readers at their own pace."""

import asyncio
from array import array
from collections.abc import Sequence
from typing import Generic, TypeVar

from llmproxy.wire.records import record

Outcome = TypeVar("Outcome")


@record
class Head:
    """The upstream's status line, as far as readers care. ``stream``: frames will follow, else one document. ``both``:
    whether the other form may be made of it, ``request``: whether the upstream was asked for a stream.

    An answer with another ``status`` than 200 is everyone's as it comes, with these headers.
    """

    stream: bool
    headers: tuple[tuple[bytes, bytes], ...] = ()
    both: bool = True
    request: bool = False
    status: int = 200


class Lagged(Exception):
    """This reader fell so far behind an answer too large to keep that what it needs next is gone."""


class BroadcastBuffer(Generic[Outcome]):
    """Frames as they arrive, kept from the first one on, so that a late reader gets the prefix at once.

    Up to ``limit`` bytes everything is kept. Beyond it the answer will not be stored, nobody may join any more
    (``overflowed``), and only a window of ``limit`` bytes behind the quickest reader is kept: the producer waits for
    that one, and a reader that falls out of the window is cut off (``Lagged``). So memory is bounded, and a slow
    reader slows nobody.
    """

    def __init__(self, limit: int) -> None:
        self.head: Head | None = None
        self.outcome: Outcome | None = None
        self.overflowed = False
        self.frames: list[bytes] = []
        #: milliseconds since ``began`` at which each frame arrived
        self.millis = array("I")
        #: asked for once: to find the running loop is a call of the system
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self._limit = limit
        self._kept = 0
        self._dropped = 0
        self._quickest = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._producer: asyncio.Future[None] | None = None

    @property
    def end(self) -> int:
        """Frames that have arrived so far."""
        return self._dropped + len(self.frames)

    @property
    def size(self) -> int:
        """Bytes of the frames that are kept."""
        return self._kept

    def begin(self, head: Head) -> None:
        self.head = head
        self.wake()

    def add(self, frames: Sequence[bytes], *, notify: bool = True) -> None:
        """``notify`` False leaves it to what comes next to wake the readers."""
        now = int((self.loop.time() - self.began) * 1000)
        for frame in frames:
            self._kept += len(frame)
            self.frames.append(frame)
            self.millis.append(now)
        if self._kept > self._limit:
            self.overflowed = True
            self._trim()
        if notify:
            self.wake()

    async def wait_capacity(self) -> None:
        """Returns once the quickest reader has taken what an overflowed answer holds."""
        while self.overflowed and self._quickest < self.end:
            self._producer = self.loop.create_future()
            try:
                await self._producer
            finally:
                self._producer = None

    def finish(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.wake()

    def wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def reached(self, position: int) -> None:
        if position > self._quickest:
            self._quickest = position
            if self._producer is not None and not self._producer.done():
                self._producer.set_result(None)

    def _trim(self) -> None:
        """Drops from the front what the window has no room for, but nothing the quickest reader still needs."""
        index = 0
        while self._kept > self._limit and self._dropped + index < self._quickest:
            self._kept -= len(self.frames[index])
            index += 1
        del self.frames[:index]
        del self.millis[:index]
        self._dropped += index


class BroadcastReader(Generic[Outcome]):
    """One reader's place in a capture."""

    def __init__(self, buffer: BroadcastBuffer[Outcome]) -> None:
        self.buffer = buffer
        self._position = 0
        self._future: asyncio.Future[None] | None = None
        self._woken = False
        #: until when a wait may last, on the loop's clock; the timer is not moved at every wait
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._expired = False

    def take(self, most: int | None = None) -> list[bytes]:
        """What arrived since the last call, maybe nothing: all of it, or some ``most`` bytes. Raises ``Lagged``."""
        buffer = self.buffer
        start = self._position - buffer.end + len(buffer.frames)
        if start < 0:
            raise Lagged
        frames = buffer.frames[start:] if most is None else _first(buffer.frames, start, most)
        self._position += len(frames)
        buffer.reached(self._position)
        return frames

    @property
    def behind(self) -> bool:
        """Whether ``take`` would give something."""
        return self._position < self.buffer.end

    def wake_up(self) -> None:
        """Ends this reader's wait, for a reason of the caller's own."""
        self._woken = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self, seconds: float | None = None) -> bool:
        """Until something happened to the capture or ``wake_up`` was called. False if ``seconds`` ran out first."""
        if self._woken:
            self._woken = False
            return True
        loop = self.buffer.loop
        future = self._future = loop.create_future()
        self.buffer._waiting.append(future)
        self._expired = False
        self._deadline = float("inf") if seconds is None else loop.time() + seconds
        if seconds is not None and (self._timer is None or self._timer.when() > self._deadline):
            self._set_timer()
        try:
            await future
        finally:
            self._future = None
        self._woken = False
        return not self._expired

    def close(self) -> None:
        """Nobody reads any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        self.close()
        self._timer = self.buffer.loop.call_at(self._deadline, self._check)

    def _check(self) -> None:
        self._timer = None
        if self._future is None or self._future.done() or self._deadline == float("inf"):
            return
        if self.buffer.loop.time() < self._deadline:
            # a later wait than the one for which it was set
            self._set_timer()
            return
        self._expired = True
        self._future.set_result(None)


def _first(frames: list[bytes], start: int, most: int) -> list[bytes]:
    """At least one, where there is one."""
    if start + 1 >= len(frames):
        return frames[start:]
    end, size = start, 0
    while end < len(frames) and size < most:
        size += len(frames[end])
        end += 1
    return frames[start:end]
