"""Write-behind: a bounded queue, and the task that writes what waits in it, in groups."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from sys import maxsize
from time import monotonic
from typing import Generic, TypeVar

from llmproxy.database.breaker import CircuitBreaker
from llmproxy.database.faults import fault_of

T = TypeVar("T")

#: seconds for a transaction to end that was cancelled
_CANCEL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class WriteLimits:
    """Bounds of what waits and of one transaction; ``linger`` is how many seconds the first of a group waits for
    others, unless somebody asks for what waits."""

    items: int = 10_000
    bytes: int = 64 * 1024 * 1024
    group_items: int = 500
    group_bytes: int = 8 * 1024 * 1024
    linger: float = 0.0


#: for items that are never lost for want of room: whoever makes them stops before
UNBOUNDED = WriteLimits(items=maxsize, bytes=maxsize)


class Loss(StrEnum):
    """Why an item is not written."""

    #: no room to wait
    FULL = "full"
    #: the database refuses it for what it holds
    REFUSED = "refused"
    #: it still waited at the end
    UNWRITTEN = "unwritten"


def is_refused(error: Exception) -> bool:
    """Whether the same work would fail again."""
    return not fault_of(error).passes


class WriteBehind(Generic[T]):
    """A queue that is written in groups by a task of its own.

    ``write`` writes one group in one transaction, all or nothing. If it raises, the group waits: as long as the
    ``breaker`` says if the fault may pass; no longer if the group is refused, which smaller and smaller groups narrow
    down to the item at fault. That one is replaced by what ``substitute`` makes of it, or lost. ``lost`` is told how
    many items are not written, and why; ``written`` is told of each group that is.

    An item with the ``key`` of one that waits takes its place, at the end of the queue. Items stay in the queue, where
    they are found, until they are written. ``size`` gives an item's bytes. ``pace`` gives the seconds of rest after a
    group of so many items whose transaction took so many seconds. At the end a fault ends the writing, or, with
    ``insist``, is waited out within the limit of ``close``.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[T]], Awaitable[object]],
        breaker: CircuitBreaker,
        limits: WriteLimits,
        *,
        size: Callable[[T], int] = lambda item: 0,
        key: Callable[[T], Hashable] | None = None,
        lost: Callable[[int, Loss], object] = lambda count, why: None,
        written: Callable[[Sequence[T]], object] = lambda group: None,
        refused: Callable[[Exception], bool] = is_refused,
        substitute: Callable[[T], T | None] = lambda item: None,
        pace: Callable[[int, float], float] = lambda count, seconds: 0.0,
        insist: bool = False,
    ) -> None:
        self.breaker = breaker
        self._name = name
        self._write = write
        self._limits = limits
        self._size = size
        self._key = key
        self._lost = lost
        self._written = written
        self._refused = refused
        self._substitute = substitute
        self._pace = pace
        self._insist = insist
        #: key -> number, bytes and item, in the order of their numbers
        self._queue: dict[Hashable, tuple[int, int, T]] = {}
        self._number = 0
        self._bytes = 0
        self._group_items = limits.group_items
        #: who waits until nothing up to this number waits to be written
        self._settling: list[tuple[int, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        #: somebody waits for what waits
        self._hurry = asyncio.Event()
        self._closing = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many wait."""
        return len(self._queue)

    def __iter__(self) -> Iterator[T]:
        """What waits, the oldest first; the queue may change meanwhile."""
        return iter([item for _, _, item in self._queue.values()])

    @property
    def bytes(self) -> int:
        """Bytes of what waits."""
        return self._bytes

    def open(self) -> None:
        """Starts to write. Items may be put before."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    def put(self, item: T) -> bool:
        """Has ``item`` written soon. False, and it is lost, if there is no room; what it replaced is gone then."""
        if self._key is not None:
            self.discard(self._key(item))
        size = self._size(item)
        if self._closing.is_set() or len(self._queue) >= self._limits.items or self._bytes + size > self._limits.bytes:
            self._lost(1, Loss.FULL)
            return False
        self._add(item, size)
        return True

    def put_many(self, count: int, items: Iterable[T]) -> None:
        """Puts ``count`` items; those that find no room are not even made."""
        made = iter(items)
        for left in range(count, 0, -1):
            full = len(self._queue) >= self._limits.items or self._bytes >= self._limits.bytes
            if full or self._closing.is_set():
                self._lost(left, Loss.FULL)
                return
            self.put(next(made))

    def replace(self, item: T) -> bool:
        """Has ``item`` written instead of the one with its key; False if that does not wait."""
        if self._key is None or self.discard(self._key(item)) is None:
            return False
        self._add(item, self._size(item))
        return True

    def find(self, key: Hashable) -> T | None:
        """The item with this key, if it waits."""
        waiting = self._queue.get(key)
        return None if waiting is None else waiting[2]

    def discard(self, key: Hashable) -> T | None:
        """Takes the item with this key out of the queue. One on its way is written all the same: see ``paused``."""
        waiting = self._queue.pop(key, None)
        if waiting is None:
            return None
        self._bytes -= waiting[1]
        if self._settling:
            self._settle()
        return waiting[2]

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Waits for the group on its way, if there is one, and keeps the next one back."""
        async with self._writing:
            yield

    async def settle(self, limit: float | None = None) -> bool:
        """Whether what waits now was written, or lost. Waits for it ``limit`` seconds, or for as long as it takes."""
        if not self._queue:
            return True
        self._hurry.set()
        last = self._number, asyncio.get_running_loop().create_future()
        self._settling.append(last)
        try:
            return bool((await asyncio.wait([last[1]], timeout=limit))[0])
        finally:
            if not last[1].done():
                self._settling.remove(last)

    async def close(self, limit: float) -> None:
        """Writes what waits, at most ``limit`` seconds long; what is left then is lost. Safe to call twice."""
        self._closing.set()
        self._hurry.set()
        self._wake.set()
        task, self._task = self._task, None
        if task is not None and (await asyncio.wait({task}, timeout=limit))[1]:
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
        if left := len(self._queue):
            self._queue.clear()
            self._bytes = 0
            self._lost(left, Loss.UNWRITTEN)
            self._settle()

    def _add(self, item: T, size: int) -> None:
        self._number += 1
        self._queue[self._number if self._key is None else self._key(item)] = self._number, size, item
        self._bytes += size
        self._wake.set()

    async def _run(self) -> None:
        last = False
        while not last:
            await self._wake.wait()
            await _sleep(self._limits.linger, self._hurry)
            last = self._closing.is_set()
            self._wake.clear()
            while self._queue:
                if await self._write_group():
                    if not last and self._is_caught_up():
                        # what is left waits for others again: a transaction costs more than what it writes
                        self._wake.set()
                        break
                elif self._closing.is_set():
                    if not last:
                        # once more: the fault may be over
                        break
                    if not self._insist:
                        return
                    await asyncio.sleep(self.breaker.remaining)

    def _is_caught_up(self) -> bool:
        """Whether less waits than makes a group, and nothing stands in the way of those."""
        whole = self._group_items == self._limits.group_items
        return len(self._queue) < self._group_items and whole and not self.breaker.failing

    async def _write_group(self) -> bool:
        """Whether to go on at once: a group was written, or is smaller the next time."""
        async with self._writing:
            group = list(islice(self._next(), self._group_items))
            if not group:
                return True
            items = [item for _, _, _, item in group]
            began = monotonic()
            try:
                await self._write(items)
            except Exception as error:  # noqa: BLE001 - any driver's any fault: items wait, nobody else notices
                failure: Exception | None = error
            else:
                failure = None
                self._remove(group)
        if failure is not None:
            return await self._fail(failure, group)
        self._group_items = min(2 * self._group_items, self._limits.group_items)
        self.breaker.succeeded()
        self._written(items)
        await _sleep(self._pace(len(items), monotonic() - began), self._closing)
        return True

    def _next(self) -> Iterator[tuple[Hashable, int, int, T]]:
        """Key, number, bytes and item of the oldest, one at least, up to the bytes of a group."""
        total = 0
        for key, (number, size, item) in self._queue.items():
            total += size
            if total > self._limits.group_bytes and total > size:
                return
            yield key, number, size, item

    async def _fail(self, error: Exception, group: Sequence[tuple[Hashable, int, int, T]]) -> bool:
        if not self._refused(error):
            self.breaker.failed(error)
            await _sleep(self.breaker.remaining, self._closing)
            return False
        self._group_items = max(1, len(group) // 2)
        if len(group) == 1:
            self._remove(group)
            substitute = self._substitute(group[0][3])
            if substitute is None:
                self._lost(1, Loss.REFUSED)
            else:
                self._add(substitute, self._size(substitute))
        return True

    def _remove(self, group: Iterable[tuple[Hashable, int, int, T]]) -> None:
        """Takes a group out of the queue, but not what has replaced one of it since."""
        for key, number, size, _ in group:
            waiting = self._queue.get(key)
            if waiting is not None and waiting[0] == number:
                del self._queue[key]
                self._bytes -= size
        self._settle()

    def _settle(self) -> None:
        oldest = next(iter(self._queue.values()))[0] if self._queue else self._number + 1
        while self._settling and self._settling[0][0] < oldest:
            waiting = self._settling.pop(0)[1]
            if not waiting.done():
                waiting.set_result(None)
        if not self._settling and not self._closing.is_set():
            self._hurry.clear()


async def _sleep(seconds: float, event: asyncio.Event) -> None:
    """Until so many seconds are over, or the event."""
    if seconds > 0 and not event.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()
