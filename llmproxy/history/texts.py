"""The full-text index of prompts and answers, brought up to date row by row."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import select

from llmproxy.database.breaker import OnFault, ignore
from llmproxy.database.engine import Database
from llmproxy.database.faults import fault_of
from llmproxy.history.projector import mark, move
from llmproxy.history.tables import HISTORY_TEXTS, history
from llmproxy.history.text_extract import words_said

logger = logging.getLogger(__name__)

#: rows indexed in one transaction, and bytes of their bodies: the write lock is held for 13 ms, one time in a hundred
#: for 80, when SQLite merges parts of the index
CHUNK = 200
CHUNK_BYTES = 128 * 1024


class Texts:
    """The ``Step`` that indexes new rows."""

    name = "texts"

    def __init__(self, database: Database, on_fault: OnFault = ignore) -> None:
        """``on_fault`` is told of rows whose words the database refuses."""
        self._database = database
        self._on_fault = on_fault
        self._most = CHUNK

    async def advance(self) -> bool:
        seen = await mark(self._database, self.name)
        last, rows, more = await self._chunk(seen)
        if last == seen:
            return False
        texts = await self._read(seen, last)
        try:
            await self._add(seen, last, texts)
        except Exception as error:
            if fault_of(error).passes:
                raise
            # smaller and smaller chunks find the row that is refused; it stays unfound, and the others do not
            self._most = max(1, rows // 2)
            if rows == 1:
                logger.exception("the words of a row of history were refused by the database")
                self._on_fault(self.name, fault_of(error))
                await self._add(seen, last, [])
            return True
        self._most = min(2 * self._most, CHUNK)
        return more

    async def _read(self, seen: int, last: int) -> list[tuple[int, str]]:
        row = history.c
        bodies = select(row.id, row.request_body, row.response_body)
        async with self._database.read() as connection:
            wanted = bodies.where(row.id > seen, row.id <= last, row.body_bytes > 0)
            rows = (await connection.execute(wanted)).all()
        return await asyncio.to_thread(_texts, rows, self._database.dialect.text_of) if rows else []

    async def _chunk(self, seen: int) -> tuple[int, int, bool]:
        """The last row of the next chunk, ``seen`` where there is none; how many there are; and whether there are more
        behind it."""
        behind = select(history.c.id, history.c.body_bytes).where(history.c.id > seen).order_by(history.c.id)
        async with self._database.read() as connection:
            rows = (await connection.execute(behind.limit(self._most))).all()
        last, size = seen, 0
        for number, (id, body_bytes) in enumerate(rows):
            size += body_bytes
            if last != seen and size > CHUNK_BYTES:
                return last, number, True
            last = id
        return last, len(rows), len(rows) == self._most

    async def _add(self, seen: int, last: int, texts: Sequence[tuple[int, str]]) -> None:
        there = select(history.c.id).where(history.c.id.in_([id for id, _ in texts]))
        async with self._database.write() as connection:
            if not await move(connection, self.name, seen, last) or not texts:
                return
            # a row that is deleted at this moment must not leave its words behind
            kept = set((await connection.execute(there.with_for_update(read=True, key_share=True))).scalars())
            if kept:
                added = self._database.dialect.texts_added(HISTORY_TEXTS)
                await connection.exec_driver_sql(added, [text for text in texts if text[0] in kept])


def _texts(rows: Sequence[Any], text_of: Callable[[Sequence[str]], str]) -> list[tuple[int, str]]:
    # hits come by the thousand, and say the same
    said: dict[tuple[bytes | None, bytes | None], str] = {}
    for _, request, response in rows:
        if (request, response) not in said:
            said[request, response] = text_of(words_said(request, response))
    return [(id, text) for id, request, response in rows if (text := said[request, response])]
