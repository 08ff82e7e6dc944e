"""Runs the migrations inside one transaction, with every other process kept out until it ends."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from llmproxy.cache import tables as cache_tables
from llmproxy.config.load import load
from llmproxy.database.engine import open_database
from llmproxy.database.metadata import TEXTS, metadata
from llmproxy.database.sql_dialect import WRITES
from llmproxy.history import rollups
from llmproxy.history import tables as history_tables
from llmproxy.jobs import tables as job_tables
from llmproxy.upstream import tables as upstream_tables

#: importing them is what declares the tables on ``metadata``
DECLARING = (cache_tables, history_tables, rollups, job_tables, upstream_tables)


async def main(url: str) -> None:
    async with open_database(url) as database:
        await asyncio.to_thread(database.dialect.create)
        async with database.engine.connect() as connection:
            await connection.execution_options(**{WRITES: True})
            async with connection.begin():
                await connection.run_sync(database.dialect.lock_schema)
                await connection.run_sync(migrate)


def migrate(connection: Connection) -> None:
    batch = connection.dialect.name == "sqlite"
    context.configure(
        connection, target_metadata=metadata, render_as_batch=batch, transactional_ddl=True, include_name=is_table
    )
    context.run_migrations()


def is_table(name: str | None, kind: str, parents: object) -> bool:
    """Whether the rooms declare it as a table: full-text indexes are made by statements, of several tables each."""
    texts = metadata.info.get(TEXTS, ())
    return kind != "table" or not any(name == each or str(name).startswith(f"{each}_") for each in texts)


asyncio.run(main(context.config.attributes.get("url") or load({}).settings.database))
