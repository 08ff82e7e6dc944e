"""The table of what requests added up to, by minute and later by hour."""

from sqlalchemy import BigInteger, Column, Double, Integer, LargeBinary, Table, Text

from llmproxy.database.metadata import metadata

rollups = Table(
    "performance_rollups",
    metadata,
    # SQLite numbers rows by itself only where the type is INTEGER
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    # the span's first second, Unix; and its length: 60 or 3,600
    Column("started_at", BigInteger, nullable=False, index=True),
    Column("seconds", Integer, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("cache", Text, nullable=False),
    # several rows may tell of the same span and series, of other processes or after a restart: they add up
    Column("requests", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("upstream_seconds", Double, nullable=False),
    # packed distributions
    Column("durations", LargeBinary, nullable=False),
    Column("first_tokens", LargeBinary, nullable=False),
    Column("speeds", LargeBinary, nullable=False),
)
