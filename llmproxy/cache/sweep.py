"""Sweeps the SQL tier: deletes expired entries, then the least recently used, then gives back free pages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, true

from llmproxy.cache.flush_log import TURN
from llmproxy.cache.sql import CENSUS, TOUCH, SqlTier, delete_some
from llmproxy.cache.tables import entries
from llmproxy.database.engine import Database

#: rows deleted in one transaction
_CHUNK = 300
#: of the bound, what may be written before the next sweep comes early
_AHEAD = 0.125
#: pages given back in one transaction, and transactions in one sweep
_PAGES = 1000
_STEPS = 20


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did. ``bytes`` were the rows', ``reclaimed`` is by how much the database's file got shorter."""

    expired: int = 0
    evicted: int = 0
    bytes: int = 0
    reclaimed: int = 0


class Sweep:
    """Each call is one sweep; raises what the database raises.

    ``max_bytes`` bounds what the entries take in the file. ``in_use`` gives the keys that the tier in front answers:
    the SQL tier does not see them used. Entries are kept for ``stale_seconds`` past their lifetime. ``clock`` gives
    Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        tier: SqlTier,
        *,
        max_bytes: int,
        in_use: Callable[[], Sequence[bytes]],
        clock: Callable[[], float],
        stale_seconds: float = 0.0,
    ):
        self._database = database
        self._tier = tier
        self._max_bytes = max_bytes
        self._in_use = in_use
        self._clock = clock
        self._stale_seconds = stale_seconds
        #: called when so much was written that the bound may be passed long before the next sweep
        self.wake: Callable[[], None] = lambda: None
        self._written = 0
        tier.on_written = self._note

    async def __call__(self) -> Swept:
        self._written = 0
        expired, expired_bytes = await self._expire()
        evicted, evicted_bytes = await self._evict()
        reclaimed = await self._reclaim()
        return Swept(expired, evicted, expired_bytes + evicted_bytes, reclaimed)

    def _note(self, size: int) -> None:
        self._written += size
        if self._written > self._max_bytes * _AHEAD:
            self.wake()

    async def _expire(self) -> tuple[int, int]:
        past = entries.c.expires_at <= self._clock() - self._stale_seconds
        number, size = 0, 0
        while sizes := await self._delete(past, entries.c.expires_at, _CHUNK):
            number, size = number + len(sizes), size + sum(sizes)
            self._tier.count("expired", len(sizes))
        return number, size

    async def _evict(self) -> tuple[int, int]:
        async with self._database.read() as connection:
            rows, total, _ = (await connection.execute(CENSUS)).one()
        excess = int(total or 0) - self._max_bytes
        if excess <= 0:
            return 0, 0
        await self._spare()
        number, freed = 0, 0
        while freed < excess:
            # as many as suffice if they are of average size, so that not many more go than must
            probable = -(-(excess - freed) * rows // int(total))
            sizes = await self._delete(true(), entries.c.used_at, min(_CHUNK, probable))
            if not sizes:
                break
            number, freed = number + len(sizes), freed + sum(sizes)
            self._tier.count("bytes", len(sizes))
        return number, freed

    async def _spare(self) -> None:
        """Notes what the tier in front answers as used now."""
        keys = sorted(self._in_use())
        if keys:
            now = self._clock()
            async with self._database.write() as connection:
                await self._database.dialect.take_turn(connection, TURN, shared=True)
                await connection.execute(TOUCH, [{"at": key, "now": now} for key in keys])

    async def _delete(self, where: ColumnElement[bool], order: ColumnElement[float], limit: int) -> Sequence[int]:
        async with self._database.write() as connection:
            return (await connection.execute(delete_some(where, limit, order))).scalars().all()

    async def _reclaim(self) -> int:
        total = 0
        for _ in range(_STEPS):
            given = await self._database.reclaim(_PAGES)
            if given <= 0:
                break
            total += given
        self._tier.reclaimed += total
        return total
