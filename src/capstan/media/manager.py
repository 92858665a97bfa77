"""The tape manager: brings the right cartridge into a drive, proves that it is the right one, takes it home again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

from capstan.catalog.catalog import Catalog
from capstan.clock import Clock
from capstan.core.health import Load
from capstan.core.job import JobReporter
from capstan.core.media import Cartridge, CartridgeState
from capstan.errors import (
    CapstanError,
    CartridgeWanted,
    DeviceError,
    MediaError,
    NoDriveAvailable,
    NoDriveFits,
    NotFound,
    TapeAheadOfCatalog,
    TransportError,
    WriteProtected,
)
from capstan.format.append import FoundIndex, examine_tail, go_to_end
from capstan.format.label import Label, read_label
from capstan.format.layout import DEFAULT_RECORD_BYTES
from capstan.media.cartridges import Cartridges
from capstan.media.checks import check_label
from capstan.media.choice import Choice
from capstan.media.cleaning import clean
from capstan.media.drive_keys import DriveKeys, give_keys
from capstan.media.health import Health
from capstan.media.lane import DriveLane
from capstan.media.library import DriveSlot, OpenDevices, OpenLibrary
from capstan.tape.changer import Element
from capstan.tape.drive import DriveStatus, TapeDrive

_LOOK_SECONDS = 2.0  # between two looks at a drive that a person is to put a cartridge into


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
    load: Load


@dataclass(slots=True)
class _Loaded:
    """A cartridge in a drive that is ours until it is returned."""

    slot: DriveSlot
    cartridge: Cartridge
    load: Load


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
        wait: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`wait` passes the time between two looks whether a person has brought a cartridge."""
        self._catalog = catalog
        self._clock = clock
        self._open_devices = open_devices
        self.cartridges = Cartridges(catalog, clock, record_bytes)
        self.health = Health(catalog, clock)
        self.choice = Choice(catalog, self.cartridges, self.health)
        self._on_ahead = on_ahead
        self._wait = wait
        self.keys = DriveKeys()
        self._libraries: dict[str, OpenLibrary] = {}

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
            loaded = await self._load(open_library, purpose, barcode, pool, context, avoid)
            async with self._returned(open_library, loaded, context):
                mounted = await self._identify(loaded, purpose, pool, context)
                if mounted is not None:
                    yield mounted
                    return

    @asynccontextmanager
    async def load_raw(self, library: str, barcode: str, context: JobReporter) -> AsyncIterator[DriveLane]:
        """A cartridge in a drive, whatever is on it; at the end it goes home."""
        open_library = await self.open(library)
        loaded = await self._load(open_library, Purpose.INSPECT, barcode, None, context)
        async with self._returned(open_library, loaded, context):
            yield loaded.slot.lane

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
        purpose: Purpose,
        barcode: str | None,
        pool: str | None,
        context: JobReporter,
        avoid: Collection[str] = (),
    ) -> _Loaded:
        async with library.robot:
            inventory = await library.inventory()
            cartridge = await self.choice.cartridge(library, inventory, barcode, pool, context, avoid)
            if not library.tidied:
                for error in await library.tidy(inventory, cartridge.barcode):
                    await context.warning("drive-failed", detail=str(error))
                inventory = await library.inventory()
            while True:
                try:
                    slot, element = await self.choice.drive(
                        library, inventory, cartridge.barcode, context, writing=purpose is Purpose.WRITE
                    )
                    break
                except NoDriveFits:  # of another generation: the pool may have one that the drives write
                    if barcode is not None:
                        raise
                    self.choice.refuse(context, cartridge.barcode)
                    cartridge = await self.choice.cartridge(library, inventory, barcode, pool, context, avoid)
            slot.busy, slot.expects = True, cartridge.barcode
            with _freed_on_failure(slot):
                await context.phase("load", cartridge=cartridge.barcode, drive=str(slot.address))
                wanted = await _move(library, element, slot)
        with _freed_on_failure(slot):
            told = ""
            while wanted is not None:
                if str(wanted) != told:  # a person is to bring it, or has brought another one
                    await context.tell("cartridge.wanted", **wanted.parameters)
                    told = str(wanted)
                await self._wait(_LOOK_SECONDS)
                async with library.robot:
                    wanted = await _move(library, element, slot)
            load = await self.health.loaded(slot.facts, cartridge, context.job_id)
        loaded = _Loaded(slot, cartridge, load)
        try:
            await slot.lane.run(_load_cartridge)
            await slot.lane.run(give_keys, self.keys.of(context.job_id))
        except BaseException as error:
            await self._give_up(library, loaded, context, error)
            raise
        await context.tell("cartridge.loaded", cartridge=cartridge.barcode, drive=str(slot.address))
        return loaded

    @asynccontextmanager
    async def _returned(self, library: OpenLibrary, loaded: _Loaded, context: JobReporter) -> AsyncIterator[None]:
        """Note what fails in the block, and bring the cartridge home behind it."""
        try:
            yield
        except BaseException as error:
            await self._give_up(library, loaded, context, error)
            raise
        await self._return(library, loaded, context, failed=False)

    async def _give_up(self, library: OpenLibrary, loaded: _Loaded, context: JobReporter, error: BaseException) -> None:
        """Note a failure, and bring the cartridge home whether or not it could be noted."""
        try:
            await self.choice.failed(loaded.slot, loaded.load, context, error)
        finally:
            await self._return(library, loaded, context, failed=True)

    async def _return(self, library: OpenLibrary, loaded: _Loaded, context: JobReporter, *, failed: bool) -> None:
        """Bring the cartridge home, clean the drive if it asks for that, and free it."""
        try:
            # A task that is cancelled still brings the cartridge home.
            await asyncio.shield(self._bring_home(library, loaded, context))
        except CapstanError as error:
            await context.warning("cartridge-not-returned", detail=str(error))
            if not failed and not loaded.slot.broken:
                raise

    async def _bring_home(self, library: OpenLibrary, loaded: _Loaded, context: JobReporter) -> None:
        slot = loaded.slot
        try:
            async with library.robot:
                await self.health.ask(loaded.load, slot.lane)
                await slot.lane.run(give_keys, {})
                await library.send_home(slot)
                await context.tell("cartridge.unloaded", drive=str(slot.address))
            if await self.health.unloaded(loaded.load, context):
                await self._clean(library, slot, context)
        finally:
            slot.busy = False

    async def _clean(self, library: OpenLibrary, slot: DriveSlot, context: JobReporter) -> None:
        """That it cannot be cleaned costs the job nothing."""
        try:
            await clean(library, slot, context, catalog=self._catalog, clock=self._clock)
        except (DeviceError, TransportError, MediaError) as error:
            await context.warning("drive-not-cleaned", detail=f"drive {slot.facts.serial} asks to be cleaned: {error}")

    async def clean_drive(self, library: str, serial: str, context: JobReporter) -> dict[str, Any]:
        """Clean a drive although it does not ask. NotFound; NoDriveAvailable while it is used; as of
        `cleaning.clean`."""
        opened = await self.open(library)
        async with opened.robot:
            inventory = await opened.inventory()
            element = next((item for item in inventory.drives if opened.serial_of(item) == serial), None)
            if element is None:
                raise NotFound(what=f"drive in library {library}", name=serial)
            slot = opened.drive(element)
            if slot.busy:
                raise NoDriveAvailable(library=library, hint=f"wait for the job that uses drive {serial}")
            await opened.send_home(slot)
            slot.busy = True
        try:
            return await clean(opened, slot, context, catalog=self._catalog, clock=self._clock)
        finally:
            slot.busy = False

    # ── what is in it ─────────────────────────────────────────────────────────────────────────────────

    async def _identify(
        self, loaded: _Loaded, purpose: Purpose, pool: str | None, context: JobReporter
    ) -> MountedCartridge | None:
        """Read and check the label. None: not this one, choose another for the pool."""
        slot, cartridge = loaded.slot, loaded.cartridge
        if purpose is Purpose.INSPECT:
            return MountedCartridge(slot.lane, cartridge, None, loaded.load)
        writing = purpose is Purpose.WRITE
        if writing and (await slot.lane.run(_status)).write_protected:
            if pool is None:
                raise WriteProtected(device=cartridge.barcode)
            self.choice.refuse(context, cartridge.barcode)
            await context.warning("write-protected", detail=f"cartridge {cartridge.barcode} is write-protected")
            return None
        if writing and pool is not None and cartridge.state is CartridgeState.SCRATCH:
            if not await self.cartridges.is_scratch(slot.lane, cartridge, context):
                return None
            cartridge = await self.cartridges.relabel(slot.lane, cartridge, pool)
        label = await slot.lane.run(read_label, barcode=cartridge.barcode)
        check_label(cartridge, label)
        return MountedCartridge(slot.lane, cartridge, label, loaded.load)


def _load_cartridge(drive: TapeDrive) -> None:
    drive.load()


def _status(drive: TapeDrive) -> DriveStatus:
    return drive.status()


async def _move(library: OpenLibrary, element: Element, slot: DriveSlot) -> CartridgeWanted | None:
    """Bring a cartridge into a drive. Not None: there is no robot, and a person has not done it yet."""
    if element.place == slot.address:
        return None
    try:
        await library.move(element.place, slot.address)
    except CartridgeWanted as wanted:
        return wanted
    return None


@contextmanager
def _freed_on_failure(slot: DriveSlot) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        slot.busy = False
        if isinstance(error, DeviceError | TransportError):
            slot.broken = str(error)
        raise
