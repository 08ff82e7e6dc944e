"""The room's face: takes exchanges, keeps them for a while, and tells about them."""

from collections.abc import Sequence
from typing import Protocol

from llmproxy.config.settings import Settings
from llmproxy.database.breaker import OnFault, ignore
from llmproxy.database.engine import Database
from llmproxy.history.projector import Projector
from llmproxy.history.reader import HistoryReader
from llmproxy.history.record import Recorder
from llmproxy.history.redact import Redactor
from llmproxy.history.retention import Retention
from llmproxy.history.summaries import Summaries
from llmproxy.history.texts import Texts
from llmproxy.history.writer import HistoryWriter
from llmproxy.wire.errors import NotFound
from llmproxy.wire.exchange import Exchange, RepeatHit


class History(Protocol):
    """Keeps a row for every exchange that is due one.

    The failure contract: recording never fails, blocks or waits; what cannot be kept is counted as lost.
    """

    @property
    def written(self) -> int:
        """Rows written since start."""
        ...

    @property
    def lost(self) -> int:
        """Rows that found no room to wait in, or could not be written, since start."""
        ...

    def record(self, batch: Sequence[Exchange]) -> None:
        """Takes finished exchanges: a sink of the ledger."""
        ...

    def record_hits(self, template: Exchange, hits: Sequence[RepeatHit]) -> None:
        """Takes requests that had the answer of ``template``."""
        ...

    @property
    def reader(self) -> HistoryReader:
        """What can be asked of it. Raises ``NotFound`` where no history is kept."""
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
            finish=self._recorder.finished if settings.history_redact else None,
            told=self._wrote,
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
    """The history as the settings want it. ``on_fault`` is told of what fails behind the requests."""
    return KeptHistory(settings, database, on_fault) if settings.history else NoHistory()
