"""Sets know what of their sources was left out, and which file systems they were made of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Older sets are taken for such that left nothing out; no set can build on one."""
    with op.batch_alter_table("sets", schema=None) as batch_op:
        batch_op.add_column(sa.Column("excludes", sa.JSON(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("one_file_system", sa.Boolean(), nullable=False, server_default=sa.false()))
        batch_op.add_column(sa.Column("mounts", sa.JSON(), nullable=False, server_default="[]"))
