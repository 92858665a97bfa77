"""The SQL catalog on SQLite keeps the catalog's promises, and its own about its file."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from capstan.catalog import schema
from capstan.catalog.sql_catalog import SqlCatalog
from capstan.errors import HomeDamaged, HomeTooNew
from capstan.models.rows import Row
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
        schema.upgrade(connection, name="x")
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
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(HomeTooNew, match="9999"):
        opened(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """The operator hears which file, and that the tapes hold everything."""
    path = tmp_path / "catalog.db"
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(HomeDamaged, match=r"catalog\.db") as caught:
        opened(path)
    assert "rebuild" in caught.value.hint_text
