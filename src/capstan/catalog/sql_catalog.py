"""The catalog in an SQL database, by async SQLAlchemy. SQLite here; the other dialects differ in `_tune` only."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL, delete, event, text
from sqlalchemy.exc import DatabaseError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from capstan.catalog import schema
from capstan.catalog.backup_repository import SqlBackupRepository
from capstan.catalog.catalog import Repositories
from capstan.catalog.health_repository import SqlHealthRepository
from capstan.catalog.media_repository import SqlMediaRepository
from capstan.catalog.repositories import SqlEventRepository, SqlJobRepository, get_setting, put_setting
from capstan.durable_files import sync_folder
from capstan.errors import HomeDamaged, InUse, StorageFailed
from capstan.models.rows import CartridgeRow, CommitRow, PoolRow, SegmentRow, SetRow

_BUSY_SECONDS = 60


class SqlRepositories:
    """Implements `catalog.Repositories` over one session."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self.jobs = SqlJobRepository(session)
        self.media = SqlMediaRepository(session)
        self.health = SqlHealthRepository(session)
        self.backups = SqlBackupRepository(session)
        self.events = SqlEventRepository(session)

    async def get_setting(self, key: str) -> str | None:
        return await get_setting(self._session, key)

    async def put_setting(self, key: str, value: str) -> None:
        await put_setting(self._session, key, value)


class SqlCatalog:
    """Implements `catalog.Catalog` on one SQLite file.

    WAL: readers never wait for the writer. synchronous=FULL: a transaction that has ended is on the disk. Writers of
    all processes take turns: a transaction begins with BEGIN IMMEDIATE and waits up to `busy_seconds` for the one
    before it, then raises InUse.
    """

    def __init__(self, path: Path, *, busy_seconds: float = _BUSY_SECONDS) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._engine: AsyncEngine | None = None

    async def open(self) -> None:
        url = URL.create("sqlite+aiosqlite", database=str(self._path))  # in text, a `?` in the path would end it
        engine = create_async_engine(url, connect_args={"timeout": self._busy_seconds})
        _tune(engine)
        try:
            with self._translated():
                # A file that cannot be opened is found here: in aiosqlite it would leave a thread behind that
                # speaks to the event loop after that is closed.
                await asyncio.to_thread(lambda: sqlite3.connect(self._path).close())
                async with engine.connect() as connection:
                    revision = await connection.run_sync(schema.present_revision)
                if revision != schema.HEAD:
                    await self._migrate(engine)
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
                await SqlBackupRepository(session).remember_numbers()
                for table in (SegmentRow, CommitRow, SetRow, CartridgeRow, PoolRow):
                    await session.execute(delete(table))
                await session.commit()

    def _session(self) -> AsyncSession:
        if self._engine is None:
            raise RuntimeError("the catalog is not open")
        return AsyncSession(self._engine, expire_on_commit=False)

    async def _migrate(self, engine: AsyncEngine) -> None:
        """Bring the schema up to date; an older database is copied aside first. All of it happens or nothing."""
        async with engine.connect() as connection:
            await connection.execute(text("BEGIN IMMEDIATE"))
            revision = await connection.run_sync(schema.present_revision)
            if revision == schema.HEAD:
                return  # another process was faster
            schema.check_known(revision, name=str(self._path))
            if revision is not None:
                aside = self._path.with_name(f"{self._path.name}.before-{schema.HEAD}")
                await asyncio.to_thread(_copy_aside, self._path, aside)
            await connection.run_sync(schema.upgrade)
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
            if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise InUse(what=f"the catalog {self._path}", pid="unknown") from error
            if code.startswith(("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_PERM")):
                raise StorageFailed(path=self._path, reason=str(original)) from error
            if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")):
                raise HomeDamaged(path=self._path, reason=str(original)) from error
        elif isinstance(error, DatabaseError):
            raise HomeDamaged(path=self._path, reason=str(error)) from error


def _copy_aside(path: Path, aside: Path) -> None:
    """Make `aside` a whole and durable copy of the database at `path`, which nobody writes to meanwhile."""
    temporary = aside.with_name(f"{aside.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        # The write-ahead log belongs to the database: SQLite's own copy has what is still in it.
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(temporary)) as target:
            source.backup(target)
        temporary.replace(aside)
        sync_folder(aside.parent)
    except OSError as error:
        raise StorageFailed(path=aside, reason=error.strerror or str(error)) from error


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
