"""Writes answers behind their requests: in groups, and never in anybody's way."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice

from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.database.faults import fault_of
from llmproxy.jobs.store import Store
from llmproxy.jobs.stored_model import StoredAnswer
from llmproxy.jobs.tables import stored
from llmproxy.wire.errors import ProxyError

log = logging.getLogger(__name__)

#: answers, and bytes of them, that may wait
MOST = 10_000
MOST_BYTES = 64 * 1024 * 1024
#: answers, and bytes of them, in one transaction
_GROUP = 256
_GROUP_BYTES = 8 * 1024 * 1024
#: seconds that the first of a group waits for others: short, because other processes see it only then
_LINGER_SECONDS = 0.05
#: seconds until the next attempt after a fault: doubled each time, up to the second
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


class StoredAnswerWriter:
    """Owns the task. Answers wait in memory, where they are found, until they are committed.

    ``lost`` is told of each that is not kept: for want of room, because no row can hold it, or because it still waited
    at the end.
    """

    def __init__(self, store: Store, lost: Callable[[], None]) -> None:
        self._store = store
        self._lost = lost
        self._waiting: dict[str, StoredAnswer] = {}
        self._bytes = 0
        self._group = _GROUP
        self._pause = _FIRST_PAUSE
        self._failing = False
        self._wanted = asyncio.Event()
        self._closing = asyncio.Event()
        #: held while a group is on its way to the database
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._task = asyncio.create_task(self._run(), name="stored answers")

    async def close(self, seconds: float) -> None:
        """Writes what waits, for so long at most; what is left then is lost. Safe to call twice."""
        self._closing.set()
        self._wanted.set()
        task, self._task = self._task, None
        if task is not None and (await asyncio.wait({task}, timeout=seconds))[1]:
            task.cancel()
            await asyncio.wait({task})
        if self._waiting:
            log.warning("%d answers could not be stored before the end", len(self._waiting))
        for answer in list(self._waiting.values()):
            self._lose(answer)

    def add(self, answer: StoredAnswer) -> None:
        if len(self._waiting) >= MOST or self._bytes + answer.size > MOST_BYTES:
            self.lose()
            return
        self._waiting[answer.id] = answer
        self._bytes += answer.size
        self._wanted.set()

    def lose(self) -> None:
        """Counts an answer that is not kept."""
        self._lost()

    def find(self, id: str) -> StoredAnswer | None:
        return self._waiting.get(id)

    def waiting(self) -> list[StoredAnswer]:
        return list(self._waiting.values())

    async def relabel(self, id: str, metadata: str) -> bool:
        """Has this answer written with other labels; False where it does not wait any more."""
        async with self._writing:
            if (answer := self._waiting.get(id)) is None:
                return False
            self._waiting[id] = changed = replace(answer, metadata=metadata)
            self._bytes += changed.size - answer.size
            return True

    async def drop(self, id: str) -> None:
        """Has nothing of this answer written from now on."""
        async with self._writing:
            if (answer := self._waiting.get(id)) is not None:
                self._remove(answer)

    async def _run(self) -> None:
        last = False
        while not last:
            await self._wanted.wait()
            await self._rest(_LINGER_SECONDS)
            last = self._closing.is_set()
            self._wanted.clear()
            while self._waiting:
                error = await self._write_some()
                if error is not None and not await self._bear(error):
                    break

    async def _write_some(self) -> ProxyError | None:
        """One group, or why it could not be written."""
        async with self._writing:
            group = list(islice(self._next(), self._group))
            try:
                await self._store.write(lambda connection: _put(connection, group), durable=False)
            except ProxyError as error:
                return error
            for answer in group:
                self._remove(answer)
        if self._failing:
            log.warning("answers are stored again")
        self._failing, self._group, self._pause = False, min(2 * self._group, _GROUP), _FIRST_PAUSE
        return None

    async def _bear(self, error: ProxyError) -> bool:
        """Whether to go on after a group failed."""
        if error.__cause__ is not None and not fault_of(error.__cause__).passes:
            # smaller and smaller groups find the row that is refused
            if self._group == 1 or len(self._waiting) == 1:
                self._lose(next(iter(self._waiting.values())))
            self._group = max(1, min(self._group, len(self._waiting)) // 2)
            return True
        if not self._failing:
            log.warning("answers wait to be stored: %s", error.message)
        self._failing = True
        if self._closing.is_set():
            return False
        await self._rest(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return True

    def _next(self) -> Iterator[StoredAnswer]:
        size = 0
        for answer in self._waiting.values():
            if size and size + answer.size > _GROUP_BYTES:
                return
            size += answer.size
            yield answer

    async def _rest(self, seconds: float) -> None:
        """Sleeps, but not into the closing."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def _lose(self, answer: StoredAnswer) -> None:
        self._remove(answer)
        self._lost()

    def _remove(self, answer: StoredAnswer) -> None:
        if self._waiting.pop(answer.id, None) is not None:
            self._bytes -= answer.size


async def _put(connection: AsyncConnection, group: list[StoredAnswer]) -> None:
    # a commit may have counted although its word did not come through: written again, it is the same
    await connection.execute(delete(stored).where(stored.c.id.in_([answer.id for answer in group])))
    await connection.execute(insert(stored), [answer.row() for answer in group])
