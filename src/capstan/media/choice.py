"""Chooses the cartridge and the drive of a mount, by what the library shows and by what has failed before."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from capstan.catalog.catalog import Catalog
from capstan.core.generations import generation_of_barcode, refusal
from capstan.core.health import Blame, Load
from capstan.core.job import JobReporter
from capstan.core.media import Cartridge, CartridgeState
from capstan.errors import (
    CapstanError,
    CartridgeMissing,
    DeviceError,
    EndOfMedium,
    NoCartridgeAvailable,
    NoDriveAvailable,
    NoDriveFits,
    Remedy,
    TransportError,
)
from capstan.media.cartridges import DEFAULT_POOL, Cartridges
from capstan.media.health import Health
from capstan.media.library import DriveSlot, OpenLibrary, element_of
from capstan.media.selection import choose_for_writing
from capstan.tape.changer import DriveAddress, Element, Inventory

_MOST_JOBS = 200  # whose trials are remembered; more do not run at a time


@dataclass(slots=True)
class _Tried:
    """What a job has tried, and must not try again. `refused`: barcodes, with the drive that they failed in; "" when
    that had no part in it. `failed`: barcodes that have failed once. `drives`: that failed, and are used again only
    when there is no other; `dead`: that are not used again at all."""

    refused: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    drives: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)


class Choice:
    """One for a process. Call `cartridge` and `drive` under the library's robot."""

    def __init__(self, catalog: Catalog, cartridges: Cartridges, health: Health) -> None:
        self._catalog = catalog
        self._cartridges = cartridges
        self._health = health
        self._jobs: dict[str, _Tried] = {}  # the newest last

    async def cartridge(
        self,
        library: OpenLibrary,
        inventory: Inventory,
        barcode: str | None,
        pool: str | None,
        context: JobReporter,
        avoid: Collection[str],
    ) -> Cartridge:
        """`barcode`, or the next one of `pool` to write to, but none of `avoid`. CartridgeMissing,
        NoCartridgeAvailable; NoDriveAvailable where another job is using `barcode`."""
        busy = {slot.address for slot in library.drives.values() if slot.busy}
        taken = {element.barcode for element in inventory.drives if element.place in busy}
        taken |= {slot.expects for slot in library.drives.values() if slot.busy}
        if barcode is not None:
            async with self._catalog.snapshot() as catalog:
                cartridge = await catalog.media.find(barcode)
            if cartridge is None or not cartridge.place:
                raise CartridgeMissing(barcodes=barcode)
            if barcode in taken:
                raise NoDriveAvailable(library=library.name, hint=f"cartridge {barcode} is in use by another job")
            return cartridge
        wanted = await self._cartridges.pool(pool or DEFAULT_POOL)
        async with self._catalog.snapshot() as catalog:
            present = await catalog.media.list(library=library.name)
        unavailable = {*taken, *self._tried(context).refused, *avoid}
        chosen = choose_for_writing(present, wanted, unavailable=unavailable)
        if chosen is None:
            unknown = sum(item.state is CartridgeState.UNKNOWN and bool(item.place) for item in present)
            hint = {"hint": _UNKNOWN_HINT.format(count=unknown, library=library.name)} if unknown else {}
            raise NoCartridgeAvailable(pool=wanted.name, library=library.name, **hint)
        return chosen

    async def drive(
        self, library: OpenLibrary, inventory: Inventory, barcode: str, context: JobReporter, *, writing: bool
    ) -> tuple[DriveSlot, Element]:
        """A drive for the cartridge, and where that is: the drive that it is in, an empty one, or one whose idle
        cartridge goes home. Those that failed in this job come last, or not at all if it was not the medium.
        NoDriveFits where its generation is none for those that are free; NoDriveAvailable; what kept the last one from
        being opened."""
        tried, barred = self._tried(context), await self._health.unusable(library.name)

        def may_use(element: Element) -> bool:
            serial = library.serial_of(element)
            return not _unusable(library, element) and serial not in barred and serial not in tried.dead

        def cost(element: Element) -> tuple[bool, bool, bool]:
            return library.serial_of(element) in tried.drives, element.barcode != barcode, element.full

        generation, misfit, closed = generation_of_barcode(barcode), "", None
        for element in sorted(filter(may_use, inventory.drives), key=cost):
            try:
                slot = library.drive(element)
            except (DeviceError, TransportError) as error:
                closed = error
                continue
            takes = slot.facts.writes if writing else slot.facts.reads
            reason = refusal(generation, takes, writing=writing) if generation else ""
            if reason:
                misfit = reason
                continue
            if not element.full or element.barcode == barcode:
                break
            try:
                await library.send_home(slot)
                break
            except (DeviceError, TransportError) as error:
                await context.warning("drive-failed", detail=str(error))
        else:
            if misfit:
                raise NoDriveFits(library=library.name, barcode=barcode, reason=misfit)
            if closed is not None:
                raise closed
            told = "; ".join(f"drive {serial} is {reason}" for serial, reason in barred.items())
            hint = {"hint": f"{told}: mend it, then `capstan drive enable SERIAL`"} if barred else {}
            raise NoDriveAvailable(library=library.name, **hint)
        wanted = element_of(inventory, barcode)
        if isinstance(wanted.place, DriveAddress) and wanted.place != slot.address:
            await library.send_home(library.drive(wanted))
            wanted = element_of(await library.inventory(), barcode)
        return slot, wanted

    def _tried(self, context: JobReporter) -> _Tried:
        while len(self._jobs) > _MOST_JOBS:
            del self._jobs[next(iter(self._jobs))]
        return self._jobs.setdefault(context.job_id, _Tried())

    def refuse(self, context: JobReporter, barcode: str) -> None:
        """A cartridge that this job cannot write to, whatever drive it is in."""
        self._tried(context).refused[barcode] = ""

    async def failed(self, slot: DriveSlot, load: Load, context: JobReporter, error: BaseException) -> None:
        """Neither of two that failed together is used again by this job where there is another: a cartridge not at
        all, after a lost position once more, to see what is on it: the command whose answer was lost may have been the
        commit. When it turns out that it was the drive, what failed in it may be tried in another one."""
        barcode = load.barcode
        if not isinstance(error, DeviceError | TransportError) or not _is_of(error, slot):
            return
        tried, serial = self._tried(context), slot.facts.serial
        if error.remedy is not Remedy.REPOSITION or barcode in tried.failed:
            tried.refused[barcode] = serial
        tried.failed.add(barcode)
        if isinstance(error, EndOfMedium):
            await self._cartridges.mark_full(barcode)
            return
        tried.drives.add(serial)
        if error.remedy is Remedy.NEW_DRIVE:
            tried.dead.add(serial)
        if await self._health.failed(load, error) is Blame.DRIVE:
            tried.refused = {barcode: drive for barcode, drive in tried.refused.items() if drive != serial}
            detail = f"drive {serial} failed with several cartridges, and is not used any more; at last: {error}"
            await context.warning("drive-quarantined", detail=detail)


_UNKNOWN_HINT = (
    "{count} cartridges are in state unknown: if they hold sets, run `capstan rebuild --library {library}`; if they are"
    " new, `capstan tape label BARCODE --pool POOL`"
)


def _unusable(library: OpenLibrary, element: Element) -> bool:
    number = element.place.element
    slot = library.drives.get(number)
    return not library.devices.has_drive(number) or (slot is not None and (slot.busy or bool(slot.broken)))


def _is_of(error: CapstanError, slot: DriveSlot) -> bool:
    return slot.device in (error.parameters.get("device"), error.parameters.get("address"))
