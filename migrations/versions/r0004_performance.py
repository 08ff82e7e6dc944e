"""What requests added up to, by minute and by hour."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "performance_rollups",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("endpoint", "model", "cache")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("requests", "errors")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("prompt_tokens", "completion_tokens")),
        sa.Column("upstream_seconds", sa.Double(), nullable=False),
        *(sa.Column(name, sa.LargeBinary(), nullable=False) for name in ("durations", "first_tokens", "speeds")),
        sa.PrimaryKeyConstraint("id", name="pk_performance_rollups"),
    )
    op.create_index("ix_performance_rollups_started_at", "performance_rollups", ["started_at"])


def downgrade() -> None:
    op.drop_table("performance_rollups")
