"""Rows written at once, and what follows them brought up to date."""

from collections.abc import Sequence

from llmproxy.database.engine import Database
from llmproxy.history.projector import Projection
from llmproxy.history.record import Recorder
from llmproxy.history.search import HistoryQuery, page
from llmproxy.history.text_index import phrases_of
from llmproxy.history.writer import HistoryWriter
from llmproxy.wire.exchange import Exchange


async def write(database: Database, exchanges: Sequence[Exchange], recorder: Recorder | None = None) -> None:
    """As rows, in this order."""
    recorder = recorder or Recorder(100_000)
    writer = HistoryWriter(database, queue_rows=len(exchanges), prepare=recorder.finished)
    writer.add(len(exchanges), map(recorder.row, exchanges))
    writer.open()
    await writer.close(60)
    assert writer.written == len(exchanges)


async def followed(step: Projection) -> int:
    """Until there is nothing more to be done; how often there was."""
    times = 1
    while await step.advance():
        times += 1
    return times


async def found(database: Database, query: str) -> list[int]:
    """The ids of the rows whose texts hold all phrases of the query, newest first."""
    wanted = HistoryQuery(limit=1000, text=tuple(map(tuple, phrases_of(query))))
    return [row["id"] for row in (await page(database, wanted)).rows]
