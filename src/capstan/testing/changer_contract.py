"""What every media changer must do (`tape.changer.MediaChanger`).

Bind it by giving a fixture `changer`: at least two drives, both empty, three slots with two cartridges, one mail slot.
"""

from __future__ import annotations

import pytest

from capstan.errors import ChangerError
from capstan.tape.changer import DriveAddress, MediaChanger, PortAddress, SlotAddress


class ChangerContract:
    """Promises of the port."""

    def test_inventory_knows_every_place(self, changer: MediaChanger) -> None:
        """Each kind of element in order of its address; barcodes without padding; empty places have none."""
        found = changer.inventory()
        for elements, kind in ((found.drives, DriveAddress), (found.slots, SlotAddress), (found.ports, PortAddress)):
            assert elements
            assert all(isinstance(element.place, kind) for element in elements)
            numbers = [element.place.element for element in elements]
            assert numbers == sorted(set(numbers))
        for element in found:
            assert bool(element.barcode) == element.full
            assert element.barcode == element.barcode.strip()
        assert changer.rescan() == found

    def test_a_move_and_the_way_back(self, changer: MediaChanger) -> None:
        """The cartridge is at its new place, the old one is empty, and the changer may remember where it came from."""
        before = changer.inventory()
        source = next(element for element in before.slots if element.full)
        free = next(element for element in before.slots if not element.full)
        changer.move(source.place, free.place)
        after = changer.inventory()
        moved = after.at(free.place)
        assert moved is not None
        assert moved.barcode == source.barcode
        assert moved.source in (None, source.place)
        left = after.at(source.place)
        assert left is not None
        assert not left.full
        assert after.find(source.barcode) == moved
        changer.move(free.place, source.place)
        assert changer.inventory().find(source.barcode).place == source.place  # type: ignore[union-attr]

    def test_moves_that_cannot_be_made_change_nothing(self, changer: MediaChanger) -> None:
        """From an empty place, to a full one, to one that is not there: ChangerError, all as before."""
        before = changer.inventory()
        full = [element.place for element in before.slots if element.full]
        empty = next(element.place for element in before.slots if not element.full)
        for source, destination in ((empty, full[0]), (full[0], full[1]), (full[0], SlotAddress(64_000))):
            with pytest.raises(ChangerError):
                changer.move(source, destination)
        assert changer.inventory() == before

    def test_one_place_is_looked_at(self, changer: MediaChanger) -> None:
        """Whether the robot looks at one place or at all of them, the inventory is whole."""
        before = changer.inventory()
        assert changer.rescan(before.slots[0].place) == before
        assert changer.rescan(before.slots[0].place, len(before.slots)) == before

    def test_an_exchange(self, changer: MediaChanger) -> None:
        """Two cartridges change places, or the second one goes where it is told; what cannot be changes nothing."""
        before = changer.inventory()
        first, second = [element for element in before.slots if element.full][:2]
        free = next(element.place for element in before.slots if not element.full)
        if not changer.capabilities.exchange:
            with pytest.raises(ChangerError):
                changer.exchange(first.place, second.place, first.place)
            assert changer.inventory() == before
            return  # the changer cannot exchange
        changer.exchange(first.place, second.place, free)
        after = changer.inventory()
        assert [after.at(place).barcode for place in (first.place, second.place, free)] == [  # type: ignore[union-attr]
            "",
            first.barcode,
            second.barcode,
        ]
        changer.move(second.place, first.place)
        changer.move(free, second.place)
        for wrong in ((free, first.place, second.place), (first.place, free, second.place)):
            with pytest.raises(ChangerError):
                changer.exchange(*wrong)
        assert [(item.place, item.barcode) for item in changer.inventory()] == [
            (item.place, item.barcode) for item in before
        ]

    def test_a_barcode_with_and_without_its_end(self, changer: MediaChanger) -> None:
        """Libraries are set to show six characters or eight: a cartridge is found by either."""
        element = next(element for element in changer.inventory().slots if len(element.barcode) in (6, 8))
        other = element.barcode[:6] if len(element.barcode) == 8 else f"{element.barcode}L9"
        assert changer.inventory().find(other) == element
        assert changer.inventory().find("NEVER1") is None

    def test_the_door(self, changer: MediaChanger) -> None:
        """It can be locked and unlocked."""
        changer.lock_door(locked=True)
        changer.lock_door(locked=False)

    def test_close_twice(self, changer: MediaChanger) -> None:
        """Twice is harmless."""
        changer.close()
        changer.close()
