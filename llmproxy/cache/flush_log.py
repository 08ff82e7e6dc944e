"""The flush log: a flush in one process reaches the memory of the others, and each confirms it.

An order by the numbers of its lines, never by clocks: they are set, and those of machines differ.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from time import monotonic, time

from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.cache.entry import Entry
from llmproxy.cache.tables import flushes, processes
from llmproxy.cache.tier import Selector, dump, load, matches_begun
from llmproxy.database.engine import Database
from llmproxy.runtime.process_id import is_dead, is_on_this_machine, is_stopped, process_id

#: the name of the turn that a flush takes, and that stores and new processes take shared
TURN = "cache flushes"
#: lines that are kept: who has read none of them forgets everything
KEEP_LINES = 1000
#: seconds after which a process that could not read the log no longer answers from its memory
LEASE_SECONDS = 5.0
#: seconds that a flush waits for the others: one that stands still has lost its lease by then
_CONFIRM_SECONDS = LEASE_SECONDS + 1.0
#: seconds between two looks at who has confirmed
_LOOK_SECONDS = 0.05
#: seconds between two looks at who else there is; and, where some are on other machines, between two signs of life
_BEAT_SECONDS = 10.0
#: seconds without a sign of life after which a process on another machine is gone, and, fewer, after which one that
#: cannot reach the database takes itself for gone
_GONE_SECONDS, _LOST_SECONDS = 60.0, 45.0
#: seconds for each exchange with the database, so that one that hangs is noticed
_PATIENCE = 2.0

_oldest = select(func.min(flushes.c.id)).scalar_subquery().label("oldest")
#: rows (id, selector, oldest)
_LATER = select(flushes.c.id, flushes.c.selector, _oldest).where(flushes.c.id > bindparam("after"))
_LATER = _LATER.order_by(flushes.c.id)
_me = processes.c.name == bindparam("me")


async def flushed_since(connection: AsyncConnection, entries: Iterable[Entry], generation: int) -> set[bytes]:
    """The keys of the entries that were flushed since they were begun.

    Asked in the transaction that writes them, after ``TURN``: no flush can come between. ``generation`` is the
    database's.
    """
    begun = {entry.key: (entry, entry.begun) for entry in entries if entry.begun is not None}
    if not begun:
        return set()
    after = {key: position.number * (position.generation == generation) for key, (_, position) in begun.items()}
    lines = (await connection.execute(_LATER, {"after": min(after.values())})).all()
    if not lines:
        return set()
    now, oldest = monotonic(), lines[0].oldest
    selectors = [(line.id, load(line.selector)) for line in lines]
    return {
        key
        for key, (entry, position) in begun.items()
        # behind the lines that are left nobody can tell any more
        if after[key] < oldest - 1
        or any(id > after[key] and matches_begun(each, entry, now - position.at) for id, each in selectors)
    }


#: before every time
_LOST = -math.inf


class Lease:
    """Whether this process may answer from its memory: it reads the log, or it is the database that fails.

    A process that stood still may have missed a flush that others no longer wait for; one that reads and gets an error
    is still waited for, and is of more use with its memory than without. ``clock`` is monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._attended = clock()
        #: when it ends: a number, because every hit compares it
        self.until = self._attended + LEASE_SECONDS

    @property
    def stands(self) -> bool:
        return self._clock() < self.until

    @property
    def stood_still(self) -> bool:
        """Whether the process did not even try to read the log."""
        return self._clock() - self._attended >= LEASE_SECONDS

    def renew(self) -> None:
        self._attended = self._clock()
        self.until = self._attended + LEASE_SECONDS

    def fail(self, *, lost: bool) -> None:
        """Notes that the log could not be read. ``lost``: others no longer wait for this process."""
        is_lost = lost or self.until == _LOST or self.stood_still
        self._attended = self._clock()
        self.until = _LOST if is_lost else self._attended + LEASE_SECONDS


class FlushLog:
    """The table ``cache_flushes`` as one process has read it, and its row in ``cache_processes``.

    Its methods raise what the database raises.
    """

    def __init__(self, database: Database):
        self._database = database
        self._later = database.point_query(_LATER, ("after",))
        self._name = process_id()
        self._generation = 0
        self._seen = 0
        self._confirmed = 0
        self._looked = 0.0
        self._reached = monotonic()
        #: the last beat of each process of another machine, and when it was new (monotonic seconds)
        self._beats: dict[str, tuple[int, float]] = {}

    @property
    def generation(self) -> int:
        """The generation of the database whose log was read: it grows if the database was replaced."""
        return self._generation

    @property
    def number(self) -> int:
        """The last line that was read."""
        return self._seen

    @property
    def lost(self) -> bool:
        """Whether processes on other machines have ceased to wait for this one."""
        return bool(self._beats) and monotonic() - self._reached > _LOST_SECONDS

    async def append(self, selector: Selector) -> int:
        """Tells the other processes to forget what ``selector`` means. Returns the line's number, from 1."""
        async with self._database.write() as connection:
            await self._database.dialect.take_turn(connection, TURN)
            return await self.write(connection, selector)

    async def write(self, connection: AsyncConnection, selector: Selector) -> int:
        """``append`` in a transaction that has taken ``TURN``."""
        # the table's time is for people
        line = insert(flushes).values(selector=dump(selector), created_at=time()).returning(flushes.c.id)
        number: int = (await connection.execute(line)).scalar_one()
        await connection.execute(delete(flushes).where(flushes.c.id <= number - KEEP_LINES))
        return number

    async def news(self) -> list[Selector]:
        """What was flushed since the last call, by whomever. Opens the database if need be.

        The first time that is every line there is, and everything where lines are missing.
        """
        async with asyncio.timeout(_PATIENCE):
            await self._database.verify()
            if self._generation != self._database.generation:
                await self._register()
            rows = self._database.rows_at_once(self._later, (self._seen,))
            if rows is None:
                rows = await self._database.rows(self._later, (self._seen,))
            self._reached = monotonic()
            if not rows:
                return []
            seen, self._seen = self._seen, rows[-1][0]
            if seen < rows[0][2] - 1:
                return [Selector(all=True)]
            return [load(text) for _, text, _ in rows]

    async def confirm(self) -> None:
        """Writes how far the log was read and carried out; every few seconds it looks for other processes."""
        due = monotonic() - self._looked >= _BEAT_SECONDS
        if self._confirmed == self._seen and not due:
            return
        async with asyncio.timeout(_PATIENCE):
            here = await self._others() if due else True
            if self._confirmed != self._seen or not here or self._beats:
                await self._show()
            self._looked = monotonic()

    async def unconfirmed(self, number: int) -> tuple[str, ...]:
        """Waits, within a limit, until all processes have carried out line ``number``. Returns those that have not."""
        until = monotonic() + _CONFIRM_SECONDS
        while True:
            late = [name for name in await self._behind(number) if not is_dead(name)]
            if not late:
                return ()
            if monotonic() >= until:
                return tuple(name for name in late if not is_stopped(name))
            await asyncio.sleep(_LOOK_SECONDS)

    async def close(self) -> None:
        """Takes this process out of those that a flush waits for. Call it when it no longer answers."""
        if not self._generation:
            return
        async with asyncio.timeout(_PATIENCE), self._database.write() as connection:
            await connection.execute(delete(processes).where(_me), {"me": self._name})

    async def _register(self) -> None:
        async with self._database.write() as connection:
            generation = self._database.generation
            names = (await connection.execute(select(processes.c.name))).scalars().all()
            gone = [name for name in names if name == self._name or is_dead(name)]
            if gone:
                await connection.execute(delete(processes).where(processes.c.name.in_(gone)))
            # a flush that does not find this row has written its line before
            await connection.execute(insert(processes).values(name=self._name, seen=0, beat=0))
        self._generation, self._seen, self._confirmed = generation, 0, 0
        self._reached, self._looked = monotonic(), 0.0

    async def _others(self) -> bool:
        """Reads the list of processes. Returns whether this one is still in it."""
        async with self._database.read() as connection:
            rows = (await connection.execute(select(processes.c.name, processes.c.beat))).all()
        self._note([(row.name, row.beat) for row in rows])
        return any(row.name == self._name for row in rows)

    def _note(self, rows: Sequence[tuple[str, int]]) -> None:
        now, before = monotonic(), self._beats
        self._beats = {
            name: before[name] if name in before and before[name][0] == beat else (beat, now)
            for name, beat in rows
            if not is_on_this_machine(name)
        }

    async def _show(self) -> None:
        seen = self._seen
        async with self._database.write() as connection:
            mine = update(processes).where(_me).values(seen=seen, beat=processes.c.beat + 1)
            if (await connection.execute(mine, {"me": self._name})).rowcount == 0:
                await connection.execute(insert(processes).values(name=self._name, seen=seen, beat=0))
        self._confirmed = seen

    async def _behind(self, number: int) -> list[str]:
        async with self._database.read() as connection:
            rows = (await connection.execute(select(processes))).all()
        self._note([(row.name, row.beat) for row in rows])
        behind = [row.name for row in rows if row.seen < number and row.name != self._name]
        now = monotonic()
        gone = [
            name
            for name in behind
            if is_dead(name) or (name in self._beats and now - self._beats[name][1] > _GONE_SECONDS)
        ]
        if gone:
            async with self._database.write() as connection:
                await connection.execute(delete(processes).where(processes.c.name.in_(gone)))
        return [name for name in behind if name not in gone]
