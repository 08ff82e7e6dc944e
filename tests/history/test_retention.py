import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from llmproxy.database.engine import Database
from llmproxy.history import retention as module
from llmproxy.history.record import Recorder
from llmproxy.history.retention import CHUNK, DAY, Retention
from llmproxy.history.tables import history
from llmproxy.history.text_index import Texts
from llmproxy.history.totals import Summaries, session_page, user_page
from llmproxy.history.writer import HistoryWriter
from tests.history.exchanges import fetched
from tests.history.keeping import followed, found, write

NOW = 1_800_000_000.0


class Watched(Database):
    """Tells when a transaction has begun."""

    def __init__(self, real: Database) -> None:
        super().__init__(real.dialect, real.engine)
        self.begun = asyncio.Event()

    @asynccontextmanager
    async def write(self, *, durable: bool = False) -> AsyncIterator[AsyncConnection]:
        async with super().write(durable=durable) as connection:
            self.begun.set()
            yield connection


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_PAUSE", 0.0)


def retention(database: Database, *, days: float = 30.0, max_bytes: int = 10**9) -> Retention:
    return Retention(database, days=days, max_bytes=max_bytes, clock=lambda: NOW)


async def fill(database: Database, count: int, *, created_at: float = NOW, body: bytes = b"x" * 300) -> None:
    recorder = Recorder(10_000)
    writer = HistoryWriter(database, queue_rows=count)
    exchanges = (fetched(started_at=created_at, request_body=body, response_body=b"") for _ in range(count))
    writer.add(count, map(recorder.row, exchanges))
    writer.open()
    await writer.close(30)
    assert writer.written == count


async def each(database: Database) -> int:
    """Bytes that a row of those that are there takes."""
    async with database.read() as connection:
        size = select(func.max(module._row_bytes(database.dialect, searched=False)))
        return int((await connection.execute(size)).scalar_one())


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
    keeper = retention(database, max_bytes=2 * CHUNK * await each(database))
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
    await fill(database, 1)
    keeper = retention(database, max_bytes=5 * await each(database))
    await keeper.sweep()
    for _ in range(4):
        await fill(database, 1)
        await keeper.sweep()
    assert len(await ids(database)) == 5
    await fill(database, 1)
    await keeper.sweep()
    assert await ids(database) == [2, 3, 4, 5, 6]


async def test_what_others_deleted_is_not_deleted_again(database: Database) -> None:
    """Two processes sweep the same table: each notices what the other one did."""
    await fill(database, 2 * CHUNK)
    limit = 2 * CHUNK * await each(database)
    ours, theirs = retention(database, max_bytes=limit), retention(database, max_bytes=limit)
    await ours.sweep()
    await fill(database, CHUNK)
    await theirs.sweep()
    await ours.sweep()
    assert await ids(database) == list(range(CHUNK + 1, 3 * CHUNK + 1))


async def test_an_emptied_table_is_noticed(database: Database) -> None:
    await fill(database, 10)
    keeper = retention(database, max_bytes=15 * await each(database))
    await keeper.sweep()
    async with database.write() as connection:
        await connection.execute(delete(history))
    await keeper.sweep()
    await fill(database, 10)
    await keeper.sweep()
    assert len(await ids(database)) == 10


def chat(text: str) -> bytes:
    return orjson.dumps({"messages": [{"role": "user", "content": text}]})


def hexes(number: int, count: int) -> str:
    return " ".join(sha256(b"%d %d" % (number, at)).hexdigest()[:6] for at in range(count))


HEAVY: dict[str, Callable[[int], dict[str, Any]]] = {
    "bodies of little": lambda number: {"request_body": chat(f"question {number}")},
    "words that never come again": lambda number: {"request_body": chat(hexes(number, 300))},
    "numbers": lambda number: {"request_body": chat(" ".join(str(number * at) for at in range(300)))},
    "just more than half a page": lambda number: {"request_body": chat("x" * 4000)},
    "long names": lambda number: {
        name: f"{name}{number} " + "n" * 900 for name in ("user", "session", "model", "path", "namespace", "error")
    },
    "many sessions": lambda number: {"user": f"user {number}", "session": f"session {number}"},
    "words of another alphabet": lambda number: {"request_body": chat("".join(map(chr, range(0x4E00, 0x4F00))))},
}


@pytest.mark.parametrize("kind", HEAVY)
async def test_the_bound_is_of_what_the_file_takes(sqlite: Database, sqlite_file: Path, kind: str) -> None:
    """Whatever it is that makes it large: bodies, names, indexes, words or sums."""
    limit = 1_500_000
    keeper = Retention(sqlite, days=30.0, max_bytes=limit, searched=True, clock=lambda: NOW)
    for part in range(4):
        numbers = range(part * 500, part * 500 + 500)
        await write(
            sqlite, [fetched(request_id=f"{each:032x}", started_at=NOW + each, **HEAVY[kind](each)) for each in numbers]
        )
        await followed(Summaries(sqlite))
        await followed(Texts(sqlite))
        await keeper.sweep()
    while await sqlite.reclaim(1000):
        pass
    with contextlib.closing(sqlite3.connect(sqlite_file)) as connection:
        assert connection.execute("SELECT count(*) FROM history").fetchone() >= (40,)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    # an empty file of all tables takes a third of a megabyte
    assert await asyncio.to_thread(os.path.getsize, sqlite_file) < 1.5 * limit + 400_000


async def test_rows_in_the_middle_that_others_deleted_are_added_up_no_longer(database: Database) -> None:
    await fill(database, 20)
    keeper = retention(database, max_bytes=20 * await each(database))
    await keeper.sweep()
    async with database.write() as connection:
        await connection.execute(delete(history).where(history.c.id.between(5, 14)))
    keeper.measure_anew()
    await fill(database, 10)
    await keeper.sweep()
    assert len(await ids(database)) == 20


async def test_words_go_with_their_rows(database: Database) -> None:
    await fill(database, 5, created_at=NOW - 2 * DAY, body=b'{"prompt": "old words"}')
    await fill(database, 2, body=b'{"prompt": "new words"}')
    await followed(Texts(database))
    await retention(database, days=1.0).sweep()
    assert await found(database, "words") == [7, 6]
    assert await found(database, "old") == []


async def test_sums_go_with_the_last_row_and_not_before(database: Database) -> None:
    await write(
        database, [fetched(user="gone", started_at=NOW - 2 * DAY), fetched(user="there", started_at=NOW - 2 * DAY)]
    )
    await write(database, [fetched(user="there", started_at=NOW)])
    await followed(Summaries(database))
    await retention(database, days=1.0).sweep()
    assert [row["user"] for row in (await user_page(database, 10, None))["data"]] == ["there"]
    assert [row["user"] for row in (await session_page(database, 10, None, None))["data"]] == ["there"]
    async with database.write() as connection:
        await connection.execute(delete(history))
    await Retention(database, days=1.0, max_bytes=10**9, clock=lambda: NOW + 2 * DAY).sweep()
    assert (await user_page(database, 10, None))["data"] == []


async def test_a_fault_is_logged_once_and_the_next_sweep_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "llmproxy.database.breaker")
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
    told: list[tuple[str, str]] = []
    keeper = Retention(database, days=1, max_bytes=1, on_fault=lambda part, fault: told.append((part, fault)))
    keeper.open()
    await enough.wait()
    await keeper.close()
    await keeper.close()
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["old history cannot be deleted (unreachable); silent until it can"]
    assert told[:2] == [("retention", "unreachable")] * 2


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


class Interrupted(Database):
    """A database in which ``happens`` is called when the first rows have been added up."""

    happens: Callable[[], None]

    def __init__(self, real: Database) -> None:
        super().__init__(real.dialect, real.engine)
        self._left = 4

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        self._left -= 1
        if self._left == 0:
            self.happens()
        async with super().read() as connection:
            yield connection


async def test_what_is_deleted_during_a_sweep_is_added_up_by_the_next_one(database: Database) -> None:
    await fill(database, CHUNK + 50)
    interrupted = Interrupted(database)
    keeper = retention(interrupted, max_bytes=(CHUNK + 50) * await each(database))
    interrupted.happens = keeper.measure_anew
    await keeper.sweep()
    assert len(await ids(database)) == CHUNK + 50
    await fill(database, 1)
    await keeper.sweep()
    # all that is there was added up: the oldest goes
    assert await ids(database) == list(range(2, CHUNK + 52))
