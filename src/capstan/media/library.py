"""One open library: its robot and drives, and what the catalog knows of the cartridges in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from capstan.catalog.catalog import Catalog
from capstan.clock import Clock
from capstan.core.generations import generation_of_barcode
from capstan.core.media import Cartridge, CartridgeState
from capstan.errors import CapstanError, CartridgeMissing, ChangerError, MediaError, NotFound
from capstan.media.health import DriveFacts
from capstan.media.lane import DriveLane
from capstan.tape.changer import DriveAddress, Element, Inventory, MediaChanger, Place, SlotAddress
from capstan.tape.drive import TapeDrive

CLEANING_PREFIX = "CLN"


class LibraryDevices(Protocol):
    """The devices of one library, open and owned by this process. Made by the composition root."""

    @property
    def name(self) -> str: ...
    @property
    def generation(self) -> str: ...
    @property
    def changer(self) -> MediaChanger: ...

    def has_drive(self, element: int) -> bool:
        """Whether the drive in that element of the changer is ours to use; another host may have the others."""
        ...

    def open_drive(self, serial: str, element: int) -> TapeDrive:
        """The drive in that element of the changer; `serial` is what the changer says of it. DeviceError,
        TransportError: another host has it, or it does not answer."""
        ...

    def capacity_of(self, barcode: str) -> int:
        """Native bytes of a cartridge, 0 when nobody can say without loading it."""
        ...

    def close(self) -> None: ...


OpenDevices = Callable[[str], LibraryDevices]


@dataclass(slots=True)
class DriveSlot:
    """One drive of the library while this process uses it. `device`: what its errors name it. While it is `busy`,
    `expects` is the barcode that it has, or waits for."""

    address: DriveAddress
    lane: DriveLane
    facts: DriveFacts
    device: str
    busy: bool = False
    expects: str = ""
    broken: str = ""


@dataclass(slots=True)
class OpenLibrary:
    """The robot is used under `robot`, by one task at a time."""

    devices: LibraryDevices
    catalog: Catalog
    clock: Clock
    robot: asyncio.Lock = field(default_factory=asyncio.Lock)
    drives: dict[int, DriveSlot] = field(default_factory=dict)
    tidied: bool = False  # what an earlier process left in drives has been brought home

    @property
    def name(self) -> str:
        return self.devices.name

    async def inventory(self, *, rescan: bool = False) -> Inventory:
        """Ask the robot what is where, and bring the catalog up to date. Call under `robot`.

        A barcode that the catalog does not know becomes UNKNOWN: nothing is written to it until somebody has said what
        it is. MediaError when two elements show the same barcode.
        """
        changer = self.devices.changer
        found = await asyncio.to_thread(changer.rescan if rescan else changer.inventory)
        seen: dict[str, Element] = {}
        for element in found:
            if not element.full or not element.barcode:
                continue
            if element.barcode in seen:
                reason = f"{element.barcode} is in {seen[element.barcode].place} and in {element.place}"
                raise MediaError(reason=f"library {self.name} shows a barcode twice: {reason}")
            seen[element.barcode] = element
        async with self.catalog.transaction() as catalog:
            ours = {cartridge.barcode: cartridge for cartridge in await catalog.media.list(library=self.name)}
            for cartridge in ours.values():
                if cartridge.barcode not in seen and cartridge.place:
                    cartridge.place = ""
                    await catalog.media.save(cartridge)
            for barcode, element in seen.items():
                known = ours.get(barcode) or await catalog.media.find(barcode)
                cartridge = known or self._new(barcode)
                if known is None or (cartridge.library, cartridge.place) != (self.name, str(element.place)):
                    cartridge.library, cartridge.place = self.name, str(element.place)
                    await catalog.media.save(cartridge)
        return found

    def _new(self, barcode: str) -> Cartridge:
        cleaning = barcode.startswith(CLEANING_PREFIX)
        generation = generation_of_barcode(barcode)
        return Cartridge(
            barcode=barcode,
            state=CartridgeState.CLEANING if cleaning else CartridgeState.UNKNOWN,
            created_at=self.clock.now(),
            generation=generation.name if generation else self.devices.generation,
            capacity_bytes=self.devices.capacity_of(barcode),
        )

    async def move(self, source: Place, destination: Place) -> None:
        """Move a cartridge and note its new place. Call under `robot`. ChangerError: nothing has moved."""
        await asyncio.to_thread(self.devices.changer.move, source, destination)
        await self.inventory()

    def drive(self, element: Element) -> DriveSlot:
        """The drive in `element`, opened on first use. Errors as of `LibraryDevices.open_drive`."""
        address = element.place
        assert isinstance(address, DriveAddress)
        slot = self.drives.get(address.element)
        if slot is None:
            drive = self.devices.open_drive(element.drive_serial, address.element)
            known = drive.identity
            facts = DriveFacts(
                known.serial or f"{self.name}-{address.element}",
                self.name,
                address.element,
                " ".join(part for part in (known.vendor, known.product, known.revision) if part),
                drive.capabilities.reads,
                drive.capabilities.writes,
            )
            slot = DriveSlot(address, DriveLane(drive, f"{self.name}-{address.element}"), facts, drive.address)
            self.drives[address.element] = slot
        return slot

    def serial_of(self, element: Element) -> str:
        """That of the drive in `element`: its own if it was opened, else what the changer says."""
        slot = self.drives.get(element.place.element)
        return slot.facts.serial if slot else element.drive_serial or f"{self.name}-{element.place.element}"

    async def send_home(self, slot: DriveSlot) -> None:
        """Unload the cartridge in `slot` and bring it to the slot it came from, or to any free one. Under `robot`.

        A drive that cannot unload is marked broken; the cartridge stays in it and the error goes up.
        """
        inventory = await asyncio.to_thread(self.devices.changer.inventory)
        element = inventory.at(slot.address)
        if element is None or not element.full:
            return
        try:
            await slot.lane.run(_unload)
            await self.move(slot.address, free_slot(inventory, element, self.name))
        except CapstanError as error:
            slot.broken = str(error)
            raise

    async def tidy(self, inventory: Inventory, keep: str) -> list[CapstanError]:
        """Once for each process: bring home what another one left in the drives, but `keep`. Under `robot`.

        Returns what went wrong; the drives concerned are marked broken.
        """
        errors: list[CapstanError] = []
        if not self.tidied:
            self.tidied = True
            for element in inventory.drives:
                if element.full and element.barcode != keep and self.devices.has_drive(element.place.element):
                    try:
                        await self.send_home(self.drive(element))
                    except CapstanError as error:
                        errors.append(error)
        return errors

    async def close(self) -> None:
        """Let go of drives, robot and lock. Cartridges stay where they are."""
        for slot in self.drives.values():
            with suppress(CapstanError):
                await slot.lane.close()
        self.drives.clear()
        await asyncio.to_thread(self.devices.changer.close)
        await asyncio.to_thread(self.devices.close)


def free_slot(inventory: Inventory, element: Element, library: str) -> SlotAddress:
    """The slot that the cartridge in `element` came from if it is free, else the first free one."""
    free = [slot.place for slot in inventory.slots if not slot.full and slot.accessible]
    if element.source in free and isinstance(element.source, SlotAddress):
        return element.source
    for place in free:
        if isinstance(place, SlotAddress):
            return place
    raise ChangerError(device=library, reason="there is no free slot", hint="export a cartridge first")


def element_of(inventory: Inventory, barcode: str) -> Element:
    """Where `barcode` is. CartridgeMissing when it is not in the library."""
    element = inventory.find(barcode)
    if element is None:
        raise CartridgeMissing(barcodes=barcode)
    return element


def parse_place(inventory: Inventory, text: str) -> Element:
    """The element that `slot:1001`, `drive:101`, `port:201` or a barcode names. NotFound."""
    for element in inventory:
        if text and text in (str(element.place), element.barcode):
            return element
    raise NotFound(what="place or cartridge", name=text, hint="`capstan library show NAME` lists all places")


def _unload(drive: TapeDrive) -> None:
    drive.unload()
