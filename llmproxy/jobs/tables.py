"""The tables of jobs and their items, of files, and of answers that can be asked for again. Times are Unix seconds.

An item's row is small and changes often; its request and its result stand in tables of their own, which are written
once. That an item has one result at most is held by the result's primary key.
"""

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, Table, Text, UniqueConstraint
from sqlalchemy.types import TypeEngine

from llmproxy.database.metadata import metadata

#: SQLite numbers rows by itself only if the type is INTEGER
_ID: TypeEngine[int] = BigInteger().with_variant(Integer(), "sqlite")


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    # states.JobKind, states.JobStatus
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    # what the status will be once the last step is done; "" while that is open
    _text("ending"),
    # whose it is, here and below: wire.exchange.Caller.owner
    _text("scope"),
    _text("caller"),
    _text("user_name"),
    _text("session"),
    # the path that its items call
    _text("path"),
    _text("model"),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finalizing_at", Double),
    Column("cancelling_at", Double),
    Column("finished_at", Double),
    Column("expires_at", Double),
    # calls: how many there are, and how many ended in which way
    _count("total"),
    _count("completed"),
    _count("failed"),
    _count("cancelled"),
    _count("expired"),
    # of the completed ones: how many the cache answered, and the tokens of all
    _count("hits"),
    _count("prompt_tokens"),
    _count("completion_tokens"),
    _count("cached_tokens"),
    _count("reasoning_tokens"),
    # JSON: the headers that speak to the cache, as [[name, value], ...]
    Column("headers", Text, nullable=False, server_default="[]"),
    # JSON: what only this kind of job knows
    Column("detail", Text, nullable=False, server_default="{}"),
    # JSON: why it failed as a whole
    _text("error"),
    _text("webhook_url"),
    Column("idempotency_key", Text),
    UniqueConstraint("kind", "scope", "idempotency_key"),
    Index(None, "kind", "scope", "created_at", "id"),
    Index(None, "created_at", "id"),
    Index(None, "finished_at"),
)

items = Table(
    "job_items",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("job_id", Text, nullable=False),
    # states.Step, states.ItemStatus
    Column("step", Text, nullable=False),
    Column("position", Integer, nullable=False),
    # the caller's own name for it
    _text("label"),
    Column("status", Text, nullable=False),
    # lower goes first
    Column("priority", Integer, nullable=False),
    Column("due_at", Double, nullable=False),
    # tries that ended in a failure or an answer
    _count("attempts"),
    # how often it was claimed: with the worker's name, what a result must show to count
    _count("claims"),
    Column("worker", Text),
    Column("leased_until", Double),
    Column("started_at", Double),
    Column("finished_at", Double),
    # it was the so-many'th of its job to end
    Column("ended", Integer),
    UniqueConstraint("job_id", "step", "position"),
    Index("ix_job_items_job_id_ended", "job_id", "ended"),
    # ids are never given twice
    sqlite_autoincrement=True,
)
# of what is over nothing is looked for: the indexes hold only what waits and what runs
Index(
    "ix_job_items_waiting",
    items.c.priority,
    items.c.id,
    sqlite_where=items.c.status == "waiting",
)
Index(
    "ix_job_items_running",
    items.c.leased_until,
    sqlite_where=items.c.status == "running",
)

requests = Table(
    "job_requests",
    metadata,
    Column("item_id", _ID, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
)

results = Table(
    "job_results",
    metadata,
    Column("item_id", _ID, primary_key=True, autoincrement=False),
    # the HTTP status of the answer, 0 if there was none
    Column("status_code", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    # JSON {"code", "message"}: why there is no answer
    _text("error"),
    _text("request_id"),
    # wire.vocabulary.CacheStatus
    _text("cache"),
    Column("seconds", Double, nullable=False, server_default="0"),
)

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    _text("scope"),
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    # hex
    Column("sha256", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("idempotency_key", Text),
    UniqueConstraint("scope", "idempotency_key"),
    Index(None, "scope", "created_at", "id"),
    Index(None, "expires_at"),
)

stored = Table(
    "stored_answers",
    metadata,
    Column("id", Text, primary_key=True),
    # "response" or "chat"
    Column("kind", Text, nullable=False),
    _text("scope"),
    _text("model"),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("background", Boolean, nullable=False),
    # whether it was asked for as a stream
    Column("stream", Boolean, nullable=False),
    # the Response before it in the conversation
    _text("previous_id"),
    # JSON: the caller's labels, of chat completions
    Column("metadata", Text, nullable=False, server_default="{}"),
    # JSON: the request as it came; its own input items or messages, with ids
    Column("request", LargeBinary, nullable=False),
    Column("input", LargeBinary, nullable=False),
    # JSON: the answer; NULL while it is being made
    Column("document", LargeBinary),
    Index(None, "kind", "scope", "created_at", "id"),
    Index(None, "created_at"),
)

events = Table(
    "response_events",
    metadata,
    Column("response_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("frame", LargeBinary, nullable=False),
)

# few expire before the retention takes them
Index(
    "ix_stored_answers_expires_at",
    stored.c.expires_at,
    sqlite_where=stored.c.expires_at.is_not(None),
)
