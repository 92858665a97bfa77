"""Commit points of copies know which INDEX of the original they are of. Copies made before have to be made again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The names in the file index have changed with this: a rebuild brings back what was written before."""
    with op.batch_alter_table("commits", schema=None) as batch_op:
        batch_op.add_column(sa.Column("original_sha256", sa.String(64), nullable=False, server_default=""))
