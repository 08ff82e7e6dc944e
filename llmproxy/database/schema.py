"""The schema as the serving program sees it: it checks that it is this program's, or makes it so.

Alembic costs a quarter of a second and 20 MB to import, so it is not imported here: a new database is made from the
tables that the rooms declared, an older one is upgraded by a child process.
"""

import asyncio
import sys

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, inspect
from sqlalchemy.ext.asyncio import AsyncEngine

from llmproxy.database.faults import DatabaseUnusable
from llmproxy.database.metadata import TEXTS, metadata
from llmproxy.database.sql_dialect import WRITES, DatabaseDialect

#: the newest revision in ``migrations/versions``
HEAD = "0006"

#: seconds that an upgrade may take
_UPGRADE_SECONDS = 600.0

#: Alembic's own table, in Alembic's own form
_VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


async def current(engine: AsyncEngine) -> str | None:
    """The database's revision; None where it has no schema yet."""
    async with engine.connect() as connection:
        return await connection.run_sync(_revision)


async def ensure(engine: AsyncEngine, dialect: DatabaseDialect) -> None:
    """Makes the schema this program's. Raises ``DatabaseUnusable`` where that can not be done."""
    revision = await current(engine)
    if revision is None:
        revision = await _create(engine, dialect)
    check_age(revision)
    if revision != HEAD:
        await _upgrade(engine)


def check_age(revision: str | None) -> None:
    """Raises ``DatabaseUnusable`` for a schema that only a newer version of the program knows."""
    if revision is not None and revision.isdigit() and int(revision) > int(HEAD):
        raise DatabaseUnusable(
            f"this database is from a newer llmproxy (its schema is {revision}, this version's is {HEAD}): "
            "use that version, or another database"
        )


async def _create(engine: AsyncEngine, dialect: DatabaseDialect) -> str | None:
    """The revision after making the schema, or after another process has made it."""
    async with engine.connect() as connection:
        await connection.execution_options(**{WRITES: True})
        async with connection.begin():
            return await connection.run_sync(_create_locked, dialect)


def _create_locked(connection: Connection, dialect: DatabaseDialect) -> str | None:
    dialect.lock_schema(connection)
    present = set(inspect(connection).get_table_names())
    if _VERSION.name in present:
        return _revision(connection)
    foreign = sorted(present & metadata.tables.keys())
    if foreign:
        raise DatabaseUnusable(f"the database has a table {foreign[0]} that this program did not make")
    metadata.create_all(connection, checkfirst=False)
    for name in metadata.info.get(TEXTS, ()):
        for statement in dialect.create_text_index(name):
            connection.exec_driver_sql(statement)
    _VERSION.create(connection)
    connection.execute(_VERSION.insert().values(version_num=HEAD))
    return HEAD


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION.name):
        return None
    revision: str | None = connection.execute(_VERSION.select()).scalar()
    return revision


async def _upgrade(engine: AsyncEngine) -> None:
    """Runs ``python -m llmproxy.database.migrate``. The URL goes through stdin: it may hold a password."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llmproxy.database.migrate"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    url = engine.url.render_as_string(hide_password=False)
    try:
        async with asyncio.timeout(_UPGRADE_SECONDS):
            _, errors = await process.communicate(url.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines() or ["no reason was given"]
        raise DatabaseUnusable(f"the database's schema could not be upgraded: {lines[-1]}")
