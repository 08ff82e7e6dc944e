"""The room's face: takes exchanges, keeps them for a while, and tells about them."""

from collections.abc import Sequence
from typing import Any, Protocol

from llmproxy.config.settings import Settings
from llmproxy.database.engine import Database
from llmproxy.database.faults import fault_of
from llmproxy.history import queries
from llmproxy.history.record import Hit, Recorder
from llmproxy.history.retention import Retention
from llmproxy.history.writer import Writer
from llmproxy.wire.errors import InternalError
from llmproxy.wire.exchange import Exchange

#: seconds that a question waits for rows that are on their way
SETTLE_SECONDS = 1.0


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

    def record_hits(self, template: Exchange, hits: Sequence[Hit]) -> None:
        """Takes requests that had the answer of ``template``."""
        ...

    async def latest(self, limit: int) -> list[dict[str, Any]]:
        """The newest exchanges, newest first, JSON-ready, without bodies. Raises ``InternalError``."""
        ...

    def open(self) -> None: ...

    async def close(self, limit: float) -> None:
        """Writes what waits, at most ``limit`` seconds long. Safe to call twice."""
        ...


class KeptHistory:
    """``History`` in the database."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._recorder = Recorder(settings.history_body_bytes if settings.history_bodies else None)
        self._writer = Writer(database, queue_rows=settings.history_queue)
        self._retention = Retention(database, days=settings.history_days, max_bytes=settings.history_bytes)

    @property
    def written(self) -> int:
        return self._writer.written

    @property
    def lost(self) -> int:
        return self._writer.lost

    def record(self, batch: Sequence[Exchange]) -> None:
        due = [exchange for exchange in batch if exchange.recorded]
        self._writer.add(len(due), map(self._recorder.row, due))

    def record_hits(self, template: Exchange, hits: Sequence[Hit]) -> None:
        if template.recorded:
            self._writer.add(len(hits), self._recorder.rows_like(template, hits))

    async def latest(self, limit: int) -> list[dict[str, Any]]:
        # whoever asks right after a request finds it
        await self._writer.settle(SETTLE_SECONDS)
        try:
            return await queries.latest(self._database, limit)
        except Exception as error:
            message = f"The history cannot be read now ({fault_of(error)})."
            raise InternalError(message, code="history_unavailable") from error

    def open(self) -> None:
        self._writer.open()
        self._retention.open()

    async def close(self, limit: float) -> None:
        await self._retention.close()
        await self._writer.close(limit)


class NoHistory:
    """``History`` when it is switched off."""

    written = 0
    lost = 0

    def record(self, batch: Sequence[Exchange]) -> None:
        pass

    def record_hits(self, template: Exchange, hits: Sequence[Hit]) -> None:
        pass

    async def latest(self, limit: int) -> list[dict[str, Any]]:
        return []

    def open(self) -> None:
        pass

    async def close(self, limit: float) -> None:
        pass


def history_for(settings: Settings, database: Database) -> History:
    """The history as the settings want it."""
    return KeptHistory(settings, database) if settings.history else NoHistory()
