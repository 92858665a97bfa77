"""Sets may be sealed, for the recipients of their pool."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing that is there already is sealed."""
    with op.batch_alter_table("pools", schema=None) as batch_op:
        batch_op.add_column(sa.Column("recipients", sa.JSON(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("drive_key", sa.String(16), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("require_escrow", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("blocked", sa.Text(), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("verify_writes", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("sets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("encryption", sa.String(16), nullable=False, server_default="none"))
        batch_op.add_column(sa.Column("recipients", sa.JSON(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("keys", sa.JSON(), nullable=False, server_default="[]"))
    with op.batch_alter_table("commits", schema=None) as batch_op:
        batch_op.add_column(sa.Column("locked", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("segments", schema=None) as batch_op:
        batch_op.add_column(sa.Column("age_beginning", sa.Text(), nullable=False, server_default=""))
