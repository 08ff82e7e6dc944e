"""The table of exchanges."""

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, Table, Text
from sqlalchemy.types import TypeEngine

from llmproxy.database.metadata import metadata

#: SQLite numbers rows by itself only where the type is INTEGER
_ID: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


history = Table(
    "history",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    _text("request_id"),
    # times are Unix seconds
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double, nullable=False),
    _text("user_name"),
    _text("session"),
    _text("caller"),
    _text("endpoint"),
    _text("method"),
    _text("path"),
    _text("model"),
    _text("upstream"),
    Column("status", Integer, nullable=False),
    _text("cache"),
    _text("reason"),
    _text("stored"),
    # hex, "" where there is none
    _text("cache_key"),
    Column("stream", Boolean, nullable=False),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("queue_seconds", Double),
    Column("first_token_seconds", Double),
    Column("total_seconds", Double, nullable=False),
    Column("upstream_seconds", Double),
    _text("error"),
    Column("request_body", LargeBinary),
    Column("response_body", LargeBinary),
    # of both bodies as they are kept, that is after they were cut
    Column("body_bytes", Integer, nullable=False),
    Index(None, "request_id"),
    # the second column makes pages in the order of ids possible within one user, session or model
    Index(None, "created_at", "id"),
    Index(None, "user_name", "id"),
    Index("ix_history_session_id", "session", "id"),
    Index(None, "model", "id"),
    # ids are never given twice: retention works with the order of ids
    sqlite_autoincrement=True,
)
