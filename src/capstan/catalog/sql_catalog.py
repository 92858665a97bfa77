"""The catalog in an SQL database, by async SQLAlchemy. SQLite here; the other dialects differ in `_tune` only."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import delete, event, text
from sqlalchemy.exc import DatabaseError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from capstan.catalog import schema
from capstan.catalog.backup_repository import SqlBackupRepository
from capstan.catalog.catalog import Repositories
from capstan.catalog.media_repository import SqlMediaRepository
from capstan.catalog.repositories import SqlEventRepository, SqlJobRepository, get_setting, put_setting
from capstan.errors import HomeDamaged, StorageFailed
from capstan.models.rows import CartridgeRow, CommitRow, PoolRow, SegmentRow, SetRow

_BUSY_SECONDS = 60


class SqlRepositories:
    """Implements `catalog.Repositories` over one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self.jobs = SqlJobRepository(session)
        self.media = SqlMediaRepository(session)
        self.backups = SqlBackupRepository(session)
        self.events = SqlEventRepository(session)

    async def get_setting(self, key: str) -> str | None:
        return await get_setting(self._session, key)

    async def put_setting(self, key: str, value: str) -> None:
        await put_setting(self._session, key, value)


class SqlCatalog:
    """Implements `catalog.Catalog` on one SQLite file.

    WAL: readers never wait for the writer. synchronous=FULL: a transaction that has ended is on the disk. Writers of
    all processes take turns: a transaction begins with BEGIN IMMEDIATE and waits up to a minute for the one before it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine: AsyncEngine | None = None

    async def open(self) -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{self._path}", connect_args={"timeout": _BUSY_SECONDS})
        _tune(engine)
        try:
            with self._translated():
                async with engine.connect() as connection:
                    revision = await connection.run_sync(schema.present_revision)
                if revision != schema.HEAD:
                    await self._migrate(engine, revision)
        except BaseException:
            await engine.dispose()
            raise
        self._engine = engine

    async def close(self) -> None:
        if self._engine is not None:
            engine, self._engine = self._engine, None
            await engine.dispose()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Repositories]:
        with self._translated():
            async with self._session() as session:
                await session.execute(text("BEGIN IMMEDIATE"))
                yield SqlRepositories(session)
                await session.commit()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Repositories]:
        with self._translated():
            async with self._session() as session:
                await session.execute(text("BEGIN"))
                yield SqlRepositories(session)
                await session.rollback()

    async def clear(self) -> None:
        with self._translated():
            async with self._session() as session:
                await session.execute(text("BEGIN IMMEDIATE"))
                for table in (SegmentRow, CommitRow, SetRow, CartridgeRow, PoolRow):
                    await session.execute(delete(table))
                await session.commit()

    def _session(self) -> AsyncSession:
        if self._engine is None:
            raise RuntimeError("the catalog is not open")
        return AsyncSession(self._engine, expire_on_commit=False)

    async def _migrate(self, engine: AsyncEngine, revision: str | None) -> None:
        """Bring the schema up to date; an older database is copied aside first."""
        if revision is not None:
            aside = self._path.with_name(f"{self._path.name}.before-{schema.HEAD}")
            async with engine.connect() as connection:
                await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
            shutil.copyfile(self._path, aside)
        async with engine.connect() as connection:
            await connection.execute(text("BEGIN IMMEDIATE"))
            await connection.run_sync(schema.upgrade, name=str(self._path))
            await connection.commit()

    def _translated(self) -> _Translated:
        return _Translated(self._path)


class _Translated:
    """Makes errors of the database file errors of the home; whatever else is raised inside goes through."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        original = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(original, sqlite3.DatabaseError):
            code = getattr(original, "sqlite_errorname", "") or ""
            if code.startswith(("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_PERM")):
                raise StorageFailed(path=self._path, reason=str(original)) from error
            if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")):
                raise HomeDamaged(path=self._path, reason=str(original)) from error
        elif isinstance(error, DatabaseError):
            raise HomeDamaged(path=self._path, reason=str(error)) from error


def _tune(engine: AsyncEngine) -> None:
    """Set each new connection up. Transactions are begun by us, not by the driver."""

    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    listen: Callable[..., Any] = event.listen
    listen(engine.sync_engine, "connect", connected)
