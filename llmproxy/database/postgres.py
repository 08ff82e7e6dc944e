"""PostgreSQL through asyncpg."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    ColumnElement,
    Connection,
    Delete,
    Engine,
    Insert,
    Select,
    Table,
    cast,
    column,
    delete,
    func,
    select,
    text,
)
from sqlalchemy import table as table_named
from sqlalchemy.dialects.postgresql import TSQUERY, TSVECTOR, insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateIndex

from llmproxy.database.sql_dialect import DirectConnection, Merge, Phrase

#: the advisory lock that guards the schema; any number does that all processes agree on
_SCHEMA_LOCK = 0x6C6C6D70726F7879

#: texts that are looked at one by one, newest first, before the index is asked: some 30 ms
_NEWEST_TEXTS = 50_000


@compiles(CreateIndex, "postgresql")
def _create_index(element: CreateIndex, compiler: Any, **options: Any) -> str:
    """Tables say which rows an index is of for SQLite alone: this dialect's own option would load it everywhere."""
    options_of = element.element.dialect_options
    if options_of["postgresql"]["where"] is None:
        options_of["postgresql"]["where"] = options_of["sqlite"]["where"]
    return str(compiler.visit_create_index(element, **options))


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

    def accumulate(self, table: Table, keys: Sequence[str], rows: Select[Any], merge: Merge) -> Insert:
        statement = insert(table).from_select([each.name for each in table.columns], rows)
        merged = {c.name: merge(c, statement.excluded[c.name]) for c in table.columns if c.name not in keys}
        return statement.on_conflict_do_update(index_elements=keys, set_=merged)

    async def take_turn(self, connection: AsyncConnection, name: str, *, shared: bool = False) -> None:
        number = int.from_bytes(sha256(name.encode()).digest()[:8], signed=True)
        lock = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        await connection.execute(text(f"SELECT {lock}(:number)"), {"number": number})

    def contains(self, column: ColumnElement[str], text: str) -> ColumnElement[bool]:
        return func.strpos(column, text) > 0

    def create_text_index(self, name: str) -> Sequence[str]:
        return (
            f"CREATE TABLE {name} (id BIGINT PRIMARY KEY, words TSVECTOR NOT NULL)",
            f"CREATE INDEX ix_{name}_words ON {name} USING gin (words)",
        )

    def insert_text(self, name: str) -> str:
        return f"INSERT INTO {name} (id, words) VALUES ($1, CAST($2::text AS tsvector))"

    def encode_text(self, words: Phrase) -> str:
        # past 256 places a word's are not kept, and places end at 16,383
        places: dict[str, list[str]] = {}
        for place, word in enumerate(words, 1):
            places.setdefault(word, []).append(str(place))
        return " ".join(f"'{word}':{','.join(found)}" for word, found in places.items())

    def search_texts(
        self, name: str, phrases: Sequence[Phrase], before: int | None, limit: int
    ) -> Sequence[Select[Any]]:
        expression = " & ".join("(" + " <-> ".join(f"'{word}'" for word in phrase) + ")" for phrase in phrases)
        # cast from text: a query that the parser of languages had no part in
        query = cast(expression, TSQUERY)
        id, words = column("id", BigInteger), column("words", TSVECTOR)
        texts = select(id, words).select_from(table_named(name, id, words))
        if before is not None:
            texts = texts.where(id < before)
        # the index knows no order, and the planner not how rare a word is: what is frequent is among the newest
        newest = texts.order_by(id.desc()).limit(_NEWEST_TEXTS).subquery()
        among = select(newest.c.id).where(newest.c.words.op("@@")(query)).order_by(newest.c.id.desc())
        found = texts.with_only_columns(id).where(words.op("@@")(query)).cte("found").prefix_with("MATERIALIZED")
        rare = select(found.c.id).order_by(found.c.id.desc())
        return [among.limit(limit), rare.limit(limit)]

    def delete_texts(self, name: str, ids: Sequence[int]) -> Delete:
        id = column("id", BigInteger)
        return delete(table_named(name, id)).where(id.in_(ids))

    def merge_text_index(self, name: str) -> str | None:
        return None

    async def text_index_size(self, connection: AsyncConnection, name: str) -> int:
        size = await connection.execute(text("SELECT pg_total_relation_size(CAST(:name AS regclass))"), {"name": name})
        return int(size.scalar_one())

    def byte_length(self, column: ColumnElement[str]) -> ColumnElement[int]:
        return func.octet_length(column)

    def connect_directly(self) -> DirectConnection | None:
        return None

    async def fetch(self, driver: Any, sql: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = await driver.fetch(sql, *values)
        return rows

    def survives_cancelling(self, driver: Any) -> bool:
        # the request to cancel would itself have to reach a server that just did not answer
        driver.terminate()
        return False

    async def now(self, connection: AsyncConnection) -> float | None:
        now = await connection.execute(text("SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)"))
        return float(now.scalar_one())

    async def size(self, connection: AsyncConnection) -> int:
        size = await connection.execute(text("SELECT pg_database_size(current_database())"))
        return int(size.scalar_one())

    async def reclaim(self, driver: Any, pages: int) -> int:
        """Nothing: autovacuum does it."""
        return 0
