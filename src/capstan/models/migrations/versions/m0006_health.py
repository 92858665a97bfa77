"""Drives, and what each of them went through with each cartridge."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Both begin empty: a drive is entered when it is next used."""
    op.create_table(
        "drives",
        sa.Column("serial", sa.String(64), nullable=False),
        sa.Column("library", sa.String(64), nullable=False),
        sa.Column("element", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("product", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("loads", sa.BigInteger(), nullable=False),
        sa.Column("wants_cleaning", sa.Boolean(), nullable=False),
        sa.Column("cleaned_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("serial", name="pk_drives"),
    )
    op.create_table(
        "loads",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("drive", sa.String(64), nullable=False),
        sa.Column("barcode", sa.String(32), nullable=False),
        sa.Column("job_id", sa.String(16), nullable=False),
        sa.Column("loaded_at", sa.DateTime(), nullable=False),
        sa.Column("unloaded_at", sa.DateTime(), nullable=True),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("medium", sa.Boolean(), nullable=False),
        sa.Column("state_before", sa.String(16), nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.Column("alerts", sa.JSON(), nullable=False),
        sa.Column("counters", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_loads"),
    )
    for column in ("drive", "barcode"):
        op.create_index(f"ix_loads_{column}", "loads", [column])
