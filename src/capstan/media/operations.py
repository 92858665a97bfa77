"""What an operator does with cartridges: label, erase, import, export, move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from capstan.catalog.catalog import Catalog, Repositories
from capstan.core.backup import BackupSet, SetState
from capstan.core.ids import check_barcode, check_name
from capstan.core.job import JobReporter
from capstan.core.media import Cartridge, CartridgeState
from capstan.errors import Damaged, NotCapstanTape, Refused, TapeAheadOfCatalog
from capstan.format.copy_writer import link_of
from capstan.format.label import read_label
from capstan.format.manifest import CommitLink
from capstan.media.checks import check_erasable
from capstan.media.lane import DriveLane
from capstan.media.ledger import settle
from capstan.media.library import element_of, free_slot, parse_place
from capstan.media.manager import TapeManager
from capstan.tape.changer import Inventory, Place
from capstan.tape.drive import TapeDrive
from capstan.tape.shelf_changer import ShelfChanger


class TapeOperations:
    """Each operation leaves the catalog and the library in agreement, also when it fails."""

    def __init__(self, *, catalog: Catalog, manager: TapeManager) -> None:
        self._catalog = catalog
        self._manager = manager

    async def inventory(self, library: str, *, rescan: bool = False) -> Inventory:
        """Look into the library and bring the catalog up to date."""
        opened = await self._manager.open(library)
        async with opened.robot:
            found = await opened.inventory(rescan=rescan)
        drives = [(opened.serial_of(element), element.place.element) for element in found.drives]
        await self._manager.health.seen(library, drives)
        return found

    async def label(self, barcode: str, pool: str, context: JobReporter, *, overwrite: bool) -> Cartridge:
        """Give a cartridge a label of `pool`. Without `overwrite` only one that is blank or scratch.

        Refused when the catalog knows sets on it (erase it first); NotCapstanTape for somebody else's tape;
        TapeAheadOfCatalog for a label of ours that the catalog does not know.
        """
        await self._manager.cartridges.pool(check_name("pool", pool))
        cartridge = await self._cartridge(barcode)
        if await self._sets(cartridge):
            reason = f"cartridge {barcode} holds sets"
            raise Refused(reason=reason, hint=f"`capstan tape erase {barcode} --yes` forgets them for good")
        async with self._manager.load_raw(cartridge.library, barcode, context) as lane:
            if not overwrite:
                await self._check_free(lane, cartridge)
            return await self._manager.cartridges.relabel(lane, cartridge, pool)

    async def erase(self, barcode: str, context: JobReporter, *, long: bool) -> dict[str, Any]:
        """Make a cartridge scratch: a new label, and nothing behind it. `long` also overwrites the medium (hours).

        Sets that were on it stay as they are where other copies have all of them. Else they are PARTIAL afterwards, or
        forgotten when nothing of them is left. `broken_sets` are those elsewhere that build on one of them, and restore
        no longer.
        """
        cartridge = await self._cartridge(barcode)
        async with self._manager.load_raw(cartridge.library, barcode, context) as lane:
            lost = await self._forget(cartridge)
            cartridge = await self._manager.cartridges.relabel(lane, cartridge, "")
            if long:
                await lane.run(_erase_long)
                cartridge = await self._manager.cartridges.relabel(lane, cartridge, "")
        return {"barcode": barcode, "state": cartridge.state.value, **lost}

    async def import_all(self, library: str, context: JobReporter) -> list[dict[str, str]]:
        """Move what lies in the mail slots to free slots."""
        opened = await self._manager.open(library)
        moved = []
        async with opened.robot:
            inventory = await opened.inventory(rescan=True)
            for port in inventory.ports:
                if port.full:
                    destination = free_slot(inventory, port, library)
                    await opened.move(port.place, destination)
                    await context.tell("cartridge.imported", cartridge=port.barcode, place=str(destination))
                    moved.append({"barcode": port.barcode, "from": str(port.place), "to": str(destination)})
                    inventory = await opened.inventory()
        return moved

    async def shelve(self, library: str, barcodes: Sequence[str], context: JobReporter) -> list[dict[str, str]]:
        """Say which cartridges there are for a drive that people put them into. Refused where a robot has them."""
        shelf = await self._shelf(library)
        new = await asyncio.to_thread(shelf.add, [check_barcode(barcode) for barcode in barcodes])
        inventory = await self.inventory(library)
        moved = [{"barcode": name, "from": "", "to": str(element_of(inventory, name).place)} for name in new]
        for item in moved:
            await context.tell("cartridge.imported", cartridge=item["barcode"], place=item["to"])
        return moved

    async def unshelve(self, library: str, barcode: str, context: JobReporter) -> dict[str, str]:
        """A cartridge is taken away. Refused where a robot has it; ChangerError while it is in the drive."""
        shelf = await self._shelf(library)
        place = str(element_of(await self.inventory(library), barcode).place)
        await asyncio.to_thread(shelf.remove, barcode)
        await self.inventory(library)
        await context.tell("cartridge.exported", cartridge=barcode, place="")
        return {"barcode": barcode, "from": place, "to": ""}

    async def _shelf(self, library: str) -> ShelfChanger:
        changer = (await self._manager.open(library)).devices.changer
        if isinstance(changer, ShelfChanger):
            return changer
        hint = f"put them into the mail slots and run `capstan library import {library}`"
        raise Refused(reason=f"library {library} has a robot, which sees for itself what there is", hint=hint)

    async def export(self, library: str, barcode: str, context: JobReporter) -> dict[str, str]:
        """Move a cartridge to a free mail slot, for a person to take."""
        opened = await self._manager.open(library)
        if isinstance(opened.devices.changer, ShelfChanger):
            return await self.unshelve(library, barcode, context)
        async with opened.robot:
            inventory = await opened.inventory()
            element = element_of(inventory, barcode)
            free = next((port for port in inventory.ports if not port.full), None)
            if element in inventory.ports:
                return {"barcode": barcode, "from": str(element.place), "to": str(element.place)}
            if free is None:
                raise Refused(reason=f"all mail slots of library {library} are full", hint="take a cartridge out first")
            if element in inventory.drives:
                await opened.send_home(opened.drive(element))
                inventory = await opened.inventory()
                element = element_of(inventory, barcode)
            await opened.move(element.place, free.place)
        await context.tell("cartridge.exported", cartridge=barcode, place=str(free.place))
        return {"barcode": barcode, "from": str(element.place), "to": str(free.place)}

    async def move(self, library: str, source: str, destination: str) -> dict[str, str]:
        """Move a cartridge from a place (or a barcode) to a place."""
        opened = await self._manager.open(library)
        async with opened.robot:
            inventory = await opened.inventory()
            origin, target = parse_place(inventory, source), parse_place(inventory, destination)
            if not origin.full:
                raise Refused(reason=f"{origin.place} is empty")
            if target.full:
                raise Refused(reason=f"{target.place} holds {target.barcode or 'a cartridge'} already")
            if origin in inventory.drives:
                await opened.drive(origin).lane.run(_unload)
            place: Place = target.place
            await opened.move(origin.place, place)
        return {"barcode": origin.barcode, "from": str(origin.place), "to": str(place)}

    @asynccontextmanager
    async def raw(self, barcode: str, context: JobReporter) -> AsyncIterator[DriveLane]:
        """The cartridge in a drive as it is, its label not looked at: to dump or extract it."""
        cartridge = await self._cartridge(barcode)
        async with self._manager.load_raw(cartridge.library, barcode, context) as lane:
            yield lane

    async def _cartridge(self, barcode: str) -> Cartridge:
        async with self._catalog.snapshot() as catalog:
            cartridge = await catalog.media.get(barcode)
        check_erasable(cartridge)
        return cartridge

    async def _sets(self, cartridge: Cartridge) -> bool:
        if not cartridge.uuid:
            return False
        async with self._catalog.snapshot() as catalog:
            return bool(await catalog.backups.sets_on(cartridge.uuid))

    async def _check_free(self, lane: DriveLane, cartridge: Cartridge) -> None:
        try:
            label = await lane.run(read_label, barcode=cartridge.barcode)
        except NotCapstanTape as error:
            if error.parameters["found"] != "blank":
                raise
            return
        except Damaged:
            if cartridge.state is not CartridgeState.SCRATCH:
                raise
            return
        if label.uuid != cartridge.uuid:
            hint = "run `capstan rebuild` to know what is on it, or `capstan tape label --overwrite` to lose it"
            raise TapeAheadOfCatalog(barcode=cartridge.barcode, block=0, hint=hint)

    async def _forget(self, cartridge: Cartridge) -> dict[str, list[str]]:
        """Before the tape loses them: take the cartridge's commit points out of the catalog."""
        partial, forgotten = [], []
        async with self._catalog.transaction() as catalog:
            if not cartridge.uuid:
                return {"partial_sets": [], "forgotten_sets": [], "broken_sets": []}
            known = await catalog.backups.list()
            lost = await catalog.backups.list_commits(cartridge=cartridge.uuid)
            there = await catalog.backups.sets_on(cartridge.uuid)
            await catalog.backups.remove_commits(cartridge.uuid)
            for backup_set in there:
                links = [link_of(commit) for commit in lost if commit.set_id == backup_set.id]
                match await _forget_part(catalog, backup_set, links, cartridge.barcode):
                    case SetState.PARTIAL:
                        partial.append(backup_set.id)
                    case None:
                        forgotten.append(backup_set.id)
        broken: list[str] = []
        for backup_set in known:  # a parent has a lower number than its children
            if backup_set.parent_id in {*partial, *forgotten, *broken}:
                broken.append(backup_set.id)
        broken = [set_id for set_id in broken if set_id not in forgotten]
        return {"partial_sets": partial, "forgotten_sets": forgotten, "broken_sets": broken}


async def _forget_part(
    catalog: Repositories, backup_set: BackupSet, links: Sequence[CommitLink], barcode: str
) -> SetState | None:
    """Settle a set whose commit points on a cartridge were just forgotten: its state, None when nothing is left."""
    commits = await catalog.backups.list_commits(set_id=backup_set.id)
    commits = [*commits, *await catalog.backups.list_copies(backup_set.id)]
    if not commits:
        await catalog.backups.remove(backup_set.id)
        return None
    before, missing = backup_set.state, backup_set.missing
    settle(backup_set, commits, links, writing=before is SetState.WRITING)
    if before is SetState.PARTIAL or backup_set.state is SetState.PARTIAL:
        further = before is SetState.PARTIAL and all(link.copy for link in links)
        lacks = {*missing} if further else {*missing, barcode}
        backup_set.state, backup_set.missing = SetState.PARTIAL, sorted(lacks)
    await catalog.backups.save(backup_set)
    return backup_set.state


def _erase_long(drive: TapeDrive) -> None:
    drive.rewind()
    drive.erase(quick=False)


def _unload(drive: TapeDrive) -> None:
    drive.unload()
