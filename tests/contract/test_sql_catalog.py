"""The SQL catalog on SQLite keeps the catalog's promises, and its own about its file."""

from __future__ import annotations

import asyncio
import inspect
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.dialects import sqlite

from capstan.catalog import schema
from capstan.catalog.sql_catalog import SqlCatalog
from capstan.errors import HomeDamaged, HomeTooNew, InUse, StorageFailed
from capstan.models.rows import Row, UtcDateTime
from capstan.testing.catalog_contract import CatalogContract


def with_catalogs(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[[Any, Path], None]:
    """Run an asynchronous promise with one or two catalogs open on the same file."""

    def run(self: Any, tmp_path: Path) -> None:
        async def body() -> None:
            catalogs = {name: SqlCatalog(tmp_path / "catalog.db") for name in ("catalog", "second")}
            wanted = {name: catalogs[name] for name in inspect.signature(test).parameters if name in catalogs}
            for catalog in wanted.values():
                await catalog.open()
            try:
                await test(self, **wanted)
            finally:
                for catalog in wanted.values():
                    await catalog.close()

        asyncio.run(body())

    run.__doc__ = test.__doc__
    return run


TestSqlCatalog = type(
    "TestSqlCatalog",
    (),
    {name: with_catalogs(member) for name, member in vars(CatalogContract).items() if name.startswith("test_")},
)


def opened(path: Path) -> None:
    """Open the catalog at `path` and close it."""

    async def body() -> None:
        catalog = SqlCatalog(path)
        await catalog.open()
        await catalog.close()

    asyncio.run(body())


def test_models_and_migrations_agree() -> None:
    """A database made by the migrations is what the rows say, and HEAD is their last step."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        schema.upgrade(connection)
        assert compare_metadata(MigrationContext.configure(connection), Row.metadata) == []
    assert ScriptDirectory(str(schema._SCRIPTS)).get_heads() == [schema.HEAD]


def test_every_transaction_is_on_the_disk(tmp_path: Path) -> None:
    """synchronous=FULL and write-ahead logging are on, on every connection."""

    async def body() -> None:
        catalog = SqlCatalog(tmp_path / "catalog.db")
        await catalog.open()
        assert catalog._engine is not None
        async with catalog._engine.connect() as connection:
            for pragma, value in (("synchronous", 2), ("journal_mode", "wal"), ("foreign_keys", 1)):
                assert (await connection.exec_driver_sql(f"PRAGMA {pragma}")).scalar() == value
        await catalog.close()

    asyncio.run(body())


def test_a_newer_home_is_refused_and_left_alone(tmp_path: Path) -> None:
    """An older program changes nothing in what a newer one wrote."""
    path = tmp_path / "catalog.db"
    opened(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(HomeTooNew, match="9999"):
        opened(path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


THIS = schema.HEAD
NEXT_STEP = f"""
from alembic import op
import sqlalchemy as sa
revision, down_revision, branch_labels, depends_on = "9000", "{THIS}", None, None
def upgrade():
    op.add_column("pools", sa.Column("colour", sa.Text(), nullable=True))
"""


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The next version of the program: its schema has one more step. Returns the file of that step."""
    scripts = tmp_path / "100% new migrations"
    shutil.copytree(schema._SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    step = scripts / "versions" / "m9000_colours.py"
    step.write_text(NEXT_STEP)
    monkeypatch.setattr(schema, "_SCRIPTS", scripts)
    monkeypatch.setattr(schema, "HEAD", "9000")
    return step


def old_home(folder: Path) -> Path:
    """A catalog of this version with one setting in it."""
    path = folder / "catalog.db"
    with closing(sqlite3.connect(path)) as connection:
        engine = create_engine("sqlite://", creator=lambda: connection)
        with engine.begin() as inside:
            MigrationContext.configure(inside).stamp(ScriptDirectory(str(schema._SCRIPTS)), THIS)
            Row.metadata.create_all(inside)
            inside.exec_driver_sql("INSERT INTO settings VALUES ('colour', 'red')")
        connection.commit()
    return path


def columns_of(path: Path) -> list[str]:
    """The columns of the pools of a database."""
    with closing(sqlite3.connect(path)) as connection:
        return [row[1] for row in connection.execute("PRAGMA table_info(pools)")]


def test_sets_of_the_first_version(tmp_path: Path) -> None:
    """They are taken for such that left nothing out."""
    path = tmp_path / "catalog.db"
    columns = "id number name type state created_at sources parent_id job_id host pool codec container files bytes"
    columns += " stored_bytes warning_count cartridges missing"
    values = ["s", 1, "n", "full", "complete", "2026-01-01 00:00:00", '["/a"]', *[""] * 6, *[0] * 4, "[]", "[]"]
    with closing(sqlite3.connect(path)) as connection:
        engine = create_engine("sqlite://", creator=lambda: connection)
        with engine.begin() as inside:
            schema.upgrade(inside, "0001")
            marks = ", ".join("?" * len(values))
            inside.exec_driver_sql(f"INSERT INTO sets ({columns.replace(' ', ', ')}) VALUES ({marks})", tuple(values))
        connection.commit()

    async def body() -> None:
        catalog = SqlCatalog(path)
        await catalog.open()
        async with catalog.snapshot() as inside:
            found = await inside.backups.get("s")
        await catalog.close()
        assert (found.sources, found.excludes, found.one_file_system) == (["/a"], [], False)

    asyncio.run(body())


def test_an_older_home_is_set_aside_and_migrated(tmp_path: Path, next_version: Path) -> None:
    """Everything is still there afterwards, and so is a whole copy of the home as it was."""
    path = old_home(tmp_path)
    opened(path)
    aside = tmp_path / "catalog.db.before-9000"
    assert "colour" in columns_of(path)
    assert "colour" not in columns_of(aside)
    for file in (path, aside):
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("SELECT * FROM settings").fetchall() == [("colour", "red")]
    assert not list(tmp_path.glob("*.new"))


def test_a_step_that_fails_leaves_the_home_as_it_was(tmp_path: Path, next_version: Path) -> None:
    """The steps of a migration are one transaction: there is no half-migrated home."""
    path = old_home(tmp_path)
    next_version.write_text(NEXT_STEP + '    op.execute("INSERT INTO nowhere VALUES (1)")\n')
    with pytest.raises(HomeDamaged, match="nowhere"):
        opened(path)
    assert "colour" not in columns_of(path)
    next_version.write_text(NEXT_STEP)
    opened(path)
    assert "colour" in columns_of(path)


def test_a_path_is_only_a_path(tmp_path: Path) -> None:
    """Characters that mean something in a URL mean nothing in the name of a home."""
    folder = tmp_path / "a?b=c#d %20 é"
    folder.mkdir()
    opened(folder / "catalog.db")
    assert (folder / "catalog.db").exists()
    assert [file.name for file in tmp_path.iterdir()] == [folder.name]


def test_storage_that_refuses_is_named(tmp_path: Path) -> None:
    """A folder that is not there, and a disk that is full, are trouble with the storage, not damage."""
    with pytest.raises(StorageFailed, match=r"nowhere/catalog\.db"):
        opened(tmp_path / "nowhere" / "catalog.db")

    async def body() -> None:
        catalog = SqlCatalog(tmp_path / "catalog.db")
        await catalog.open()
        assert catalog._engine is not None
        async with catalog._engine.connect() as connection:
            await connection.exec_driver_sql("PRAGMA max_page_count=1")  # the present size is the least it takes
        with pytest.raises(StorageFailed, match="full"):
            async with catalog.transaction() as inside:
                await inside.put_setting("long", "x" * 1_000_000)
        async with catalog.snapshot() as view:
            assert await view.get_setting("long") is None
        await catalog.close()

    asyncio.run(body())


def test_a_page_that_is_damaged_is_found_when_it_is_read(tmp_path: Path) -> None:
    """Also where the file opens well."""
    path = tmp_path / "catalog.db"
    opened(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO settings VALUES ('a', '1')")
        connection.commit()
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        root = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'settings'").fetchone()[0]
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)

    async def body() -> None:
        catalog = SqlCatalog(path)
        await catalog.open()
        try:
            async with catalog.snapshot() as view:
                await view.get_setting("a")
        finally:
            await catalog.close()

    with pytest.raises(HomeDamaged, match=r"catalog\.db"):
        asyncio.run(body())


@pytest.mark.slow
def test_who_waits_too_long_hears_why(tmp_path: Path) -> None:
    """A writer that never ends makes another give up with a clear error; reading goes on."""

    async def body() -> None:
        holder, waiter = (SqlCatalog(tmp_path / "catalog.db", busy_seconds=0) for _ in range(2))
        await holder.open()
        await waiter.open()
        async with holder.transaction():
            with pytest.raises(InUse, match=r"catalog\.db"):
                async with waiter.transaction():
                    pass
            async with waiter.snapshot() as view:
                assert not await view.jobs.list()
        await holder.close()
        await waiter.close()

    asyncio.run(body())


def test_a_moment_without_a_zone_is_refused(tmp_path: Path) -> None:
    """The catalog never guesses which moment is meant; other zones are the same moment in UTC."""
    with pytest.raises(ValueError, match="no time zone"):
        UtcDateTime().process_bind_param(datetime(2026, 1, 1), sqlite.dialect())  # noqa: DTZ001
    east = datetime(2026, 1, 1, 8, tzinfo=timezone(timedelta(hours=8)))
    assert UtcDateTime().process_bind_param(east, sqlite.dialect()) == datetime(2026, 1, 1)  # noqa: DTZ001


OTHER_PROCESS = """
import asyncio, os, sys
from pathlib import Path
from capstan.catalog.sql_catalog import SqlCatalog

async def body():
    catalog = SqlCatalog(Path(sys.argv[1]))
    await catalog.open()
    assert not any(name.startswith("alembic") for name in sys.modules) or sys.argv[2] == "open"
    if sys.argv[2] == "open":
        await catalog.close()
        return
    async with catalog.transaction() as inside:
        await inside.put_setting("ended", "yes")
    async with catalog.transaction() as inside:
        await inside.put_setting("begun", "yes")
        print("writing", flush=True)
        sys.stdin.readline()
        os.kill(os.getpid(), 9)

asyncio.run(body())
"""


def other_process(path: Path, what: str) -> subprocess.Popen[str]:
    """A process of its own that opens the catalog at `path`."""
    return subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, str(path), what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_many_may_open_a_new_home_at_once(tmp_path: Path) -> None:
    """One makes the schema, the others wait for it; none fails."""
    processes = [other_process(tmp_path / "catalog.db", "open") for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert [file.name for file in tmp_path.iterdir()] == ["catalog.db"]


def test_a_process_that_is_killed_leaves_what_it_ended_and_nothing_else(tmp_path: Path) -> None:
    """While it writes others read; after kill -9 an ended transaction is there, one in the middle is not, and the next
    writer need not wait. Opening a home that is up to date does not import Alembic."""
    path = tmp_path / "catalog.db"
    opened(path)
    with other_process(path, "write") as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "writing\n"

        async def body() -> None:
            catalog = SqlCatalog(path, busy_seconds=5)
            await catalog.open()
            async with catalog.snapshot() as view:
                assert (await view.get_setting("ended"), await view.get_setting("begun")) == ("yes", None)
            writer.communicate("\n", timeout=60)
            assert writer.returncode == -9
            async with catalog.transaction() as inside:
                assert (await inside.get_setting("ended"), await inside.get_setting("begun")) == ("yes", None)
            await catalog.close()

        asyncio.run(body())


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """The operator hears which file, and that the tapes hold everything."""
    path = tmp_path / "catalog.db"
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(HomeDamaged, match=r"catalog\.db") as caught:
        opened(path)
    assert "rebuild" in caught.value.hint_text
