"""Pools and cartridges in SQL."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from capstan.catalog.mapping import to_columns, to_value
from capstan.core.media import Cartridge, CartridgeState, Pool
from capstan.core.suggest import not_found
from capstan.errors import AlreadyExists
from capstan.models.rows import CartridgeRow, PoolRow


class SqlMediaRepository:
    """Implements `catalog.MediaRepository`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add_pool(self, pool: Pool) -> None:
        if await self._session.get(PoolRow, pool.name) is not None:
            raise AlreadyExists(what="pool", name=pool.name)
        self._session.add(PoolRow(**to_columns(pool, PoolRow)))
        await self._session.flush()

    async def save_pool(self, pool: Pool) -> None:
        await self._session.merge(PoolRow(**to_columns(pool, PoolRow)))
        await self._session.flush()

    async def get_pool(self, name: str) -> Pool:
        pool = await self.find_pool(name)
        if pool is None:
            known = await self._session.scalars(select(PoolRow.name))
            raise not_found("pool", name, known, "`capstan pool list` lists all")
        return pool

    async def find_pool(self, name: str) -> Pool | None:
        row = await self._session.get(PoolRow, name)
        return None if row is None else to_value(Pool, row)

    async def list_pools(self) -> Sequence[Pool]:
        return [to_value(Pool, row) for row in await self._session.scalars(select(PoolRow).order_by(PoolRow.name))]

    async def add(self, cartridge: Cartridge) -> None:
        if await self._session.get(CartridgeRow, cartridge.barcode) is not None:
            raise AlreadyExists(what="cartridge", name=cartridge.barcode)
        self._session.add(CartridgeRow(**to_columns(cartridge, CartridgeRow)))
        await self._session.flush()

    async def get(self, barcode: str) -> Cartridge:
        cartridge = await self.find(barcode)
        if cartridge is None:
            known = await self._session.scalars(select(CartridgeRow.barcode))
            raise not_found("cartridge", barcode, known, "`capstan tape list` lists all")
        return cartridge

    async def find(self, barcode: str) -> Cartridge | None:
        row = await self._session.get(CartridgeRow, barcode)
        return None if row is None else _cartridge(row)

    async def find_by_uuid(self, uuid: str) -> Cartridge | None:
        if not uuid:
            return None  # all cartridges without a label have it
        query = select(CartridgeRow).where(CartridgeRow.uuid == uuid).order_by(CartridgeRow.barcode).limit(1)
        row = await self._session.scalar(query)
        return None if row is None else _cartridge(row)

    async def list(
        self, *, library: str | None = None, pool: str | None = None, states: Sequence[CartridgeState] = ()
    ) -> Sequence[Cartridge]:
        query = select(CartridgeRow).order_by(CartridgeRow.barcode)
        if library is not None:
            query = query.where(CartridgeRow.library == library)
        if pool is not None:
            query = query.where(CartridgeRow.pool == pool)
        if states:
            query = query.where(CartridgeRow.state.in_([state.value for state in states]))
        return [_cartridge(row) for row in await self._session.scalars(query)]

    async def save(self, cartridge: Cartridge) -> None:
        await self._session.merge(CartridgeRow(**to_columns(cartridge, CartridgeRow)))
        await self._session.flush()

    async def remove(self, barcode: str) -> None:
        await self._session.execute(delete(CartridgeRow).where(CartridgeRow.barcode == barcode))


def _cartridge(row: CartridgeRow) -> Cartridge:
    return to_value(Cartridge, row, {"state": CartridgeState})
