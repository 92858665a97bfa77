"""The port to a media changer (the robot): it moves and reports, and has no policy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


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
    read. `source` is where the cartridge came from, when the changer remembers it. `drive_serial` pairs a drive
    element with a `DriveIdentity.serial` (DVCID)."""

    place: Place
    full: bool
    barcode: str = ""
    accessible: bool = True
    exception: str = ""
    source: Place | None = None
    drive_serial: str = ""


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
        """The element that holds `barcode`."""
        return next((e for e in self if e.full and e.barcode == barcode), None)

    def at(self, place: Place) -> Element | None:
        return next((e for e in self if e.place == place), None)


class MediaChanger(Protocol):
    """One robot. Not thread-safe: one owner."""

    address: str

    def inventory(self) -> Inventory:
        """What the changer believes, without motion. Unit attentions (door, mail slot) are consumed."""
        ...

    def rescan(self) -> Inventory:
        """INITIALIZE ELEMENT STATUS, then `inventory`: the robot looks at every place."""
        ...

    def move(self, source: Place, destination: Place) -> None:
        """Move one cartridge. ChangerError when the source is empty, the destination is full, the drive has not
        ejected, or the robot is stuck; nothing has changed place then, unless the error's `moved` says otherwise."""
        ...

    def lock_door(self, *, locked: bool) -> None:
        """PREVENT/ALLOW MEDIUM REMOVAL."""
        ...

    def close(self) -> None:
        """Twice is harmless."""
        ...
