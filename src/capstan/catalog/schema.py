"""The schema's version: what this program expects, what a database has, and the way from one to the other."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from capstan.errors import HomeTooNew

HEAD = "0006"  # the newest revision; a test compares it with the migrations

_SCRIPTS = Path(__file__).parent.parent / "models" / "migrations"


def present_revision(connection: Connection) -> str | None:
    """The revision of the database, None when it is empty. Two small queries, without Alembic: asked at each start."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def check_known(revision: str | None, *, name: str) -> None:
    """HomeTooNew when this program has no step that leads to `revision`: a newer one wrote the database `name`."""
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory(str(_SCRIPTS)).walk_revisions()}
    if revision is not None and revision not in known:
        raise HomeTooNew(path=name, version=revision)


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the database to a revision, by default the newest, within the transaction that `connection` is in.
    The caller commits."""
    # Alembic takes a while to import, and only a home that is new or old needs it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    # Alembic's configuration is an INI file at heart: a percent sign in the path would be taken for a reference.
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
