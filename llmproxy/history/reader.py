"""Everything that can be asked of the history, and erased from it."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import select

from llmproxy.database.engine import Database
from llmproxy.database.faults import fault_of
from llmproxy.history import one, pages, people, summaries
from llmproxy.history.deletion import delete_rows
from llmproxy.history.explain import explain
from llmproxy.history.follower import Follower
from llmproxy.history.retention import Retention
from llmproxy.history.tables import history
from llmproxy.history.wanted import Page, Wanted
from llmproxy.history.writer import Writer
from llmproxy.wire.errors import BadRequest, InternalError, NotFound, ProxyError

#: seconds that a question waits for rows that are on their way
SETTLE_SECONDS = 1.0
#: the same before rows are erased: what is on its way must be there to be erased
ERASE_SECONDS = 30.0
#: rows of an export that are read at once: without bodies, and with them
EXPORTED, EXPORTED_WITH_BODIES = 500, 20

Document = dict[str, Any]


class Reader:
    """Whoever asks right after a request finds it. Every method raises ``InternalError`` where the database fails."""

    def __init__(
        self,
        database: Database,
        writer: Writer,
        sums: Follower,
        texts: Follower | None,
        retention: Retention,
    ) -> None:
        self._database = database
        self._writer = writer
        self._sums = sums
        self._texts = texts
        self._retention = retention

    async def page(self, wanted: Wanted, *, bodies: bool = False) -> Page:
        """Raises ``BadRequest`` for a text where texts are not indexed."""
        await self._writer.settle(SETTLE_SECONDS)
        await self.indexed(wanted)
        with _readable():
            return await pages.page(self._database, wanted, bodies=bodies)

    async def indexed(self, wanted: Wanted) -> bool:
        """Whether all that is kept is searched for the text, if there is one. Raises ``BadRequest`` where none is."""
        if not wanted.text:
            return True
        if self._texts is None:
            raise BadRequest(
                "Texts are not indexed here: that needs LLMPROXY_HISTORY_SEARCH and LLMPROXY_HISTORY_BODIES.", param="q"
            )
        return await self._texts.settle(SETTLE_SECONDS)

    async def export(self, wanted: Wanted, *, bodies: bool, limit: int | None) -> AsyncIterator[list[Document]]:
        """All pages of what is wanted, one after the other, up to ``limit`` exchanges; at least one page."""
        place, size = wanted.after, EXPORTED_WITH_BODIES if bodies else EXPORTED
        left = sys.maxsize if limit is None else limit
        while True:
            page = await self.page(replace(wanted, after=place, limit=min(size, left)), bodies=bodies)
            yield page.rows
            place, left = page.next, left - len(page.rows)
            if place is None or left == 0:
                return

    async def record(self, request_id: str) -> one.Record:
        """Raises ``NotFound``."""
        await self._writer.settle(SETTLE_SECONDS)
        with _readable():
            record = await one.newest(self._database, request_id)
        if record is None:
            raise NotFound(f"The history has no request with the id {request_id[:100]!r}.", param="request_id")
        return record

    async def explain(self, request_id: str) -> Document:
        """Raises ``NotFound``."""
        record = await self.record(request_id)
        with _readable():
            return await explain(self._database, record)

    async def users(self, limit: int, after: str | None) -> Document:
        """Raises ``BadRequest`` for a cursor that is none."""
        await self._settle()
        with _readable():
            return await people.user_page(self._database, limit, after)

    async def user(self, name: str) -> Document:
        """Raises ``NotFound``."""
        await self._settle()
        with _readable():
            found = await people.one_user(self._database, name)
        if found is None:
            raise NotFound(f"The history knows no user {name[:100]!r}.", param="id")
        return found

    async def sessions(self, limit: int, after: str | None, user: str | None) -> Document:
        """Raises ``BadRequest`` for a cursor that is none."""
        await self._settle()
        with _readable():
            return await people.session_page(self._database, limit, after, user)

    async def session(self, name: str) -> Document:
        """Raises ``NotFound``."""
        await self._settle()
        with _readable():
            found = await people.one_session(self._database, name)
        if found is None:
            raise NotFound(f"The history knows no session {name[:100]!r}.", param="id")
        return found

    async def erase(self, user: str | None, session: str | None) -> int:
        """Deletes all exchanges of a user, of a session, or of a user within a session, with all that is derived from
        them. Returns their number."""
        await self._writer.settle(ERASE_SECONDS)
        await self._sums.settle(ERASE_SECONDS)
        row, deleted = history.c, 0
        chosen = select(row.id, row.body_bytes)
        for column, value in ((row.user_name, user), (row.session, session)):
            chosen = chosen if value is None else chosen.where(column == value)
        with _readable():
            try:
                while gone := await delete_rows(self._database, chosen):
                    deleted += gone
            finally:
                self._retention.measure_anew()
            async with self._database.write() as connection:
                await summaries.erase(connection, user, session)
        return deleted

    async def _settle(self) -> None:
        await self._writer.settle(SETTLE_SECONDS)
        await self._sums.settle(SETTLE_SECONDS)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except ProxyError:
        raise
    except Exception as error:  # any driver's any fault: they have nothing else in common
        message = f"The history cannot be read now ({fault_of(error)})."
        raise InternalError(message, code="history_unavailable") from error
