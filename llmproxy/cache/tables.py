"""Rows of the SQL tier: the entries, the log of flushes by which every process forgets, and who reads that log."""

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, SmallInteger, Table, Text
from sqlalchemy.types import TypeEngine

from llmproxy.database.metadata import metadata

#: SQLite numbers rows by itself only where the type is INTEGER
_ID: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")

entries = Table(
    "cache_entries",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    # sha256
    Column("key", LargeBinary(32), nullable=False),
    Column("operation", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    # each tag between line feeds, "" where there is none: codec.tag_text
    Column("tags", Text, nullable=False),
    # times are Unix seconds
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("used_at", Double, nullable=False),
    # bytes that the row takes in the file, with its entries in the indexes
    Column("size", BigInteger, nullable=False),
    Column("digest", LargeBinary(16), nullable=False),
    Column("format", SmallInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index(None, "key", unique=True),
    Index(None, "expires_at"),
    # the sweep adds up the tier and finds the least recently used without reading a row
    Index("ix_cache_entries_use", "used_at", "size", "created_at"),
    # a flush finds its entries without reading a row, whichever of these it asks for
    Index("ix_cache_entries_flush", "model", "namespace", "operation", "tags", "created_at"),
)

flushes = Table(
    "cache_flushes",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("selector", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    # ids are never given twice, even after old lines were deleted: processes remember how far they have read
    sqlite_autoincrement=True,
)

#: the processes that answer from a memory of their own: a flush is over when all of them have seen it
processes = Table(
    "cache_processes",
    metadata,
    # database.process_id
    Column("name", Text, primary_key=True),
    # the last line of ``cache_flushes`` that it has carried out
    Column("seen", BigInteger, nullable=False),
    # grows while it runs, where processes of other machines cannot see that it does
    Column("beat", BigInteger, nullable=False),
)
