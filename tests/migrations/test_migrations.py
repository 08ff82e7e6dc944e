"""The folder of migrations against the tables that the rooms declare, on every kind of database."""

import asyncio
import sys
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text

from llmproxy.database import migrate, schema
from llmproxy.database.engine import open_database

REVISIONS = [script.revision for script in ScriptDirectory(str(migrate.migrations())).walk_revisions()][::-1]

#: rows that an installation at each revision may hold, by revision: statements with literals of every database
ROWS: dict[str, tuple[str, ...]] = {
    "0001": (
        "INSERT INTO cache_entries (key, operation, model, scope, namespace, tags, created_at, expires_at, used_at,"
        " size, digest, format, body) VALUES (:bytes, 'chat', 'm', '', '', '', 1.5, 2.5, 1.5, 3, :bytes, 1, :bytes)",
        "INSERT INTO cache_flushes (selector, created_at) VALUES ('{}', 1.5)",
        "INSERT INTO history (created_at, finished_at, status, stream, total_seconds, body_bytes)"
        " VALUES (1.5, 2.5, 200, true, 1.0, 0)",
        "INSERT INTO model_identities (upstream, model, identity, kind, seen_at) VALUES ('u', 'm', 'i', 'k', 1.5)",
    )
}


async def rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table of ours."""
    async with open_database(url) as database, database.engine.connect() as connection:
        found = {}
        for table in ("cache_entries", "cache_flushes", "history", "model_identities"):
            selected = await connection.execute(text(f"SELECT * FROM {table}"))
            found[table] = [tuple(row) for row in selected.all()]
        return found


async def put(url: str, revision: str) -> None:
    async with open_database(url) as database, database.engine.begin() as connection:
        for statement in ROWS[revision]:
            await connection.execute(text(statement), {"bytes": b"\x00\xff\x01"} if ":bytes" in statement else {})


def test_the_serving_program_knows_the_newest_revision() -> None:
    assert migrate.head() == schema.HEAD == REVISIONS[-1]


def test_rows_are_known_for_every_revision() -> None:
    assert list(ROWS) == REVISIONS


async def test_from_nothing_the_schema_is_what_the_tables_say(database_url: str) -> None:
    assert await asyncio.to_thread(migrate.current, database_url) is None
    assert await asyncio.to_thread(migrate.check, database_url)
    await asyncio.to_thread(migrate.upgrade, database_url)
    assert await asyncio.to_thread(migrate.current, database_url) == schema.HEAD
    assert await asyncio.to_thread(migrate.check, database_url) is None


async def test_a_schema_made_without_migrations_is_the_same(database_url: str) -> None:
    async with open_database(database_url) as database:
        await database.verify()
    assert await asyncio.to_thread(migrate.check, database_url) is None
    async with open_database(database_url) as database, database.engine.begin() as connection:
        await connection.execute(text("ALTER TABLE history ADD COLUMN surplus TEXT"))
    assert "surplus" in (await asyncio.to_thread(migrate.check, database_url) or "")


@pytest.mark.parametrize("revision", REVISIONS)
async def test_rows_survive_the_way_from_each_revision(database_url: str, revision: str) -> None:
    await asyncio.to_thread(migrate.upgrade, database_url, revision)
    await put(database_url, revision)
    before = await rows(database_url)
    assert all(len(found) == 1 for found in before.values())
    await asyncio.to_thread(migrate.upgrade, database_url)
    after = await rows(database_url)
    assert after.keys() == before.keys()
    for table, found in before.items():
        assert set(found[0]) <= set(after[table][0])


async def test_two_upgrades_at_once_both_succeed(database_url: str) -> None:
    async def upgrade() -> int | None:
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "llmproxy.database.migrate"), stdin=asyncio.subprocess.PIPE
        )
        await program.communicate(database_url.encode())
        return program.returncode

    assert list(await asyncio.gather(upgrade(), upgrade())) == [0, 0]
    assert await asyncio.to_thread(migrate.check, database_url) is None


async def test_an_unknown_revision_is_refused(database_url: str) -> None:
    with pytest.raises(CommandError, match="nonsense"):
        await asyncio.to_thread(migrate.upgrade, database_url, "nonsense")
