"""The tape manager: brings the right cartridge into a drive, proves that it is the right one, takes it home again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum

from capstan.catalog.catalog import Catalog
from capstan.clock import Clock
from capstan.core.job import JobReporter
from capstan.core.media import Cartridge, CartridgeState
from capstan.errors import (
    CapstanError,
    CartridgeMissing,
    DeviceError,
    NoCartridgeAvailable,
    NoDriveAvailable,
    Remedy,
    TapeAheadOfCatalog,
    TransportError,
    WriteProtected,
)
from capstan.format.append import FoundIndex, examine_tail, go_to_end
from capstan.format.label import Label, read_label
from capstan.format.layout import DEFAULT_RECORD_BYTES
from capstan.media.cartridges import DEFAULT_POOL, Cartridges
from capstan.media.checks import check_label
from capstan.media.drive_keys import DriveKeys, give_keys
from capstan.media.lane import DriveLane
from capstan.media.library import DriveSlot, OpenDevices, OpenLibrary, element_of
from capstan.media.selection import choose_for_writing
from capstan.tape.changer import DriveAddress, Element, Inventory
from capstan.tape.drive import DriveStatus, TapeDrive


class Purpose(Enum):
    """What a cartridge is mounted for."""

    READ = "read"
    WRITE = "write"
    INSPECT = "inspect"  # whatever is in it: the label is neither read nor checked


@dataclass(slots=True)
class MountedCartridge:
    """A cartridge in a drive. `label` was read and checked, None only for Purpose.INSPECT. Valid inside
    `TapeManager.mount` only."""

    lane: DriveLane
    cartridge: Cartridge
    label: Label | None


# Takes in what the catalog should know, and returns the digests of headers that it need not: see `media.adoption`.
OnAhead = Callable[[MountedCartridge, tuple[FoundIndex, ...]], Awaitable[frozenset[str]]]


async def stop_if_ahead(mounted: MountedCartridge, ahead: tuple[FoundIndex, ...]) -> frozenset[str]:
    """The rule for INDEXes that the catalog does not know: write nothing."""
    raise TapeAheadOfCatalog(barcode=mounted.cartridge.barcode, block=ahead[0].header.block)


class TapeManager:
    """One for a process. A library is opened, and locked, at its first use, and kept until `close`."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        clock: Clock,
        open_devices: OpenDevices,
        record_bytes: int = DEFAULT_RECORD_BYTES,
        on_ahead: OnAhead = stop_if_ahead,
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._open_devices = open_devices
        self.cartridges = Cartridges(catalog, clock, record_bytes)
        self._on_ahead = on_ahead
        self.keys = DriveKeys()
        self._libraries: dict[str, OpenLibrary] = {}
        self._refused: dict[str, set[str]] = {}  # barcodes that a job has tried and must not try again
        self._failed: dict[str, set[str]] = {}  # barcodes that have failed in a job

    async def open(self, library: str) -> OpenLibrary:
        """The library, opened if it is not yet. NotFound; InUse when another process has it."""
        if library not in self._libraries:
            devices = await asyncio.to_thread(self._open_devices, library)
            self._libraries[library] = OpenLibrary(devices, self._catalog, self._clock)
        return self._libraries[library]

    async def close(self) -> None:
        """Let go of all libraries."""
        while self._libraries:
            _, library = self._libraries.popitem()
            await library.close()

    @asynccontextmanager
    async def mount(
        self,
        library: str,
        *,
        purpose: Purpose,
        context: JobReporter,
        barcode: str | None = None,
        pool: str | None = None,
        avoid: Collection[str] = (),
    ) -> AsyncIterator[MountedCartridge]:
        """Mount `barcode`, or for writing the next cartridge of `pool` but those of `avoid`; at the end it goes home.

        For writing it belongs to its pool afterwards: a scratch cartridge is labelled. CartridgeMissing,
        NoCartridgeAvailable, NoDriveAvailable; WrongCartridge, NotCapstanTape, TapeAheadOfCatalog when what is in the
        cartridge is not what its barcode and the catalog promise. On every way out the drive is free and the cartridge
        in its slot, unless the drive or robot has failed: that is a warning when something else failed first.
        """
        open_library = await self.open(library)
        while True:
            slot, cartridge = await self._load(open_library, barcode, pool, context, avoid)
            try:
                mounted = await self._identify(slot, cartridge, purpose, pool, context)
            except BaseException:
                await self._return(open_library, slot, context, failed=True)
                raise
            if mounted is not None:
                break
            await self._return(open_library, slot, context, failed=False)
        try:
            yield mounted
        except BaseException as error:
            if isinstance(error, DeviceError | TransportError):
                self._note_failure(context, mounted.cartridge.barcode, error)
            await self._return(open_library, slot, context, failed=True)
            raise
        await self._return(open_library, slot, context, failed=False)

    @asynccontextmanager
    async def load_raw(self, library: str, barcode: str, context: JobReporter) -> AsyncIterator[DriveLane]:
        """A cartridge in a drive, whatever is on it; at the end it goes home."""
        open_library = await self.open(library)
        slot, _ = await self._load(open_library, barcode, None, context)
        try:
            yield slot.lane
        except BaseException:
            await self._return(open_library, slot, context, failed=True)
            raise
        await self._return(open_library, slot, context, failed=False)

    async def position_for_append(self, mounted: MountedCartridge) -> None:
        """Compare tape and catalog, and stand where the next tape file begins; nothing is written.

        INDEXes behind the catalog's end are given to `on_ahead`, which takes them in or raises.
        """
        tail = await mounted.lane.run(examine_tail, mounted.cartridge)
        if tail.ahead:
            abandoned = await self._on_ahead(mounted, tail.ahead)
            async with self._catalog.snapshot() as catalog:
                mounted.cartridge = await catalog.media.get(mounted.cartridge.barcode)
            tail = await mounted.lane.run(examine_tail, mounted.cartridge)
            if any(found.header_sha256 not in abandoned for found in tail.ahead):
                await stop_if_ahead(mounted, tail.ahead)
        await mounted.lane.run(go_to_end, mounted.cartridge)

    # ── into the drive ────────────────────────────────────────────────────────────────────────────────

    async def _load(
        self,
        library: OpenLibrary,
        barcode: str | None,
        pool: str | None,
        context: JobReporter,
        avoid: Collection[str] = (),
    ) -> tuple[DriveSlot, Cartridge]:
        async with library.robot:
            inventory = await library.inventory()
            cartridge = await self._choose(library, inventory, barcode, pool, context, avoid)
            if not library.tidied:
                for error in await library.tidy(inventory, cartridge.barcode):
                    await context.warning("drive-failed", detail=str(error))
                inventory = await library.inventory()
            element = element_of(inventory, cartridge.barcode)
            slot = await self._free_drive(library, inventory, element, context)
            slot.busy = True
            try:
                await context.phase("load", cartridge=cartridge.barcode, drive=str(slot.address))
                if element.place != slot.address:
                    await library.move(element.place, slot.address)
                await slot.lane.run(_load_cartridge)
                await slot.lane.run(give_keys, self.keys.of(context.job_id))
            except (DeviceError, TransportError) as error:
                slot.busy, slot.broken = False, str(error)
                raise
            except BaseException:
                slot.busy = False
                raise
        cartridge.loads += 1
        await context.tell("cartridge.loaded", cartridge=cartridge.barcode, drive=str(slot.address))
        return slot, cartridge

    async def _choose(
        self,
        library: OpenLibrary,
        inventory: Inventory,
        barcode: str | None,
        pool: str | None,
        context: JobReporter,
        avoid: Collection[str],
    ) -> Cartridge:
        busy = {slot.address for slot in library.drives.values() if slot.busy}
        taken = {element.barcode for element in inventory.drives if element.place in busy}
        if barcode is not None:
            async with self._catalog.snapshot() as catalog:
                cartridge = await catalog.media.find(barcode)
            if cartridge is None or not cartridge.place:
                raise CartridgeMissing(barcodes=barcode)
            if barcode in taken:
                raise NoDriveAvailable(library=library.name, hint=f"cartridge {barcode} is in use by another job")
            return cartridge
        wanted = await self.cartridges.pool(pool or DEFAULT_POOL)
        async with self._catalog.snapshot() as catalog:
            present = await catalog.media.list(library=library.name)
        unavailable = taken | self._refused.get(context.job_id, set()) | set(avoid)
        chosen = choose_for_writing(present, wanted, unavailable=unavailable)
        if chosen is None:
            unknown = sum(item.state is CartridgeState.UNKNOWN and bool(item.place) for item in present)
            hint = {"hint": _UNKNOWN_HINT.format(count=unknown, library=library.name)} if unknown else {}
            raise NoCartridgeAvailable(pool=wanted.name, library=library.name, **hint)
        return chosen

    async def _free_drive(
        self, library: OpenLibrary, inventory: Inventory, wanted: Element, context: JobReporter
    ) -> DriveSlot:
        """A drive for the cartridge: the one it is in, an empty one, or one whose idle cartridge goes home."""
        if isinstance(wanted.place, DriveAddress):
            return library.drive(wanted)
        usable = [element for element in inventory.drives if not _unusable(library, element)]
        for element in usable:
            if not element.full:
                return library.drive(element)
        for element in usable:
            slot = library.drive(element)
            try:
                await library.send_home(slot)
            except (DeviceError, TransportError) as error:
                await context.warning("drive-failed", detail=str(error))
                continue
            return slot
        raise NoDriveAvailable(library=library.name)

    async def _return(self, library: OpenLibrary, slot: DriveSlot, context: JobReporter, *, failed: bool) -> None:
        """Bring the cartridge home and free the drive."""

        async def bring() -> None:
            async with library.robot:
                try:
                    await slot.lane.run(give_keys, {})
                    await library.send_home(slot)
                    await context.tell("cartridge.unloaded", drive=str(slot.address))
                finally:
                    slot.busy = False

        try:
            # A task that is cancelled still brings the cartridge home.
            await asyncio.shield(bring())
        except CapstanError as error:
            await context.warning("cartridge-not-returned", detail=str(error))
            if not failed and not slot.broken:
                raise

    # ── what is in it ─────────────────────────────────────────────────────────────────────────────────

    async def _identify(
        self, slot: DriveSlot, cartridge: Cartridge, purpose: Purpose, pool: str | None, context: JobReporter
    ) -> MountedCartridge | None:
        """Read and check the label. None: not this one, choose another for the pool."""
        if purpose is Purpose.INSPECT:
            return MountedCartridge(slot.lane, cartridge, None)
        writing = purpose is Purpose.WRITE
        if writing and (await slot.lane.run(_status)).write_protected:
            if pool is None:
                raise WriteProtected(device=cartridge.barcode)
            self._refuse(context, cartridge.barcode)
            await context.warning("write-protected", detail=f"cartridge {cartridge.barcode} is write-protected")
            return None
        if writing and pool is not None and cartridge.state is CartridgeState.SCRATCH:
            if not await self.cartridges.is_scratch(slot.lane, cartridge, context):
                return None
            cartridge = await self.cartridges.relabel(slot.lane, cartridge, pool)
        label = await slot.lane.run(read_label, barcode=cartridge.barcode)
        check_label(cartridge, label)
        return MountedCartridge(slot.lane, cartridge, label)

    def _note_failure(self, context: JobReporter, barcode: str, error: CapstanError) -> None:
        """A cartridge that failed is not tried again by this job; after a lost position once more, to see what is on
        it: the command whose answer was lost may have been the commit."""
        failed = self._failed.setdefault(context.job_id, set())
        if error.remedy is not Remedy.REPOSITION or barcode in failed:
            self._refuse(context, barcode)
        failed.add(barcode)

    def _refuse(self, context: JobReporter, barcode: str) -> None:
        self._refused.setdefault(context.job_id, set()).add(barcode)


_UNKNOWN_HINT = (
    "{count} cartridges are in state unknown: if they hold sets, run `capstan rebuild --library {library}`; if they are"
    " new, `capstan tape label BARCODE --pool POOL`"
)


def _unusable(library: OpenLibrary, element: Element) -> bool:
    place = element.place
    slot = library.drives.get(place.element)
    return slot is not None and (slot.busy or bool(slot.broken))


def _load_cartridge(drive: TapeDrive) -> None:
    drive.load()


def _status(drive: TapeDrive) -> DriveStatus:
    return drive.status()
