"""PostgreSQL through asyncpg."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import URL, ColumnElement, Connection, Engine, Insert, Table, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

#: the advisory lock that guards the schema; any number does that all processes agree on
_SCHEMA_LOCK = 0x6C6C6D70726F7879


class Postgres:
    """The ``Dialect`` of PostgreSQL."""

    name = "postgresql"
    single_writer = False
    held_connections = 4

    def __init__(self, url: URL):
        # libpq's word for it, which hosting providers put into the URLs they hand out
        sslmode = url.query.get("sslmode")
        self.url = url.difference_update_query(["sslmode"])
        if sslmode:
            self.url = self.url.update_query_dict({"ssl": sslmode})

    def engine_options(self) -> dict[str, Any]:
        return {
            "connect_args": {
                "timeout": 5.0,
                "command_timeout": 30.0,
                "server_settings": {"application_name": "llmproxy"},
            },
            "pool_size": 4,
            "max_overflow": 4,
            "pool_timeout": 5.0,
            "pool_pre_ping": True,
        }

    def configure(self, engine: Engine) -> None:
        """Connections need nothing beyond their options."""

    def create(self) -> None:
        """The server's administrator makes databases."""

    def identity(self) -> object:
        return self.url

    def lock_schema(self, connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
        # a migration that waits for a table blocks everybody who comes after it
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))

    def upsert(self, table: Table, key: str) -> Insert:
        statement = insert(table)
        replaced = {c.name: statement.excluded[c.name] for c in table.columns if not c.primary_key and c.name != key}
        return statement.on_conflict_do_update(index_elements=[key], set_=replaced)

    def contains(self, column: ColumnElement[str], text: str) -> ColumnElement[bool]:
        return func.strpos(column, text) > 0

    async def fetch(self, driver: Any, sql: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = await driver.fetch(sql, *values)
        return rows

    def survives_cancelling(self, driver: Any) -> bool:
        # the request to cancel would itself have to reach a server that just did not answer
        driver.terminate()
        return False

    async def size(self, connection: AsyncConnection) -> int:
        size = await connection.execute(text("SELECT pg_database_size(current_database())"))
        return int(size.scalar_one())

    async def reclaim(self, driver: Any, pages: int) -> int:
        """Nothing: autovacuum does it."""
        return 0
