import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.database.engine import Database
from llmproxy.history.record import COLUMNS, Recorder, Row
from llmproxy.history.tables import history
from llmproxy.history.writer import GROUP, HistoryWriter
from llmproxy.runtime.background import Backoff
from tests.database.faulty import FaultyDatabase, StuckDatabase, locked
from tests.history.exchanges import fetched

RECORDER = Recorder(1000)


def rows(*ids: str) -> list[Row]:
    return [RECORDER.row(fetched(request_id=id)) for id in ids]


def numbered(count: int) -> list[Row]:
    return rows(*map(str, range(count)))


def add(writer: HistoryWriter, *made: Row) -> None:
    writer.add(len(made), made)


async def written(database: Database) -> list[str]:
    async with database.read() as connection:
        return list((await connection.execute(select(history.c.request_id).order_by(history.c.id))).scalars())


class Watched(Database):
    """Tells when a write has failed."""

    def __init__(self, real: Database) -> None:
        super().__init__(real.dialect, real.engine)
        self.failed = asyncio.Event()

    @asynccontextmanager
    async def write(self, *, durable: bool = False) -> AsyncIterator[AsyncConnection]:
        try:
            async with super().write(durable=durable) as connection:
                yield connection
        except Exception:
            self.failed.set()
            raise


async def test_rows_are_written_in_order(database: Database) -> None:
    writer = HistoryWriter(database, queue_rows=100)
    writer.open()
    add(writer, *rows("a", "b"))
    await writer.settle(10)
    add(writer, *rows("c"))
    await writer.settle(10)
    assert await written(database) == ["a", "b", "c"]
    assert (writer.written, writer.lost) == (3, 0)
    await writer.close(10)


async def test_a_row_comes_back_as_it_was(database: Database) -> None:
    writer = HistoryWriter(database, queue_rows=100)
    writer.open()
    made = RECORDER.row(fetched(path="/é\u2028", error="😀"))
    add(writer, made)
    await writer.close(10)
    async with database.read() as connection:
        row = (await connection.execute(select(*(history.c[name] for name in COLUMNS)))).one()
    assert tuple(row) == made


async def test_each_transaction_is_told_after_it(database: Database) -> None:
    counts: list[int] = []
    writer = HistoryWriter(database, queue_rows=5_000, on_written=lambda _: counts.append(writer.written))
    add(writer, *numbered(GROUP + 5))
    assert writer.is_busy()
    writer.open()
    await writer.close(30)
    assert counts == [GROUP, GROUP + 5]
    assert not writer.is_busy()


async def test_what_is_written_is_what_finish_makes_of_it(database: Database) -> None:
    writer = HistoryWriter(database, queue_rows=10, prepare=lambda made: [("x", *row[1:]) for row in made])
    add(writer, *rows("a", "b"))
    writer.open()
    await writer.close(30)
    assert await written(database) == ["x", "x"]


async def test_close_writes_what_waits_in_groups(database: Database) -> None:
    writer = HistoryWriter(database, queue_rows=10_000)
    add(writer, *numbered(2 * GROUP + 5))
    writer.open()
    await writer.close(30)
    assert await written(database) == [str(number) for number in range(2 * GROUP + 5)]
    await writer.close(30)


async def test_what_finds_no_room_is_lost_and_not_even_made(database: Database) -> None:
    writer = HistoryWriter(database, queue_rows=2)
    made: list[str] = []

    def make(id: str) -> Row:
        made.append(id)
        return rows(id)[0]

    writer.add(5, map(make, "abcde"))
    writer.add(1, map(make, "f"))
    assert made == ["a", "b"]
    assert writer.lost == 4
    writer.open()
    await writer.close(10)
    assert await written(database) == ["a", "b"]


async def test_waiting_rows_are_bounded_in_bytes_too(database: Database) -> None:
    writer = HistoryWriter(database, queue_rows=100, queue_bytes=30)
    # 15 bytes each
    writer.add(4, iter(rows("a", "b", "c", "d")))
    assert writer.lost == 2
    writer.open()
    await writer.settle(10)
    add(writer, *rows("e"))
    await writer.close(10)
    assert await written(database) == ["a", "b", "e"]


async def test_rows_wait_out_a_fault_which_is_logged_once(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "llmproxy.database.breaker")
    faulty = FaultyDatabase(database, 3, locked())
    told: list[tuple[str, str]] = []
    writer = HistoryWriter(
        faulty, queue_rows=100, backoff=Backoff(0.001, 0.001), on_fault=lambda part, fault: told.append((part, fault))
    )
    writer.open()
    add(writer, *rows("a", "b"))
    await writer.settle(10)
    assert faulty.attempts == 4
    assert await written(database) == ["a", "b"]
    assert (writer.written, writer.lost) == (2, 0)
    assert told == [("history", "locked")] * 3
    assert [record.getMessage() for record in caplog.records if record.name.endswith("breaker")] == [
        "history cannot be written (locked); rows wait, silent until it can"
    ]
    await writer.close(10)


async def test_a_refused_row_is_lost_alone(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    writer = HistoryWriter(database, queue_rows=100)
    made = numbered(20)
    # the status may not be NULL
    made[13] = tuple(None if name == "status" else value for name, value in zip(COLUMNS, made[13], strict=True))
    add(writer, *made)
    writer.open()
    await writer.settle(30)
    assert await written(database) == [str(number) for number in range(20) if number != 13]
    assert (writer.written, writer.lost) == (19, 1)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    await writer.close(10)


async def test_close_tries_once_more_and_gives_up_at_a_fault(database: Database) -> None:
    faulty = FaultyDatabase(database, 1_000, locked())
    writer = HistoryWriter(faulty, queue_rows=100, backoff=Backoff(3600.0, 3600.0))
    writer.open()
    add(writer, *rows("a"))
    await faulty.failed.wait()
    await writer.close(30)
    assert faulty.attempts == 2
    assert writer.lost == 1


async def test_close_writes_after_a_fault_that_is_over(database: Database) -> None:
    faulty = FaultyDatabase(database, 1, locked())
    writer = HistoryWriter(faulty, queue_rows=100, backoff=Backoff(3600.0, 3600.0))
    writer.open()
    add(writer, *rows("a"))
    await faulty.failed.wait()
    await writer.close(30)
    assert await written(database) == ["a"]
    assert writer.lost == 0


async def test_close_has_a_limit(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    stuck = StuckDatabase(database)
    writer = HistoryWriter(stuck, queue_rows=100)
    writer.open()
    add(writer, *rows("a", "b"))
    await stuck.reached.wait()
    await writer.close(0.01)
    assert writer.lost == 2
    assert "2 rows of history could not be written" in caplog.text


async def test_what_comes_after_close_is_lost(database: Database) -> None:
    writer = HistoryWriter(database, queue_rows=100)
    writer.open()
    await writer.close(10)
    add(writer, *rows("a"))
    assert writer.lost == 1


async def test_settle_has_a_limit(database: Database) -> None:
    writer = HistoryWriter(database, queue_rows=100)
    add(writer, *rows("a"))
    await writer.settle(0.001)
    assert writer.written == 0
    await writer.close(1)


async def test_a_locked_file_makes_rows_wait(sqlite: Database, caplog: pytest.LogCaptureFixture) -> None:
    """The fault itself, as another process causes it."""
    watched = Watched(sqlite)
    await watched.verify()
    file = sqlite.engine.url.database
    assert file is not None
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writer = HistoryWriter(watched, queue_rows=100, backoff=Backoff(0.001, 0.001))
        writer.open()
        add(writer, *rows("a"))
        await watched.failed.wait()
        other.execute("COMMIT")
    await writer.settle(20)
    assert await written(sqlite) == ["a"]
    assert "cannot be written (locked" in caplog.text
    await writer.close(10)


async def test_rows_that_come_all_the_time_do_not_hold_up_who_asks(database: Database) -> None:
    """Each transaction finds more rows when it ends than there were when it began."""

    def tell(_: int) -> None:
        add(writer, *rows("more"))

    writer = HistoryWriter(database, queue_rows=100, on_written=tell)
    writer.open()
    add(writer, *rows("a"))
    assert await writer.settle(10)
    assert (await written(database))[0] == "a"
    await writer.close(10)


async def test_who_gave_up_waiting_is_forgotten(database: Database) -> None:
    stuck = StuckDatabase(database)
    writer = HistoryWriter(stuck, queue_rows=100)
    writer.open()
    add(writer, *rows("a"))
    assert not await writer.settle(0.001)
    asked = asyncio.create_task(writer.settle(30))
    await stuck.reached.wait()
    asked.cancel()
    await asyncio.wait([asked])
    await writer.close(0.01)
    assert writer.lost == 1
    assert await writer.settle(0.001)
