"""Opening, writing, reading, losing and finding again; on every kind of database where it can be done there."""

import asyncio
import contextlib
import sqlite3
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import bindparam, func, select

from llmproxy.cache.tables import flushes
from llmproxy.database.engine import Database, open_database
from llmproxy.database.faults import DatabaseUnusable, NotOpen
from tests.databases import remove_sqlite, sqlite_url
from tests.timeouts import WAIT_SECONDS


def line(text: str) -> dict[str, Any]:
    return {"selector": text, "created_at": 1.0}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def lines(database: Database) -> Sequence[str]:
    async with database.read() as connection:
        return (await connection.execute(select(flushes.c.selector).order_by(flushes.c.id))).scalars().all()


async def test_what_is_written_is_there(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(flushes.insert(), [line("a"), line("b")])
    assert await lines(database) == ["a", "b"]


async def test_an_error_rolls_back(database: Database) -> None:
    async def fail() -> None:
        async with database.write() as connection:
            await connection.execute(flushes.insert(), [line("a")])
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert await lines(database) == []


async def test_cancelling_rolls_back_and_leaves_the_writers_turn(database: Database) -> None:
    inside = asyncio.Event()

    async def write_for_ever() -> None:
        async with database.write() as connection:
            await connection.execute(flushes.insert(), [line("a")])
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write_for_ever())
    await inside.wait()
    task.cancel()
    await asyncio.wait({task})
    async with database.write() as connection:
        await connection.execute(flushes.insert(), [line("b")])
    assert await lines(database) == ["b"]


async def test_reads_do_not_wait_for_the_writer(database: Database) -> None:
    query = database.point_query(select(func.count()).select_from(flushes), ())
    async with database.write() as connection:
        await connection.execute(flushes.insert(), [line("a")])
        assert await lines(database) == []
        assert [tuple(row) for row in await database.rows(query, ())] == [(0,)]
    assert [tuple(row) for row in await database.rows(query, ())] == [(1,)]


async def test_point_reads_pass_values_in_order(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(flushes.insert(), [line("a"), line("b"), line("c")])
    between = flushes.c.selector.between(bindparam("low"), bindparam("high"))
    query = database.point_query(select(flushes.c.selector, flushes.c.created_at).where(between), ("low", "high"))
    rows = await asyncio.gather(*(database.rows(query, ("b", "c")) for _ in range(20)))
    assert all(sorted(tuple(row) for row in found) == [("b", 1.0), ("c", 1.0)] for found in rows)
    with pytest.raises(ValueError, match="parameters"):
        database.point_query(select(flushes.c.id).where(between), ("high", "low"))


async def test_a_cancelled_point_read_leaves_the_next_one_unharmed(database: Database) -> None:
    query = database.point_query(select(flushes.c.selector).where(flushes.c.id == bindparam("id")), ("id",))
    async with database.write() as connection:
        await connection.execute(flushes.insert(), [line("a"), line("b")])
    for _ in range(5):
        read = asyncio.create_task(database.rows(query, (1,)))
        await asyncio.sleep(0)
        read.cancel()
        await asyncio.wait({read})
        assert [tuple(row) for row in await database.rows(query, (2,))] == [("b",)]


async def test_a_point_read_does_not_open_the_database(database_url: str) -> None:
    async with open_database(database_url) as database:
        query = database.point_query(select(flushes.c.id), ())
        with pytest.raises(NotOpen):
            await database.rows(query, ())
        await database.verify()
        assert list(await database.rows(query, ())) == []


async def test_size_is_of_the_whole_database(database: Database) -> None:
    before = await database.size()
    async with database.write() as connection:
        await connection.execute(flushes.insert(), [line("x" * 100_000) for _ in range(20)])
    assert await database.size() > max(before, 50_000)


async def test_closing_twice_and_opening_again(database: Database) -> None:
    await database.close()
    await database.close()
    assert await lines(database) == []


async def test_a_caller_that_gives_up_does_not_stop_the_opening(database_url: str) -> None:
    async with open_database(database_url) as database:
        impatient = asyncio.create_task(database.verify())
        await asyncio.sleep(0)
        patient = asyncio.create_task(database.verify())
        impatient.cancel()
        await patient
        assert database.generation == 1
        assert await lines(database) == []


async def test_the_sqlite_file_is_private_and_set_up_before_its_first_table(
    sqlite: Database, sqlite_file: Path
) -> None:
    assert [mode(path) for path in (sqlite_file.parent, sqlite_file)] == [0o700, 0o600]
    found = {}
    async with sqlite.read() as connection:
        for pragma in ("page_size", "auto_vacuum", "journal_mode", "synchronous", "busy_timeout"):
            found[pragma] = (await connection.exec_driver_sql(f"PRAGMA {pragma}")).scalar_one()
    assert found == {
        "page_size": 8192,
        "auto_vacuum": 2,
        "journal_mode": "wal",
        "synchronous": 1,
        "busy_timeout": 2000,
    }


async def test_a_connection_that_is_stopped_while_it_closes_ends(sqlite: Database) -> None:
    """As it is stopped when its close is cancelled; the loop's end waits for the close, which goes on."""
    busy, go_on = threading.Event(), threading.Event()

    def work() -> None:
        busy.set()
        go_on.wait()

    async with sqlite.read() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        await driver.create_function("work", 0, work)
        working = asyncio.create_task(driver.execute("SELECT work()"))
        await asyncio.to_thread(busy.wait)
        closing = asyncio.create_task(driver.close())
        # until it waits for the thread
        await asyncio.sleep(0)
        driver.stop()
        go_on.set()
        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.gather(working, closing, return_exceptions=True)
        await connection.invalidate()


async def test_a_writer_has_the_lock_from_its_beginning(sqlite: Database, sqlite_file: Path) -> None:
    with contextlib.closing(sqlite3.connect(sqlite_file, isolation_level=None, timeout=0)) as other:
        async with sqlite.write():
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
        async with sqlite.read() as connection:
            await connection.execute(select(flushes))
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")


async def test_free_pages_go_back_to_the_file_system(sqlite: Database) -> None:
    async with sqlite.write() as connection:
        await connection.execute(flushes.insert(), [line("x" * 100_000) for _ in range(50)])
    async with sqlite.write() as connection:
        await connection.execute(flushes.delete())
    full = await sqlite.size()
    given = await sqlite.reclaim(10)
    assert given == 10 * 8192
    assert await sqlite.reclaim(10_000) == full - given - await sqlite.size() > 4_000_000
    assert await sqlite.reclaim(10_000) == 0


@pytest.mark.parametrize("folder_too", [False, True])
async def test_a_deleted_sqlite_file_is_made_again(sqlite: Database, sqlite_file: Path, folder_too: bool) -> None:
    async with sqlite.write() as connection:
        await connection.execute(flushes.insert(), [line("a")])
    query = sqlite.point_query(select(flushes.c.selector), ())
    assert len(await sqlite.rows(query, ())) == 1
    remove_sqlite(sqlite_file)
    if folder_too:
        sqlite_file.parent.rmdir()
    async with sqlite.write() as connection:
        await connection.execute(flushes.insert(), [line("b")])
    assert sqlite.generation == 2
    assert await lines(sqlite) == ["b"]
    assert [tuple(row) for row in await sqlite.rows(query, ())] == [("b",)]


async def test_a_sqlite_file_deleted_beside_its_log_is_made_again(sqlite: Database, sqlite_file: Path) -> None:
    async with sqlite.write() as connection:
        await connection.execute(flushes.insert(), [line("a")])
    remove_sqlite(sqlite_file, beside=False)
    await sqlite.verify()
    assert await lines(sqlite) == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "form"),
        ("mysql://x/y", "none of the databases"),
        ("sqlite+aiosqlite://", "needs a file"),
        ("sqlite+aiosqlite:///:memory:", "needs a file"),
    ],
)
def test_an_url_that_cannot_be_used_says_why(url: str, reason: str) -> None:
    with pytest.raises(DatabaseUnusable, match=reason):
        open_database(url)


async def test_sslmode_as_libpq_has_it() -> None:
    async with open_database("postgresql+asyncpg://u:p@h/d?sslmode=require") as database:
        assert dict(database.engine.url.query) == {"ssl": "require"}


async def test_a_database_that_is_not_there_does_not_keep_anyone_from_opening_it(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    async with open_database(sqlite_url(blocked / "in" / "x.db")) as database:
        for _ in range(2):
            with pytest.raises(OSError, match="file"):
                await database.verify()
        blocked.unlink()
        await database.verify()
        assert database.generation == 1
