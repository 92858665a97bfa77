"""Which drive is in which element of a changer."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from capstan.errors import InvalidValue
from capstan.library_devices import pair
from capstan.tape.changer import DriveAddress, Element, Inventory
from capstan.tape.drive import DriveIdentity


@dataclass
class Answering:
    """As much of a drive as is asked."""

    serial: str

    @property
    def address(self) -> str:
        return f"sg:/dev/{self.serial}"

    @property
    def identity(self) -> DriveIdentity:
        return DriveIdentity("IBM", "ULT3580-TD9", "0001", self.serial)


def paired(elements: list[str], drives: list[str]) -> dict[int, str]:
    """Element numbers with the serial numbers of the drives there; `elements`: what the changer says of each."""
    found = tuple(
        Element(place=DriveAddress(256 + number), full=False, drive_serial=serial)
        for number, serial in enumerate(elements)
    )
    placed = pair(Inventory(drives=found, slots=(), ports=()), [Answering(serial) for serial in drives])
    return {element: drive.identity.serial for element, drive in placed.items()}


def test_by_serial_numbers() -> None:
    """Also where the changer says vendor and product before them, and whatever the order."""
    said = ["IBM     ULT3580-TD9     0001", "IBM     ULT3580-TD9     0002"]
    assert paired(said, ["0002", "0001"]) == {256: "0001", 257: "0002"}
    assert paired(said, ["0002"]) == {257: "0002"}


def test_in_order_where_the_changer_says_nothing() -> None:
    assert paired(["", ""], ["B", "A"]) == {256: "B", 257: "A"}
    assert paired(["A", ""], ["B", "A"]) == {256: "A", 257: "B"}


def test_a_drive_of_another_library() -> None:
    with pytest.raises(InvalidValue, match="X"):
        paired(["A", "B"], ["A", "X"])
    with pytest.raises(InvalidValue, match="X"):
        paired([""], ["A", "X"])
    with pytest.raises(InvalidValue, match="A"):  # the same one twice
        paired(["A", "B"], ["A", "A"])
