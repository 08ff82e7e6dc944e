"""The first schema: cache, history, identities of models."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _cache()
    _history()
    op.create_table(
        "model_identities",
        sa.Column("upstream", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("upstream", "model", name="pk_model_identities"),
    )


def downgrade() -> None:
    for table in ("model_identities", "history", "cache_flushes", "cache_entries"):
        op.drop_table(table)


def _id() -> sa.Column[int]:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("id", number, autoincrement=True, nullable=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False, server_default="")


def _cache() -> None:
    op.create_table(
        "cache_entries",
        _id(),
        sa.Column("key", sa.LargeBinary(32), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(16), nullable=False),
        sa.Column("format", sa.SmallInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cache_entries"),
    )
    op.create_index("ix_cache_entries_key", "cache_entries", ["key"], unique=True)
    op.create_index("ix_cache_entries_expires_at", "cache_entries", ["expires_at"])
    op.create_index("ix_cache_entries_use", "cache_entries", ["used_at", "size", "created_at"])
    columns = ["model", "namespace", "operation", "tags", "created_at"]
    op.create_index("ix_cache_entries_flush", "cache_entries", columns)
    op.create_table(
        "cache_flushes",
        _id(),
        sa.Column("selector", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cache_flushes"),
        sqlite_autoincrement=True,
    )


def _history() -> None:
    op.create_table(
        "history",
        _id(),
        _text("request_id"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=False),
        _text("user_name"),
        _text("session"),
        _text("caller"),
        _text("endpoint"),
        _text("method"),
        _text("path"),
        _text("model"),
        _text("upstream"),
        sa.Column("status", sa.Integer(), nullable=False),
        _text("cache"),
        _text("reason"),
        _text("stored"),
        _text("cache_key"),
        sa.Column("stream", sa.Boolean(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer()),
        sa.Column("completion_tokens", sa.Integer()),
        sa.Column("queue_seconds", sa.Double()),
        sa.Column("first_token_seconds", sa.Double()),
        sa.Column("total_seconds", sa.Double(), nullable=False),
        sa.Column("upstream_seconds", sa.Double()),
        _text("error"),
        sa.Column("request_body", sa.LargeBinary()),
        sa.Column("response_body", sa.LargeBinary()),
        sa.Column("body_bytes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_history"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_history_request_id", "history", ["request_id"])
    op.create_index("ix_history_created_at_id", "history", ["created_at", "id"])
    op.create_index("ix_history_user_name_id", "history", ["user_name", "id"])
    op.create_index("ix_history_session_id", "history", ["session", "id"])
    op.create_index("ix_history_model_id", "history", ["model", "id"])
