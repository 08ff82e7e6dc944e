"""Every kind of fault, made for real and named."""

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import bindparam, event, select, text
from sqlalchemy.exc import DBAPIError

from llmproxy.cache.tables import flushes
from llmproxy.database.engine import Database, open_database
from llmproxy.database.faults import DatabaseFault, DatabaseUnusable, NotOpen, fault_of
from tests.databases import PostgresServer, ruin_sqlite, sqlite_url

LINE = {"selector": "x" * 50_000, "created_at": 1.0}

ROOT, NOBODY = 0, 65534


async def fault_of_writing(database: Database) -> DatabaseFault:
    try:
        async with database.write() as connection:
            await connection.execute(flushes.insert(), [LINE] * 50)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is tested
        return fault_of(error)
    pytest.fail("it worked")


async def test_full(sqlite: Database) -> None:
    @event.listens_for(sqlite.engine.sync_engine, "checkout")
    def limit(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA max_page_count = 40")

    assert await fault_of_writing(sqlite) is DatabaseFault.FULL


async def test_locked_by_another_process(sqlite: Database, sqlite_file: Path) -> None:
    with contextlib.closing(sqlite3.connect(sqlite_file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await fault_of_writing(sqlite) is DatabaseFault.LOCKED


@contextlib.contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Where tests run as root, who may write everywhere, be somebody else for a while."""
    if os.getuid() != 0:
        yield
        return
    before = os.geteuid()
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(before)


def make_writable(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o666)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may write into, in one that everybody may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


async def test_read_only_and_writable_again(open_folder: Path) -> None:
    file = open_folder / "x.db"
    async with open_database(sqlite_url(file)) as database:
        await database.verify()
    file.chmod(0o444)
    with acting_as(NOBODY):
        async with open_database(sqlite_url(file)) as database:
            await database.verify()
            # a connection held open, whose view of the file others share
            assert list(await database.rows(database.point_query(select(flushes.c.id), ()), ())) == []
            assert await fault_of_writing(database) is DatabaseFault.READ_ONLY
            with acting_as(ROOT):
                make_writable(open_folder)
            async with database.write() as connection:
                await connection.execute(flushes.insert(), [LINE])


async def test_no_database(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    ruin_sqlite(file)
    async with open_database(sqlite_url(file)) as database:
        assert await fault_of_writing(database) is DatabaseFault.CORRUPT


async def test_a_missing_table(database: Database) -> None:
    async with database.write() as connection:
        await connection.execute(text("DROP TABLE cache_flushes"))
    assert await fault_of_writing(database) is DatabaseFault.SCHEMA


async def test_values_that_are_refused(database: Database) -> None:
    for bad in ({"selector": "a", "created_at": None}, {"selector": "\ud800", "created_at": 1.0}):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each driver has its own
            async with database.write() as connection:
                await connection.execute(flushes.insert(), [bad])
        assert fault_of(caught.value) is DatabaseFault.REFUSED
        assert not fault_of(caught.value).passes


async def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    async with open_database(sqlite_url(tmp_path / "x" / "y.db")) as database:
        assert await fault_of_writing(database) is DatabaseFault.UNREACHABLE


async def test_postgres_gone_and_back(postgres: PostgresServer) -> None:
    async with open_database(postgres.create()) as database:
        await database.verify()
        query = database.point_query(select(flushes.c.id).where(flushes.c.id == bindparam("id")), ("id",))
        assert list(await database.rows(query, (1,))) == []
        postgres.stop()
        try:
            assert await fault_of_writing(database) is DatabaseFault.UNREACHABLE
            with pytest.raises(Exception) as caught:  # noqa: PT011 - it depends on when the driver notices
                await database.rows(query, (1,))
            assert fault_of(caught.value) is DatabaseFault.UNREACHABLE
        finally:
            postgres.start()
        async with database.write() as connection:
            await connection.execute(flushes.insert(), [LINE])
        assert len(await database.rows(query, (1,))) == 1


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (TimeoutError(), DatabaseFault.TIMEOUT),
        (DatabaseUnusable("x"), DatabaseFault.SCHEMA),
        (NotOpen(), DatabaseFault.UNREACHABLE),
        (ConnectionResetError(), DatabaseFault.UNREACHABLE),
        (DBAPIError("SELECT 1", None, ConnectionRefusedError()), DatabaseFault.UNREACHABLE),
        (sqlite3.IntegrityError("x"), DatabaseFault.REFUSED),
        (OverflowError(), DatabaseFault.REFUSED),
    ],
)
def test_errors_without_a_code(error: Exception, fault: DatabaseFault) -> None:
    assert fault_of(error) is fault
