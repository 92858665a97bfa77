"""The port to a media changer (the robot): it moves and reports, and has no policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from capstan.core.generations import same_barcode


@dataclass(frozen=True, slots=True, order=True)
class SlotAddress:
    """Element address of a storage slot."""

    element: int

    def __str__(self) -> str:
        return f"slot:{self.element}"


@dataclass(frozen=True, slots=True, order=True)
class PortAddress:
    """Element address of a mail slot."""

    element: int

    def __str__(self) -> str:
        return f"port:{self.element}"


@dataclass(frozen=True, slots=True, order=True)
class DriveAddress:
    """Element address of a drive in its changer."""

    element: int

    def __str__(self) -> str:
        return f"drive:{self.element}"


Place = SlotAddress | PortAddress | DriveAddress


@dataclass(frozen=True, slots=True)
class Element:
    """One place and what is in it. `barcode` is the volume tag without padding, "" when it has none or none was
    read. `accessible`: the robot reaches it; `exception`: what is wrong with it, in words. `source` is where the
    cartridge came from, when the changer remembers it. `drive_serial` pairs a drive element with a
    `DriveIdentity.serial` (DVCID). Of a mail slot: `put_in` says that a person has put the cartridge there;
    `imports`, `exports`: which way it can be used."""

    place: Place
    full: bool
    barcode: str = ""
    accessible: bool = True
    exception: str = ""
    source: Place | None = None
    drive_serial: str = ""
    put_in: bool = False
    imports: bool = True
    exports: bool = True


@dataclass(frozen=True, slots=True)
class Inventory:
    """All elements, each kind in element order."""

    drives: tuple[Element, ...]
    slots: tuple[Element, ...]
    ports: tuple[Element, ...]

    def __iter__(self) -> Iterator[Element]:
        yield from self.drives
        yield from self.slots
        yield from self.ports

    def find(self, barcode: str) -> Element | None:
        """The element that holds `barcode`; in a library that shows barcodes without their last two characters, or
        with them when `barcode` has none, the only one that can be it."""
        full = [element for element in self if element.full and element.barcode]
        exact = [element for element in full if element.barcode == barcode]
        if exact:
            return exact[0]
        like = [element for element in full if same_barcode(element.barcode, barcode)]
        return like[0] if len(like) == 1 else None

    def at(self, place: Place) -> Element | None:
        return next((e for e in self if e.place == place), None)


@dataclass(frozen=True, slots=True)
class ChangerCapabilities:
    """Discovered when the changer is opened. `exchange`: it has EXCHANGE MEDIUM between slots and drives. `range_scan`:
    it looks at single places, until it has refused to."""

    exchange: bool = False
    mail_slots: bool = False
    range_scan: bool = True

    def without_range_scan(self) -> ChangerCapabilities:
        """It has refused to."""
        return replace(self, range_scan=False)


class MediaChanger(Protocol):
    """One robot. Not thread-safe: one owner.

    A changer that is becoming ready is waited for; one that needs a person raises OperatorNeeded.
    """

    address: str
    capabilities: ChangerCapabilities

    def inventory(self) -> Inventory:
        """What the changer believes, without motion. Unit attentions (door, mail slot) are consumed, and it is read
        again from the beginning when one comes: it is of one moment."""
        ...

    def rescan(self, first: Place | None = None, count: int = 1) -> Inventory:
        """INITIALIZE ELEMENT STATUS, then `inventory`: the robot looks at every place, or at `count` of them from
        `first` where it can (else at every one)."""
        ...

    def move(self, source: Place, destination: Place) -> None:
        """Move one cartridge. ChangerError when the source is empty, the destination is full, the drive has not
        ejected, a place cannot be reached, or the robot is stuck; nothing has changed place then, unless the error's
        parameter `moved` is True, or None: the changer does not know. TransportError: it may have moved."""
        ...

    def exchange(self, source: Place, destination: Place, displaced: Place) -> None:
        """Move the cartridge in `source` to `destination`, and what was there to `displaced`, which may be `source`.
        Errors as those of `move`; ChangerError where the changer has no such command (`capabilities.exchange`)."""
        ...

    def lock_door(self, *, locked: bool) -> None:
        """PREVENT/ALLOW MEDIUM REMOVAL."""
        ...

    def close(self) -> None:
        """Twice is harmless."""
        ...
