"""A schema that is new, old, someone else's, or made by two at once."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from llmproxy.database import schema
from llmproxy.database.engine import Database, open_database
from llmproxy.database.faults import DatabaseUnusable

OPEN = """
import asyncio, sys
import llmproxy.cache.tables, llmproxy.history.tables, llmproxy.upstream.tables
from llmproxy.database.engine import open_database
async def main():
    async with open_database(sys.argv[1]) as database:
        await database.verify()
        async with database.write() as connection:
            await connection.exec_driver_sql("INSERT INTO cache_flushes (selector, created_at) VALUES ('x', 1.0)")
asyncio.run(main())
assert not [name for name in sys.modules if name.startswith("alembic")], "alembic was imported"
"""


async def run(database: Database, *statements: str) -> None:
    async with database.engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def test_a_new_database_gets_the_newest_schema(database: Database) -> None:
    assert await schema.current(database.engine) == schema.HEAD
    await schema.ensure(database.engine, database.dialect)
    async with database.read() as connection:
        for table in ("cache_entries", "cache_flushes", "history", "model_identities"):
            assert (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar() == 0


async def test_processes_that_start_at_once_all_come_up(database_url: str) -> None:
    """And none of them imports Alembic."""
    several = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", OPEN, database_url, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    errors = [(await process.communicate())[1].decode() for process in several]
    assert errors == ["", "", ""]
    async with open_database(database_url) as database, database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM cache_flushes"))).scalar() == 3


async def test_an_older_schema_is_upgraded(database_url: str) -> None:
    async with open_database(database_url) as database:
        await asyncio.to_thread(database.dialect.create)
        # as Alembic leaves a database whose migrations were all taken back
        await run(database, "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        await database.verify()
        assert await schema.current(database.engine) == schema.HEAD
        async with database.read() as connection:
            assert (await connection.execute(text("SELECT count(*) FROM cache_entries"))).scalar() == 0


async def test_a_newer_schema_is_left_alone_and_not_tried_twice(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(database, "UPDATE alembic_version SET version_num = '9999'")
    async with open_database(database.engine.url.render_as_string(hide_password=False)) as again:
        with pytest.raises(DatabaseUnusable, match="9999"):
            await again.verify()
        # a second child process could not be started now
        monkeypatch.setattr(sys, "executable", "/nonexistent")
        with pytest.raises(DatabaseUnusable, match="9999"):
            await again.verify()
    assert await schema.current(database.engine) == "9999"


async def test_a_table_of_somebody_elses_is_not_taken_over(database_url: str) -> None:
    async with open_database(database_url) as database:
        await asyncio.to_thread(database.dialect.create)
        await run(database, "CREATE TABLE history (event TEXT)", "INSERT INTO history VALUES ('theirs')")
        with pytest.raises(DatabaseUnusable, match="history"):
            await database.verify()
        assert await schema.current(database.engine) is None
        async with database.engine.connect() as connection:
            assert (await connection.execute(text("SELECT event FROM history"))).scalar() == "theirs"


async def test_a_schema_that_is_half_made_is_made_whole_by_the_next(database_url: str, tmp_path: Path) -> None:
    """Killed while it makes the schema, a process leaves all of it or nothing."""
    killed = OPEN.replace(
        "async def main",
        "import os\nfrom llmproxy.database import schema\n"
        "schema._VERSION.create = lambda connection: os._exit(9)\nasync def main",
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", killed, database_url)
    assert await process.wait() == 9
    async with open_database(database_url) as database:
        await database.verify()
        assert await schema.current(database.engine) == schema.HEAD
