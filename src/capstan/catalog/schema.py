"""The schema's version: what this program expects, what a database has, and the way from one to the other."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from capstan.errors import HomeTooNew

HEAD = "0001"  # the newest revision; a test compares it with the migrations

_SCRIPTS = Path(__file__).parent.parent / "models" / "migrations"


def present_revision(connection: Connection) -> str | None:
    """The revision of the database, None when it is empty. One query, without Alembic: it is asked at each start."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(connection: Connection, *, name: str) -> None:
    """Bring the database to `HEAD`. HomeTooNew when it is ahead of this program: then nothing was changed."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["connection"] = connection
    revision = present_revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise HomeTooNew(path=name, version=revision)
    command.upgrade(config, "head")
