"""The log of flushes: how a flush in one process reaches the memory of the others."""

from collections.abc import Callable

from sqlalchemy import bindparam, delete, insert, select

from llmproxy.cache.selection import dump, load
from llmproxy.cache.tables import flushes
from llmproxy.cache.tier import Selector
from llmproxy.database.engine import Database

#: seconds after which a line is deleted: longer than any process sleeps
_KEEP_SECONDS = 30 * 86_400.0

#: PostgreSQL gives out numbers before it commits: a line may appear behind one that was read already
_OVERLAP = 64

_LATER = (
    select(flushes.c.id, flushes.c.selector, flushes.c.created_at)
    .where(flushes.c.id > bindparam("after"))
    .order_by(flushes.c.id)
)


class FlushLog:
    """The table ``cache_flushes`` as one process has read it. ``clock`` gives Unix seconds.

    Its methods raise what the database raises.
    """

    def __init__(self, database: Database, clock: Callable[[], float]):
        self._database = database
        self._clock = clock
        self._later = database.point_query(_LATER, ("after",))
        self._started = clock()
        self._generation = 0
        self._last = 0
        self._seen: set[int] = set()
        self._own: set[int] = set()

    @property
    def generation(self) -> int:
        """Grows when the database is not the one of before."""
        return self._database.generation

    async def append(self, selector: Selector) -> int:
        """Tells the other processes to forget what ``selector`` means. Returns the line's number, from 1."""
        now = self._clock()
        async with self._database.write() as connection:
            await connection.execute(delete(flushes).where(flushes.c.created_at < now - _KEEP_SECONDS))
            line = insert(flushes).values(selector=dump(selector), created_at=now).returning(flushes.c.id)
            number: int = (await connection.execute(line)).scalar_one()
        self._own.add(number)
        return number

    async def news(self) -> list[tuple[Selector, float]]:
        """What others have flushed since the last call, and when (Unix seconds). Opens the database if need be."""
        await self._database.verify()
        if self._generation != self._database.generation:
            # another file: its numbers begin again
            self._generation, self._last = self._database.generation, 0
            self._seen.clear()
        rows = await self._database.rows(self._later, (max(0, self._last - _OVERLAP),))
        known = self._seen | self._own
        news = [(load(text), at) for number, text, at in rows if number not in known and at >= self._started]
        self._seen = {row[0] for row in rows}
        self._own &= self._seen
        self._last = max(self._seen, default=0)
        return news
