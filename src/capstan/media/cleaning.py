"""Cleans a drive that asks for it, with a cleaning cartridge of its library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from capstan.catalog.catalog import Catalog
from capstan.clock import Clock
from capstan.core.job import JobReporter
from capstan.core.media import Cartridge, CartridgeState
from capstan.errors import CleaningFailed, NoCleaningCartridge
from capstan.media.library import DriveSlot, OpenLibrary, element_of, free_slot
from capstan.tape.alerts import CLEANING_EXPIRED, INVALID_CLEANING
from capstan.tape.drive import TapeDrive

MOST_USES = 50  # of an LTO universal cleaning cartridge
_EXPIRED = "it has been used up: take it out"


async def clean(
    library: OpenLibrary, slot: DriveSlot, context: JobReporter, *, catalog: Catalog, clock: Clock
) -> dict[str, Any]:
    """Put a cleaning cartridge into an empty drive that is busy for us, wait, and bring it home. What was done.

    NoCleaningCartridge; CleaningFailed when the drive did not take it, with the cartridge home again, and not used any
    more if it was worn out. Its `loads` count its uses.
    """
    async with library.robot:
        inventory = await library.inventory()
        async with catalog.snapshot() as known:
            cartridge = choose_cleaning(
                await known.media.list(library=library.name, states=[CartridgeState.CLEANING]), library.name
            )
        await context.phase("clean", cartridge=cartridge.barcode, drive=str(slot.address))
        await library.move(element_of(inventory, cartridge.barcode).place, slot.address)
    try:
        done = await slot.lane.run(_clean)
        alerts = await slot.lane.run(_alerts)
    finally:
        async with library.robot:
            inventory = await library.inventory()
            element = element_of(inventory, cartridge.barcode)
            await library.move(element.place, free_slot(inventory, element, library.name))
    worn = bool({CLEANING_EXPIRED, INVALID_CLEANING} & set(alerts))
    async with catalog.transaction() as changed:
        used = await changed.media.get(cartridge.barcode)
        used.loads += 1
        if worn or used.loads >= MOST_USES:
            used = replace(used, state=CartridgeState.RETIRED, reason=_EXPIRED)
        await changed.media.save(used)
        if done and not worn:
            drive = await changed.health.find_drive(slot.facts.serial)
            if drive is not None:
                drive.wants_cleaning, drive.cleaned_at = False, clock.now()
                await changed.health.save_drive(drive)
    if worn or not done:
        reason = f"it has not taken the cleaning cartridge {cartridge.barcode}"
        raise CleaningFailed(drive=slot.facts.serial, reason=f"{reason}, which is worn out" if worn else reason)
    left = MOST_USES - used.loads
    await context.tell("drive.cleaned", drive=slot.facts.serial, cartridge=cartridge.barcode, uses_left=left)
    return {"drive": slot.facts.serial, "cartridge": cartridge.barcode, "uses_left": left}


def choose_cleaning(cartridges: Sequence[Cartridge], library: str) -> Cartridge:
    """The one that has been used most, so that one wears out at a time."""
    usable = [item for item in cartridges if item.place]
    if not usable:
        raise NoCleaningCartridge(library=library)
    return max(usable, key=lambda item: (item.loads, item.barcode))


def _clean(drive: TapeDrive) -> bool:
    return drive.clean()


def _alerts(drive: TapeDrive) -> tuple[int, ...]:
    return drive.alerts()
