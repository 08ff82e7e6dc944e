"""Totals by key of the cache: what its entries answer, and how often they did."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "history_keys",
        sa.Column("cache_key", sa.Text(), nullable=False),
        sa.Column("hits", sa.BigInteger(), nullable=False),
        sa.Column("last_seen", sa.Double(), nullable=False),
        sa.Column("exchange", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("cache_key", name="pk_history_keys"),
    )
    op.create_index("ix_history_keys_last_seen_cache_key", "history_keys", ["last_seen", "cache_key"])


def downgrade() -> None:
    op.drop_table("history_keys")
