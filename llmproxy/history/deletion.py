"""Exchanges deleted with the words that find them, in transactions that hold the write lock for milliseconds."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Select, delete, func, select

from llmproxy.database.engine import Database
from llmproxy.history.tables import HISTORY_TEXTS, history

#: rows chosen at once
CHUNK = 300
#: bytes of bodies deleted in one transaction: taking a text out of the index costs as much as putting it in
_BYTES = 512 * 1024
#: seconds between two transactions, for other writers
CHUNK_PAUSE = 0.02


async def delete_rows(database: Database, chosen: Select[Any], most: int = CHUNK) -> int:
    """Deletes the rows whose id and ``body_bytes`` the query gives, at most so many. Returns their number."""
    async with database.read() as connection:
        rows = (await connection.execute(chosen.limit(most))).all()
    deleted = 0
    for ids in _portions(rows):
        async with database.write() as connection:
            # the rows first: who indexes them at this moment waits here, and then finds them gone
            deleted += (await connection.execute(delete(history).where(history.c.id.in_(ids)))).rowcount
            await connection.execute(database.dialect.texts_deleted(HISTORY_TEXTS, ids))
        await asyncio.sleep(CHUNK_PAUSE)
    return deleted


async def delete_all(database: Database, user: str | None, session: str | None) -> int:
    """Deletes the rows that are there of a user, of a session, or of one within the other. Returns their number."""
    row, deleted = history.c, 0
    async with database.read() as connection:
        last = (await connection.execute(select(func.max(row.id)))).scalar() or 0
    # who goes on asking would otherwise keep this going for ever
    chosen = select(row.id, row.body_bytes).where(row.id <= last)
    for column, value in ((row.user_name, user), (row.session, session)):
        chosen = chosen if value is None else chosen.where(column == value)
    while gone := await delete_rows(database, chosen):
        deleted += gone
    return deleted


def _portions(rows: Sequence[Any]) -> Iterator[list[int]]:
    ids: list[int] = []
    size = 0
    for id, body_bytes in rows:
        if ids and size + body_bytes > _BYTES:
            yield ids
            ids, size = [], 0
        ids.append(id)
        size += body_bytes
    if ids:
        yield ids
