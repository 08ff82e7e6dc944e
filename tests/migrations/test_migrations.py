"""The folder of migrations against the tables that the rooms declare, on every kind of database."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import inspect, text

from llmproxy.database import migrate, schema
from llmproxy.database.engine import Database, open_database
from llmproxy.history.tables import HISTORY_TEXTS
from tests.databases import sqlite_url

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
    ),
    "0002": (
        "INSERT INTO jobs (id, kind, status, created_at) VALUES ('j', 'task', 'pending', 1.5)",
        "INSERT INTO job_items (job_id, step, position, status, priority, due_at)"
        " VALUES ('j', 'call', 0, 'waiting', 1, 1.5)",
        "INSERT INTO job_requests (item_id, body) VALUES (1, :bytes)",
        "INSERT INTO job_results (item_id, status_code, body) VALUES (1, 200, :bytes)",
        "INSERT INTO files (id, purpose, filename, bytes, sha256, created_at)"
        " VALUES ('f', 'batch', 'in.jsonl', 3, 'ab', 1.5)",
        "INSERT INTO stored_answers (id, kind, created_at, background, stream, request, input)"
        " VALUES ('r', 'response', 1.5, false, false, :bytes, :bytes)",
        "INSERT INTO response_events (response_id, number, frame) VALUES ('r', 0, :bytes)",
    ),
    "0003": (
        "UPDATE history SET namespace = 'n', detail = '{\"scope\":\"ab\"}'",
        *(
            f"INSERT INTO history_{table} ({key}, first_seen, last_seen, requests, looked_up, hits, errors,"
            f" prompt_tokens, completion_tokens, saved_seconds) VALUES ({value}, 1.5, 2.5, 3, 2, 1, 0, 10, 20, 1.5)"
            for table, key, value in (("users", "user_name", "'u'"), ("sessions", "session, user_name", "'s', 'u'"))
        ),
        "INSERT INTO history_marks (name, seen) VALUES ('texts', 1)",
    ),
    "0004": (
        "INSERT INTO performance_rollups (started_at, seconds, endpoint, model, cache, requests, errors,"
        " prompt_tokens, completion_tokens, upstream_seconds, durations, first_tokens, speeds)"
        " VALUES (60, 60, 'chat', 'm', 'hit', 1, 0, 10, 20, 1.5, :bytes, :bytes, :bytes)",
    ),
    "0005": ("INSERT INTO cache_processes (name, seen, beat) VALUES ('p', 1, 2)",),
    "0006": ("INSERT INTO history_keys (cache_key, hits, last_seen, exchange) VALUES ('ab', 1, 2.5, 1)",),
}


async def rows(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table that is there and is ours."""
    async with open_database(url) as database, database.engine.connect() as connection:
        present = await connection.run_sync(lambda there: inspect(there).get_table_names())
        # a full-text index is several tables of the database's own
        ours = [table for table in present if table != "alembic_version" and not table.startswith(HISTORY_TEXTS)]
        found = {}
        for table in sorted(ours):
            selected = await connection.execute(text(f"SELECT * FROM {table}"))
            found[table] = [tuple(row) for row in selected.all()]
        return found


async def put(url: str, revision: str) -> None:
    """The rows of an installation at ``revision``: of that one and those before it."""
    async with open_database(url) as database, database.engine.begin() as connection:
        for known in REVISIONS[: REVISIONS.index(revision) + 1]:
            for statement in ROWS[known]:
                values = {"bytes": b"\x00\xff\x01"} if ":bytes" in statement else {}
                await connection.execute(text(statement), values)


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
    assert after.keys() >= before.keys()
    for table, found in before.items():
        assert set(found[0]) <= set(after[table][0])


async def test_the_full_text_index_is_the_same_with_and_without_migrations(database_url: str) -> None:
    """Alembic does not look at it."""
    await asyncio.to_thread(migrate.upgrade, database_url)
    async with open_database(database_url) as database:
        migrated = await text_index(database)
        async with database.write() as connection:
            await connection.execute(text(f"DROP TABLE {HISTORY_TEXTS}"))
            for statement in database.dialect.create_text_index(HISTORY_TEXTS):
                await connection.exec_driver_sql(statement)
        assert await text_index(database) == migrated


async def text_index(database: Database) -> list[Any]:
    """What the database itself says of it."""
    definitions = {
        "sqlite": f"SELECT sql FROM sqlite_master WHERE name = '{HISTORY_TEXTS}'",
        "postgresql": f"SELECT indexdef FROM pg_indexes WHERE tablename = '{HISTORY_TEXTS}' ORDER BY indexname",
    }
    async with database.read() as connection:
        found = list((await connection.execute(text(definitions[database.dialect.name]))).scalars())
        assert found
        columns = await connection.run_sync(lambda there: inspect(there).get_columns(HISTORY_TEXTS))
    return [found, [(column["name"], str(column["type"]), column["nullable"]) for column in columns]]


async def test_new_columns_come_before_the_bodies(sqlite_file: Path) -> None:
    """SQLite reads a row from its beginning: behind a long body, each of them would cost the reading of it."""
    url = sqlite_url(sqlite_file)
    await asyncio.to_thread(migrate.upgrade, url)
    async with open_database(url) as database, database.read() as connection:
        columns = await connection.run_sync(lambda there: inspect(there).get_columns("history"))
        made = (await connection.execute(text("SELECT sql FROM sqlite_master WHERE name = 'history'"))).scalar_one()
    assert [column["name"] for column in columns][-3:] == ["detail", "request_body", "response_body"]
    # the table was made anew for it: ids are still never given twice
    assert "AUTOINCREMENT" in made


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
