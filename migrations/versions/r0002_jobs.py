"""Jobs, their items, files, and answers that can be asked for again."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TABLES = ("response_events", "stored_answers", "files", "job_results", "job_requests", "job_items", "jobs")


def upgrade() -> None:
    _jobs()
    _items()
    _files()
    _answers()


def downgrade() -> None:
    for table in _TABLES:
        op.drop_table(table)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default="", nullable=False)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)


def _id(name: str, *, numbered: bool) -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, autoincrement=numbered, nullable=False)


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        *(_text(name) for name in ("ending", "scope", "caller", "user_name", "session", "path", "model")),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double()),
        sa.Column("finalizing_at", sa.Double()),
        sa.Column("cancelling_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sa.Column("expires_at", sa.Double()),
        *(_count(name) for name in ("total", "completed", "failed", "cancelled", "expired", "hits")),
        *(_count(name) for name in ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")),
        sa.Column("headers", sa.Text(), server_default="[]", nullable=False),
        sa.Column("detail", sa.Text(), server_default="{}", nullable=False),
        *(_text(name) for name in ("error", "webhook_url")),
        sa.Column("idempotency_key", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("kind", "scope", "idempotency_key", name="uq_jobs_kind_scope_idempotency_key"),
    )
    op.create_index("ix_jobs_created_at_id", "jobs", ["created_at", "id"])
    op.create_index("ix_jobs_finished_at", "jobs", ["finished_at"])
    op.create_index("ix_jobs_kind_scope_created_at_id", "jobs", ["kind", "scope", "created_at", "id"])


def _items() -> None:
    op.create_table(
        "job_items",
        _id("id", numbered=True),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        _text("label"),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        *(_count(name) for name in ("attempts", "claims")),
        sa.Column("worker", sa.Text()),
        sa.Column("leased_until", sa.Double()),
        sa.Column("started_at", sa.Double()),
        sa.Column("finished_at", sa.Double()),
        sa.Column("ended", sa.Integer()),
        sa.PrimaryKeyConstraint("id", name="pk_job_items"),
        sa.UniqueConstraint("job_id", "step", "position", name="uq_job_items_job_id_step_position"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_job_items_job_id_ended", "job_items", ["job_id", "ended"])
    for status, columns in (("running", ["leased_until"]), ("waiting", ["priority", "id"])):
        only = sa.text(f"status = '{status}'")
        op.create_index(f"ix_job_items_{status}", "job_items", columns, sqlite_where=only, postgresql_where=only)
    op.create_table(
        "job_requests",
        _id("item_id", numbered=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("item_id", name="pk_job_requests"),
    )
    op.create_table(
        "job_results",
        _id("item_id", numbered=False),
        sa.Column("status_code", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        *(_text(name) for name in ("error", "request_id", "cache")),
        sa.Column("seconds", sa.Double(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("item_id", name="pk_job_results"),
    )


def _files() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.Text(), nullable=False),
        _text("scope"),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double()),
        sa.Column("idempotency_key", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
        sa.UniqueConstraint("scope", "idempotency_key", name="uq_files_scope_idempotency_key"),
    )
    op.create_index("ix_files_expires_at", "files", ["expires_at"])
    op.create_index("ix_files_scope_created_at_id", "files", ["scope", "created_at", "id"])


def _answers() -> None:
    op.create_table(
        "stored_answers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        *(_text(name) for name in ("scope", "model")),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double()),
        sa.Column("background", sa.Boolean(), nullable=False),
        sa.Column("stream", sa.Boolean(), nullable=False),
        _text("previous_id"),
        sa.Column("metadata", sa.Text(), server_default="{}", nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("input", sa.LargeBinary(), nullable=False),
        sa.Column("document", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("id", name="pk_stored_answers"),
    )
    op.create_index("ix_stored_answers_created_at", "stored_answers", ["created_at"])
    some = sa.text("expires_at IS NOT NULL")
    op.create_index(
        "ix_stored_answers_expires_at", "stored_answers", ["expires_at"], sqlite_where=some, postgresql_where=some
    )
    op.create_index(
        "ix_stored_answers_kind_scope_created_at_id", "stored_answers", ["kind", "scope", "created_at", "id"]
    )
    op.create_table(
        "response_events",
        sa.Column("response_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("frame", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("response_id", "number", name="pk_response_events"),
    )
