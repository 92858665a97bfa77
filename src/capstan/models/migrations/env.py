"""Alembic's entry: runs the steps on the connection that `catalog.schema` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from capstan.models.rows import Row

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Row.metadata,
    render_as_batch=True,  # SQLite changes a table by copying it
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
