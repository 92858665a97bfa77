"""Commit points and segments know which copy of their set they belong to, and pools where their sets are copied to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What is there already is what backups wrote."""
    with op.batch_alter_table("pools", schema=None) as batch_op:
        batch_op.add_column(sa.Column("copy_pool", sa.String(64), nullable=False, server_default=""))
    for table in ("commits", "segments"):
        with op.batch_alter_table(table, schema=None) as batch_op:
            batch_op.add_column(sa.Column("copy", sa.BigInteger(), nullable=False, server_default="0"))
