"""Every kind of fault, made for real and named."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import bindparam, event, select, text
from sqlalchemy.exc import DBAPIError

from llmproxy.cache.tables import flushes
from llmproxy.database.engine import Database, open_database
from llmproxy.database.faults import DatabaseUnusable, Fault, NotOpen, fault_of
from tests.databases import PostgresServer, sqlite_url

LINE = {"selector": "x" * 50_000, "created_at": 1.0}

NOBODY = 65534


async def fault_of_writing(database: Database) -> Fault:
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

    assert await fault_of_writing(sqlite) is Fault.FULL


async def test_locked_by_another_process(sqlite: Database, sqlite_file: Path) -> None:
    with contextlib.closing(sqlite3.connect(sqlite_file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await fault_of_writing(sqlite) is Fault.LOCKED


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Root may write everywhere: be somebody else."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


async def test_read_only(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    async with open_database(sqlite_url(file)) as database:
        await database.verify()
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o555)
    tmp_path.chmod(0o777)
    file.chmod(0o444)
    with unprivileged():
        async with open_database(sqlite_url(file)) as database:
            assert await fault_of_writing(database) is Fault.READ_ONLY
