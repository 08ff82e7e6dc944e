"""History: more of each exchange, summaries of users and sessions, full text; pages go by time."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_BY_ID = {f"ix_history_{column}_id": [column, "id"] for column in ("user_name", "session", "model")}
_BY_TIME = {
    f"ix_history_{column}_created_at_id": [column, "created_at", "id"] for column in ("user_name", "session", "model")
}
_SOME = {
    "ix_history_failed": (["status", "created_at", "id"], "status <> 200"),
    "ix_history_missed": (["cache", "created_at", "id"], "cache <> 'hit'"),
}
_TEXTS = {
    "sqlite": ("CREATE VIRTUAL TABLE history_texts USING fts5(words, tokenize = 'ascii')",),
    "postgresql": (
        "CREATE TABLE history_texts (id BIGINT PRIMARY KEY, words TSVECTOR NOT NULL)",
        "CREATE INDEX ix_history_texts_words ON history_texts USING gin (words)",
    ),
}


def upgrade() -> None:
    for name in _BY_ID:
        op.drop_index(name, "history")
    # SQLite puts new columns behind the bodies, where each of them costs the reading of both
    order = ("body_bytes", "detail", "request_body", "response_body")
    with op.batch_alter_table(
        "history",
        recreate="always" if op.get_bind().dialect.name == "sqlite" else "auto",
        table_kwargs={"sqlite_autoincrement": True},
        partial_reordering=[order],
    ) as batch:
        batch.add_column(sa.Column("namespace", sa.Text(), server_default="", nullable=False))
        batch.add_column(sa.Column("detail", sa.Text(), server_default="{}", nullable=False))
    for name, columns in _BY_TIME.items():
        op.create_index(name, "history", columns)
    for name, (columns, where) in _SOME.items():
        op.create_index(name, "history", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
    _summaries()
    for statement in _TEXTS[op.get_bind().dialect.name]:
        op.execute(statement)


def downgrade() -> None:
    for table in ("history_texts", "history_marks", "history_sessions", "history_users"):
        op.drop_table(table)
    for name in (*_BY_TIME, *_SOME):
        op.drop_index(name, "history")
    with op.batch_alter_table("history", table_kwargs={"sqlite_autoincrement": True}) as batch:
        batch.drop_column("detail")
        batch.drop_column("namespace")
    for name, columns in _BY_ID.items():
        op.create_index(name, "history", columns)


def _totals() -> list[sa.Column[Any]]:
    counts = ("requests", "looked_up", "hits", "errors", "prompt_tokens", "completion_tokens")
    return [
        sa.Column("first_seen", sa.Double(), nullable=False),
        sa.Column("last_seen", sa.Double(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in counts),
        sa.Column("saved_seconds", sa.Double(), nullable=False),
    ]


def _summaries() -> None:
    op.create_table(
        "history_users",
        sa.Column("user_name", sa.Text(), nullable=False),
        *_totals(),
        sa.PrimaryKeyConstraint("user_name", name="pk_history_users"),
    )
    op.create_index("ix_history_users_last_seen_user_name", "history_users", ["last_seen", "user_name"])
    op.create_table(
        "history_sessions",
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        *_totals(),
        sa.PrimaryKeyConstraint("session", "user_name", name="pk_history_sessions"),
    )
    for columns in (["last_seen", "session", "user_name"], ["user_name", "last_seen", "session"]):
        op.create_index(f"ix_history_sessions_{'_'.join(columns)}", "history_sessions", columns)
    op.create_table(
        "history_marks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seen", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_history_marks"),
    )
