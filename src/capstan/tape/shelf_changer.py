"""The changer of a drive that has none: a shelf, and a person who brings cartridges from it and puts them back.

What is on the shelf has to be said (`add`); what is in the drive is found out by its label. A move into the drive looks
whether the cartridge is there, and raises CartridgeWanted when it is not: whoever waits for the person asks again. A
cartridge with the label of another one is given back; one without a label is taken for the one that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from capstan.errors import CartridgeWanted, ChangerError, NoCartridgeLoaded
from capstan.tape.changer import ChangerCapabilities, DriveAddress, Element, Inventory, Place, SlotAddress
from capstan.tape.drive import TapeDrive

DRIVE, FIRST_SLOT = DriveAddress(1), 1001
_HINT = "there is no robot: people move the cartridges of this library"


class ShelfChanger:
    """Implements `tape.changer.MediaChanger`. Uses the drive, which is not its own, in `move` and when it is made only.

    `shelf`: barcodes by the numbers of their places; `save` keeps it. `identify` reads the barcode on the label of the
    cartridge that is loaded, "" where there is none.
    """

    def __init__(
        self,
        drive: TapeDrive,
        shelf: Mapping[int, str],
        *,
        identify: Callable[[TapeDrive], str],
        save: Callable[[Mapping[int, str]], None],
    ) -> None:
        self.address = drive.address
        self.capabilities = ChangerCapabilities(range_scan=False)
        self._drive = drive
        self._shelf = dict(shelf)
        self._identify = identify
        self._save = save
        self._inside: str | None = None  # the barcode in the drive, "" when it has none; None: the drive is empty
        if drive.status().loaded:
            drive.load()
            self._inside = identify(drive)

    def inventory(self) -> Inventory:
        number = self._place_of(self._inside or "")
        drive = Element(
            DRIVE,
            full=self._inside is not None,
            barcode=self._inside or "",
            source=SlotAddress(number),
            drive_serial=self._drive.identity.serial,
        )
        there = {at: name for at, name in self._shelf.items() if name != self._inside}
        slots = [Element(SlotAddress(at), full=at in there, barcode=there.get(at, "")) for at in self._shelf]
        empty = Element(SlotAddress(max(self._shelf, default=FIRST_SLOT - 1) + 1), full=False)
        return Inventory(drives=(drive,), slots=(*sorted(slots, key=lambda slot: slot.place.element), empty), ports=())

    def rescan(self, first: Place | None = None, count: int = 1) -> Inventory:
        return self.inventory()

    def add(self, barcodes: Iterable[str]) -> list[str]:
        """Put cartridges on the shelf; those that are there already stay where they are. Returns the others."""
        new = [name for name in dict.fromkeys(barcodes) if name not in self._shelf.values()]
        for name in new:
            self._shelf[self._place_of(name)] = name
        self._save(self._shelf)
        return new

    def remove(self, barcode: str) -> None:
        """Somebody takes a cartridge off the shelf. ChangerError while it is in the drive, or when it is not there."""
        number = next((at for at, name in self._shelf.items() if name == barcode), None)
        if number is None or barcode == self._inside:
            where = "in the drive" if barcode == self._inside else "not on the shelf"
            raise ChangerError(device=self.address, reason=f"{barcode} is {where}", hint=_HINT)
        del self._shelf[number]
        self._save(self._shelf)

    def move(self, source: Place, destination: Place) -> None:
        """Into the drive: CartridgeWanted until the cartridge is there, and loaded. Out of it: it was unloaded, and is
        in the hands of whoever takes it."""
        inventory = self.inventory()
        origin, target = inventory.at(source), inventory.at(destination)
        if origin is None or target is None or not origin.full or (target.full and target.barcode != origin.barcode):
            reason = f"cannot move from {source} to {destination}: there is nothing to move, or no room"
            raise ChangerError(device=self.address, reason=reason, moved=False, hint=_HINT)
        if destination == DRIVE:
            self._take(origin.barcode)
        elif source == DRIVE and isinstance(destination, SlotAddress):
            if self._inside and self._inside not in self._shelf.values():
                self._shelf[destination.element] = self._inside
                self._save(self._shelf)
            self._inside = None
        else:
            raise ChangerError(device=self.address, reason="places on the shelf are no matter", moved=False, hint=_HINT)

    def exchange(self, source: Place, destination: Place, displaced: Place) -> None:
        raise ChangerError(device=self.address, reason="it cannot exchange cartridges", moved=False, hint=_HINT)

    def lock_door(self, *, locked: bool) -> None:
        """There is none."""

    def close(self) -> None:
        """The drive is its owner's."""

    def _take(self, barcode: str) -> None:
        if not self._drive.status().loaded:
            raise CartridgeWanted(device=self.address, barcode=barcode, found="nothing")
        try:
            self._drive.load()
        except NoCartridgeLoaded:
            raise CartridgeWanted(device=self.address, barcode=barcode, found="nothing") from None
        found = self._identify(self._drive)
        if found and found != barcode:
            self._drive.unload()
            raise CartridgeWanted(device=self.address, barcode=barcode, found=f"cartridge {found}")
        self._inside = barcode

    def _place_of(self, barcode: str) -> int:
        """Where a cartridge is at home, or the first place that is free."""
        known = next((at for at, name in self._shelf.items() if name == barcode), None)
        at = FIRST_SLOT
        while known is None and at in self._shelf:
            at += 1
        return at if known is None else known
