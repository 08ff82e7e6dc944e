"""The tables of exchanges, of their totals by user, session and key, and of the projectors' checkpoints."""

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, Table, Text, text
from sqlalchemy.types import TypeEngine

from llmproxy.database.metadata import TEXTS, metadata

#: SQLite numbers rows by itself only where the type is INTEGER
_ID: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")

#: the full-text index of prompts and answers; its ids are those of the exchanges
HISTORY_TEXTS = "history_texts"
metadata.info[TEXTS] = (HISTORY_TEXTS,)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


def _partial(name: str, *columns: str, where: str) -> Index:
    return Index(name, *columns, sqlite_where=text(where))


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
    _text("namespace"),
    Column("stream", Boolean, nullable=False),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("queue_seconds", Double),
    Column("first_token_seconds", Double),
    Column("total_seconds", Double, nullable=False),
    Column("upstream_seconds", Double),
    _text("error"),
    # of both bodies as they are kept, that is after they were cut
    Column("body_bytes", Integer, nullable=False),
    # JSON, see ``record.Recorder``
    Column("detail", Text, nullable=False, server_default="{}"),
    # last: whoever reads a column behind a long one reads the long one too
    Column("request_body", LargeBinary),
    Column("response_body", LargeBinary),
    Index(None, "request_id"),
    # pages go by time and id, within one user, session or model too
    Index(None, "created_at", "id"),
    Index(None, "user_name", "created_at", "id"),
    Index("ix_history_session_created_at_id", "session", "created_at", "id"),
    Index(None, "model", "created_at", "id"),
    # what most rows have in common is found quickly without an index
    _partial("ix_history_failed", "status", "created_at", "id", where="status <> 200"),
    _partial("ix_history_missed", "cache", "created_at", "id", where="cache <> 'hit'"),
    # ids are never given twice: retention works with the order of ids
    sqlite_autoincrement=True,
)


def _totals() -> tuple[Column[float], ...]:
    """Columns that sum up exchanges. Columns cannot be shared by tables."""
    return (
        Column("first_seen", Double, nullable=False),
        Column("last_seen", Double, nullable=False),
        Column("requests", BigInteger, nullable=False),
        Column("looked_up", BigInteger, nullable=False),
        Column("hits", BigInteger, nullable=False),
        Column("errors", BigInteger, nullable=False),
        Column("prompt_tokens", BigInteger, nullable=False),
        Column("completion_tokens", BigInteger, nullable=False),
        Column("saved_seconds", Double, nullable=False),
    )


#: one row for each user; "" is those who are unknown
users = Table(
    "history_users",
    metadata,
    Column("user_name", Text, primary_key=True),
    *_totals(),
    Index(None, "last_seen", "user_name"),
)

#: one row for each session of each user; exchanges without a session have none
sessions = Table(
    "history_sessions",
    metadata,
    Column("session", Text, primary_key=True),
    Column("user_name", Text, primary_key=True),
    *_totals(),
    Index(None, "last_seen", "session", "user_name"),
    Index(None, "user_name", "last_seen", "session"),
)

#: one row for each key of the cache that was asked for
keys = Table(
    "history_keys",
    metadata,
    Column("cache_key", Text, primary_key=True),
    Column("hits", BigInteger, nullable=False),
    Column("last_seen", Double, nullable=False),
    # the newest exchange with this key
    Column("exchange", BigInteger, nullable=False),
    Index(None, "last_seen", "cache_key"),
)

#: the highest id that has been summed up, and that has been indexed
marks = Table(
    "history_marks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("seen", BigInteger, nullable=False),
)
