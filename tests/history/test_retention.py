import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.database.engine import Database
from llmproxy.history import retention as module
from llmproxy.history.record import Recorder
from llmproxy.history.retention import CHUNK, DAY, ROW_BYTES, Retention
from llmproxy.history.tables import history
from llmproxy.history.writer import Writer
from tests.history.exchanges import fetched

NOW = 1_800_000_000.0


class Watched(Database):
    """Tells when a transaction has begun."""

    def __init__(self, real: Database) -> None:
        super().__init__(real.dialect, real.engine)
        self.begun = asyncio.Event()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        async with super().write() as connection:
            self.begun.set()
            yield connection


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_PAUSE", 0.0)


def retention(database: Database, *, days: float = 30.0, max_bytes: int = 10**9) -> Retention:
    return Retention(database, days=days, max_bytes=max_bytes, clock=lambda: NOW)


async def fill(database: Database, count: int, *, created_at: float = NOW, body: bytes = b"x" * 300) -> None:
    recorder = Recorder(10_000)
    writer = Writer(database, queue_rows=count)
    exchanges = (fetched(started_at=created_at, request_body=body, response_body=b"") for _ in range(count))
    writer.add(count, map(recorder.row, exchanges))
    writer.open()
    await writer.close(30)
    assert writer.written == count


async def ids(database: Database) -> list[int]:
    async with database.read() as connection:
        return list((await connection.execute(select(history.c.id).order_by(history.c.id))).scalars())


async def test_rows_past_their_age_go_in_chunks(database: Database) -> None:
    await fill(database, 2 * CHUNK + 10, created_at=NOW - 2 * DAY)
    await fill(database, 5, created_at=NOW - DAY / 2)
    await retention(database, days=1.0).sweep()
    assert len(await ids(database)) == 5


async def test_the_oldest_go_where_there_are_too_many_bytes(database: Database) -> None:
    await fill(database, 3 * CHUNK)
    keeper = retention(database, max_bytes=2 * CHUNK * (300 + ROW_BYTES))
    await keeper.sweep()
    assert await ids(database) == list(range(CHUNK + 1, 3 * CHUNK + 1))
    await fill(database, CHUNK)
    await keeper.sweep()
    assert await ids(database) == list(range(2 * CHUNK + 1, 4 * CHUNK + 1))


async def test_within_bounds_nothing_goes(database: Database) -> None:
    await fill(database, 10)
    await retention(database).sweep()
    assert len(await ids(database)) == 10


async def test_rows_that_come_one_by_one_are_added_up(database: Database) -> None:
    keeper = retention(database, max_bytes=5 * (300 + ROW_BYTES))
    for _ in range(5):
        await fill(database, 1)
        await keeper.sweep()
    assert len(await ids(database)) == 5
    await fill(database, 1)
    await keeper.sweep()
    # a segment goes as a whole
    assert await ids(database) == []


async def test_what_others_deleted_is_not_deleted_again(database: Database) -> None:
    """Two processes sweep the same table: each notices what the other one did."""
    limit = 2 * CHUNK * (300 + ROW_BYTES)
    ours, theirs = retention(database, max_bytes=limit), retention(database, max_bytes=limit)
    await fill(database, 2 * CHUNK)
    await ours.sweep()
    await fill(database, CHUNK)
    await theirs.sweep()
    await ours.sweep()
    assert await ids(database) == list(range(CHUNK + 1, 3 * CHUNK + 1))


async def test_an_emptied_table_is_noticed(database: Database) -> None:
    await fill(database, 10)
    keeper = retention(database, max_bytes=15 * (300 + ROW_BYTES))
    await keeper.sweep()
    async with database.write() as connection:
        await connection.execute(delete(history))
    await keeper.sweep()
    await fill(database, 10)
    await keeper.sweep()
    assert len(await ids(database)) == 10


async def test_a_fault_is_logged_once_and_the_next_sweep_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.0)
    enough = asyncio.Event()
    sweeps = 0

    async def fails(self: Retention) -> None:
        nonlocal sweeps
        sweeps += 1
        if sweeps == 3:
            enough.set()
        raise ConnectionRefusedError

    monkeypatch.setattr(Retention, "sweep", fails)
    keeper = retention(database)
    keeper.open()
    await enough.wait()
    await keeper.close()
    await keeper.close()
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["old history cannot be deleted (unreachable); silent until it can"]


async def test_close_in_the_middle_of_a_sweep_leaves_a_usable_database(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0.0)
    await fill(database, 2 * CHUNK, created_at=0.0)
    watched = Watched(database)
    keeper = retention(watched)
    keeper.open()
    await watched.begun.wait()
    await keeper.close()
    await fill(database, 1)
    assert (await ids(database))[-1] == 2 * CHUNK + 1
