"""The history of exchanges: it records them, keeps them for a while, answers queries, and erases them."""

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

from llmproxy.config.settings import Settings
from llmproxy.database.breaker import OnFault, ignore
from llmproxy.database.engine import Database
from llmproxy.database.faults import DEFECTS, fault_of
from llmproxy.history.detail import Record, newest, previews
from llmproxy.history.explain import explain
from llmproxy.history.projector import Projector
from llmproxy.history.record import Recorder, Redactor, stored_text
from llmproxy.history.retention import Retention, delete_all
from llmproxy.history.search import HistoryQuery, Page, page
from llmproxy.history.text_index import Texts
from llmproxy.history.totals import Summaries, erase_totals, one_session, one_user, session_page, user_page, uses
from llmproxy.history.writer import HistoryWriter
from llmproxy.wire.errors import BadRequest, NotFound, ProxyError, Unavailable
from llmproxy.wire.exchange import Exchange, RepeatHit

#: seconds that a question waits for rows that are on their way
SETTLE_SECONDS = 1.0
#: the same before rows are erased: what is on its way must be there to be erased
ERASE_SECONDS = 30.0
#: rows of an export that are read at once: without bodies, and with them
EXPORTED, EXPORTED_WITH_BODIES = 500, 20

Document = dict[str, Any]


class HistoryReader:
    """Queries. A request is found right after its end. Every method raises ``Unavailable`` if the database fails."""

    def __init__(
        self,
        database: Database,
        writer: HistoryWriter,
        sums: Projector,
        texts: Projector | None,
        retention: Retention,
    ) -> None:
        self._database = database
        self._writer = writer
        self._sums = sums
        self._texts = texts
        self._retention = retention

    async def page(self, query: HistoryQuery, *, bodies: bool = False) -> Page:
        """One page. Raises ``BadRequest`` for a text if texts are not indexed."""
        await self._writer.settle(SETTLE_SECONDS)
        await self.indexed(query)
        with _readable():
            return await page(self._database, _as_stored(query), bodies=bodies)

    async def previews(self, ids: Sequence[int]) -> dict[int, str]:
        """One line of the prompt of each exchange with these ids, if there is something to read."""
        with _readable():
            return await previews(self._database, ids)

    async def indexed(self, query: HistoryQuery) -> bool:
        """Whether the text index is up to date, if the query has a text. Raises ``BadRequest`` without an index."""
        if not query.text:
            return True
        if self._texts is None:
            raise BadRequest(
                "Texts are not indexed here: that needs LLMPROXY_HISTORY_SEARCH and LLMPROXY_HISTORY_BODIES.", param="q"
            )
        return await self._texts.settle(SETTLE_SECONDS)

    async def export(self, query: HistoryQuery, *, bodies: bool, limit: int | None) -> AsyncIterator[list[Document]]:
        """All pages of the query one after the other, up to ``limit`` exchanges; at least one page."""
        place, size = query.after, EXPORTED_WITH_BODIES if bodies else EXPORTED
        remaining = sys.maxsize if limit is None else limit
        while True:
            page = await self.page(replace(query, after=place, limit=min(size, remaining)), bodies=bodies)
            yield page.rows
            place, remaining = page.next, remaining - len(page.rows)
            if place is None or remaining == 0:
                return

    async def record(self, request_id: str, number: int | None = None) -> Record:
        """The newest exchange with this request id, or the one of them with this number. Raises ``NotFound``."""
        await self._writer.settle(SETTLE_SECONDS)
        with _readable():
            record = await newest(self._database, stored_text(request_id), number)
        if record is None:
            raise NotFound(f"The history has no request with the id {request_id[:100]!r}.", param="request_id")
        return record

    async def explain(self, request_id: str, number: int | None = None) -> Document:
        """Raises ``NotFound``."""
        record = await self.record(request_id, number)
        with _readable():
            return await explain(self._database, record)

    async def users(self, limit: int, after: str | None) -> Document:
        """Raises ``BadRequest`` for a cursor that is none."""
        await self._settle()
        with _readable():
            return await user_page(self._database, limit, after)

    async def user(self, name: str) -> Document:
        """Raises ``NotFound``."""
        await self._settle()
        with _readable():
            found = await one_user(self._database, stored_text(name))
        if found is None:
            raise NotFound(f"The history knows no user {name[:100]!r}.", param="id")
        return found

    async def sessions(self, limit: int, after: str | None, user: str | None) -> Document:
        """Raises ``BadRequest`` for a cursor that is none."""
        await self._settle()
        with _readable():
            return await session_page(self._database, limit, after, None if user is None else stored_text(user))

    async def session(self, name: str) -> Document:
        """Raises ``NotFound``."""
        await self._settle()
        with _readable():
            found = await one_session(self._database, stored_text(name))
        if found is None:
            raise NotFound(f"The history knows no session {name[:100]!r}.", param="id")
        return found

    async def uses(self, keys: Sequence[str]) -> dict[str, Document]:
        """By key of the cache, for the keys that are known: ``hits``, ``last_used``, ``question`` (a line of what was
        asked, "" if it is not kept), ``exchange`` and ``request_id`` of the newest exchange with the key, or None."""
        await self._settle()
        with _readable():
            found = await uses(self._database, keys)
            lines = await previews(self._database, [each["exchange"] for each in found.values() if each["exchange"]])
        return {key: {**each, "question": lines.get(each["exchange"], "")} for key, each in found.items()}

    async def erase(self, user: str | None, session: str | None) -> int:
        """Deletes all exchanges of a user, of a session, or of a user within a session, with all that is derived from
        them. Returns their number. What they ask meanwhile is kept.

        Raises ``Unavailable`` also if what waits to be written keeps waiting: it may be theirs.
        """
        user, session = (None if each is None else stored_text(each) for each in (user, session))
        if not await self._writer.settle(ERASE_SECONDS):
            message = "Exchanges wait to be written that may have to be erased. None was erased; try again later."
            raise Unavailable(message, code="history_unavailable")
        await self._sums.settle(ERASE_SECONDS)
        with _readable():
            try:
                deleted = await delete_all(self._database, user, session)
            finally:
                self._retention.measure_anew()
            async with self._database.write() as connection:
                await erase_totals(connection, user, session)
        return deleted

    async def _settle(self) -> None:
        await self._writer.settle(SETTLE_SECONDS)
        await self._sums.settle(SETTLE_SECONDS)


def _as_stored(query: HistoryQuery) -> HistoryQuery:
    """The query with its texts as rows hold them."""
    user, session, model = (
        None if each is None else stored_text(each) for each in (query.user, query.session, query.model)
    )
    return replace(query, user=user, session=session, model=model)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (ProxyError, *DEFECTS):
        raise
    except Exception as error:  # any driver's any fault: they have nothing else in common
        message = f"The history cannot be read now ({fault_of(error)})."
        raise Unavailable(message, code="history_unavailable") from error


class History(Protocol):
    """Keeps a row for every exchange that is to be recorded.

    The failure contract: recording never fails, blocks or waits; what cannot be kept is counted as lost.
    """

    @property
    def written(self) -> int:
        """Rows written since start."""
        ...

    @property
    def lost(self) -> int:
        """Rows that were lost since start, for want of room or because they could not be written."""
        ...

    def record(self, batch: Sequence[Exchange]) -> None:
        """Records finished exchanges: a sink of the batcher."""
        ...

    def record_hits(self, template: Exchange, hits: Sequence[RepeatHit]) -> None:
        """Records requests that had the answer of ``template``."""
        ...

    @property
    def reader(self) -> HistoryReader:
        """Queries. Raises ``NotFound`` if no history is kept."""
        ...

    def open(self) -> None: ...

    async def close(self, limit: float) -> None:
        """Writes what waits, at most ``limit`` seconds long. Safe to call twice."""
        ...


class KeptHistory:
    """``History`` in the database."""

    def __init__(self, settings: Settings, database: Database, on_fault: OnFault = ignore) -> None:
        self._recorder = Recorder(
            settings.history_body_bytes if settings.history_bodies else None, Redactor(settings.history_redact)
        )
        self._writer = HistoryWriter(
            database,
            queue_rows=settings.history_queue,
            prepare=self._recorder.finished if settings.history_redact else None,
            on_written=self._wrote,
            on_fault=on_fault,
        )
        self._sums = Projector(Summaries(database), self._writer.is_busy, on_fault=on_fault)
        searched = settings.history_search and settings.history_bodies
        texts = Texts(database, on_fault)
        self._texts = Projector(texts, self._writer.is_busy, on_fault=on_fault) if searched else None
        self._followers = [each for each in (self._sums, self._texts) if each is not None]
        self._retention = Retention(
            database,
            days=settings.history_days,
            max_bytes=settings.history_bytes,
            searched=searched,
            on_fault=on_fault,
        )
        self._reader = HistoryReader(database, self._writer, self._sums, self._texts, self._retention)

    @property
    def written(self) -> int:
        return self._writer.written

    @property
    def lost(self) -> int:
        return self._writer.lost

    def record(self, batch: Sequence[Exchange]) -> None:
        due = [exchange for exchange in batch if exchange.recorded]
        self._writer.add(len(due), map(self._recorder.row, due))

    def record_hits(self, template: Exchange, hits: Sequence[RepeatHit]) -> None:
        if template.recorded:
            self._writer.add(len(hits), self._recorder.rows_like(template, hits))

    @property
    def reader(self) -> HistoryReader:
        return self._reader

    def open(self) -> None:
        self._writer.open()
        for follower in self._followers:
            follower.open()
        self._retention.open()

    async def close(self, limit: float) -> None:
        await self._retention.close()
        await self._writer.close(limit)
        for follower in self._followers:
            await follower.close()

    def _wrote(self, bytes: int) -> None:
        self._retention.note(bytes)
        for follower in self._followers:
            follower.wake()


class NoHistory:
    """``History`` when it is switched off."""

    written = 0
    lost = 0

    def record(self, batch: Sequence[Exchange]) -> None:
        pass

    def record_hits(self, template: Exchange, hits: Sequence[RepeatHit]) -> None:
        pass

    @property
    def reader(self) -> HistoryReader:
        raise NotFound("No history is kept; LLMPROXY_HISTORY=true has it kept.")

    def open(self) -> None:
        pass

    async def close(self, limit: float) -> None:
        pass


def history_for(settings: Settings, database: Database, on_fault: OnFault = ignore) -> History:
    """The history that the settings describe. ``on_fault`` takes the faults behind requests."""
    return KeptHistory(settings, database, on_fault) if settings.history else NoHistory()
