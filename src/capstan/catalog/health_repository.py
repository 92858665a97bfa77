"""Drives and loads in SQL."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from capstan.catalog.mapping import to_columns, to_value
from capstan.core.health import Drive, DriveState, Load
from capstan.core.suggest import not_found
from capstan.models.rows import DriveRow, LoadRow


class SqlHealthRepository:
    """Implements `catalog.HealthRepository`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get_drive(self, serial: str) -> Drive:
        drive = await self.find_drive(serial)
        if drive is None:
            known = await self._session.scalars(select(DriveRow.serial))
            raise not_found("drive", serial, known, "`capstan drive list` lists all that were used")
        return drive

    async def find_drive(self, serial: str) -> Drive | None:
        row = await self._session.get(DriveRow, serial)
        return None if row is None else _drive(row)

    async def list_drives(self, *, library: str | None = None) -> Sequence[Drive]:
        query = select(DriveRow).order_by(DriveRow.library, DriveRow.element, DriveRow.serial)
        if library is not None:
            query = query.where(DriveRow.library == library)
        return [_drive(row) for row in await self._session.scalars(query)]

    async def save_drive(self, drive: Drive) -> None:
        await self._session.merge(DriveRow(**to_columns(drive, DriveRow)))
        await self._session.flush()

    async def save_load(self, load: Load) -> None:
        await self._session.merge(LoadRow(**to_columns(load, LoadRow)))
        await self._session.flush()

    async def list_loads(
        self, *, drive: str | None = None, barcode: str | None = None, failed: bool = False, limit: int | None = None
    ) -> Sequence[Load]:
        query = select(LoadRow).order_by(LoadRow.loaded_at.desc(), LoadRow.id.desc()).limit(limit)
        wanted = [LoadRow.drive == drive] * (drive is not None) + [LoadRow.barcode == barcode] * (barcode is not None)
        if wanted:
            query = query.where(or_(*wanted))
        if failed:
            query = query.where(LoadRow.code != "", LoadRow.settled.is_(False))
        return [to_value(Load, row) for row in await self._session.scalars(query)][::-1]


def _drive(row: DriveRow) -> Drive:
    return to_value(Drive, row, {"state": DriveState})
