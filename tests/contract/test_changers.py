"""Changers as they are: large, with doors that people open, with cartridges that show no barcode, and with less than
the standard has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from capstan.errors import (
    ChangerError,
    DeviceError,
    EndOfMedium,
    MediumError,
    NotReady,
    OperatorNeeded,
    Refused,
    Remedy,
    ReservationConflict,
    TransportError,
)
from capstan.scsi import cdb, pages
from capstan.scsi.cdb import Op
from capstan.scsi.pages import ElementType
from capstan.scsi.sense import Key, Sense
from capstan.scsi.transport import Command, Direction, Status, TransportLimits
from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.tape.changer import DriveAddress, MediaChanger, PortAddress, SlotAddress
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.testing.changer_contract import ChangerContract

ILLEGAL_FIELD = Sense(Key.ILLEGAL_REQUEST, 0x24, 0x00)
STATUS, MOVE = frozenset({Op.READ_ELEMENT_STATUS}), frozenset({Op.MOVE_MEDIUM})


def library_in(folder: Path, faults: FaultPlan | None = None, **spec: object) -> VirtualLibrary:
    """A new open library of three slots, two cartridges and one mail slot, unless `spec` says otherwise."""
    made = {"slots": 3, "cartridges": 2, "cleaning_cartridges": 0, "capacity_bytes": 16 << 20, **spec}
    VirtualLibrary.create(folder / "lib", LibrarySpec("lib", **made))  # type: ignore[arg-type]
    return VirtualLibrary.open(folder / "lib", faults=faults)


def robot_of(library: VirtualLibrary, *, max_transfer: int = 8 << 20, only: tuple[range, ...] = ()) -> ScsiMediaChanger:
    transport = library.changer_transport()
    transport.limits = TransportLimits(max_transfer=max_transfer)
    return ScsiMediaChanger(transport, sleep=lambda seconds: None, only=only)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[VirtualLibrary]:
    library = library_in(tmp_path)
    yield library
    library.close()


class TestSixCharacters(ChangerContract):
    """A library that is set to show barcodes without their last two characters."""

    @pytest.fixture
    def changer(self, tmp_path: Path) -> Iterator[MediaChanger]:
        library = library_in(tmp_path, short_tags=True)
        yield robot_of(library)
        library.close()


class TestOldChanger(ChangerContract):
    """One without mode pages, EXCHANGE MEDIUM and ranges, which knows no identifiers of its drives."""

    LACKS = frozenset((Op.MODE_SENSE_6, Op.EXCHANGE_MEDIUM, Op.INITIALIZE_ELEMENT_STATUS_WITH_RANGE))

    @pytest.fixture
    def changer(self, tmp_path: Path) -> Iterator[MediaChanger]:
        plan = FaultPlan(
            (
                Fault(FaultKind.UNKNOWN_COMMAND, unit="changer", opcodes=self.LACKS, permanent=True),
                # The fifth reading is of drives: before it, robots (twice, for it was reset), slots and mail slots.
                Fault(FaultKind.SENSE, nth=5, unit="changer", opcodes=STATUS, sense=ILLEGAL_FIELD),
            )
        )
        library = library_in(tmp_path, plan)
        yield robot_of(library)
        library.close()

    def test_it_says_so(self, changer: MediaChanger) -> None:
        """Drives without serial numbers, no exchange, and a range only until it was refused."""
        assert [element.drive_serial for element in changer.inventory().drives] == ["", ""]
        changer.rescan(SlotAddress(1001))
        assert not changer.capabilities.exchange and not changer.capabilities.range_scan


class TestSmallTransfers(ChangerContract):
    """A path that carries three elements at a time."""

    @pytest.fixture
    def changer(self, tmp_path: Path) -> Iterator[MediaChanger]:
        library = library_in(tmp_path)
        yield robot_of(library, max_transfer=512)
        library.close()


@pytest.mark.parametrize("max_transfer", [300, 4096, 65_536, 8 << 20])
def test_a_large_library(tmp_path: Path, max_transfer: int) -> None:
    """Every element is there, however little one command brings."""
    library = library_in(tmp_path, slots=3000, cartridges=40, drives=20, ports=50)
    found = robot_of(library, max_transfer=max_transfer).inventory()
    assert [len(found.drives), len(found.slots), len(found.ports)] == [20, 3000, 50]
    assert [element.place.element for element in found.slots] == list(range(1001, 4001))
    assert sum(element.full for element in found) == 40
    assert len({element.drive_serial for element in found.drives}) == 20
    library.close()


def test_not_even_one_element(library: VirtualLibrary) -> None:
    """An error, and no inventory that looks empty."""
    transport = library.changer_transport()
    changer = ScsiMediaChanger(transport)
    transport.limits = TransportLimits(max_transfer=60)
    with pytest.raises(DeviceError, match="not even one element"):
        changer.inventory()


def test_all_types_at_once(library: VirtualLibrary) -> None:
    """The robot's answer to "all types" is what it says type by type."""

    def asked(kind: ElementType) -> list[pages.ElementDescriptor]:
        data = memoryview(bytearray(1 << 16))
        command = cdb.read_element_status(kind, length=len(data), device_ids=True)
        transport = library.changer_transport()
        for _ in range(2):
            done = transport.execute(Command(command, Direction.IN, data, 60))
        assert done.status is Status.GOOD
        return pages.decode_element_status(bytes(data[: len(data) - done.residual]))

    kinds = (ElementType.TRANSPORT, ElementType.STORAGE, ElementType.IMPORT_EXPORT, ElementType.DRIVE)
    assert asked(ElementType.ALL) == [item for kind in kinds for item in asked(kind)]


def test_a_person_at_the_door(library: VirtualLibrary) -> None:
    """While it is open nothing moves, and the error asks for a person. Once it is closed the robot is waited for, and
    what a hand has changed is seen, also in the middle of an inventory."""
    changer = robot_of(library)
    changer.lock_door(locked=True)
    with pytest.raises(Refused):
        library.use_door(opened=True)
    changer.lock_door(locked=False)
    library.use_door(opened=True)
    with pytest.raises(OperatorNeeded) as caught:
        changer.move(SlotAddress(1001), SlotAddress(1003))
    assert caught.value.remedy is Remedy.OPERATOR and "close the door" in caught.value.hint_text
    with pytest.raises(NotReady):
        changer.inventory()
    library.carry(1001, 1003)
    library.use_door(opened=False)
    assert changer.inventory().find("CAP001L9").place == SlotAddress(1003)  # type: ignore[union-attr]
    with pytest.raises(Refused):
        library.carry(1003, 1001)


def test_an_inventory_is_of_one_moment(tmp_path: Path) -> None:
    """Something happens while it is read, slot by slot: it is read again from the beginning."""
    plan = FaultPlan(
        (Fault(FaultKind.SENSE, nth=3, unit="changer", opcodes=STATUS, sense=Sense(Key.UNIT_ATTENTION, 0x28, 0x01)),)
    )
    library = library_in(tmp_path, plan)
    changer = robot_of(library)
    changer.inventory()
    assert plan.triggered
    seen = plan.commands_seen
    changer.inventory()
    assert plan.commands_seen - seen == 3
    library.close()


def test_a_changer_that_never_comes_to_rest(tmp_path: Path) -> None:
    """It is told, and not asked for ever."""
    attention = Sense(Key.UNIT_ATTENTION, 0x28, 0x01)
    plan = FaultPlan((Fault(FaultKind.SENSE, unit="changer", opcodes=STATUS, sense=attention, permanent=True),))
    library = library_in(tmp_path, plan)
    with pytest.raises(NotReady):
        robot_of(library).inventory()
    library.close()


def test_mail_slots_say_who_has_used_them(library: VirtualLibrary) -> None:
    """What a person has put in is told from what the robot has put there; both ways are open."""
    changer = robot_of(library)
    port = PortAddress(library.insert_into_port("NEW001L9"))
    element = changer.inventory().at(port)
    assert element is not None and element.put_in and element.imports and element.exports
    changer.move(port, SlotAddress(1003))
    changer.move(SlotAddress(1003), port)
    element = changer.inventory().at(port)
    assert element is not None and element.full and not element.put_in


def test_cartridges_without_a_barcode(library: VirtualLibrary) -> None:
    """They are there, without a name and with a reason, and can be moved; none is taken for another."""
    changer = robot_of(library)
    port = PortAddress(library.insert_into_port("BLANK1L9", unlabelled=True))
    changer.move(port, SlotAddress(1003))
    second = PortAddress(library.insert_into_port("BLANK2L9", unlabelled=True))
    found = changer.inventory()
    for place in (SlotAddress(1003), second):
        element = found.at(place)
        assert element is not None and element.full and element.barcode == ""
        assert element.exception == "volume identifier missing (53/06)"
    assert found.find("") is None and found.find("BLANK1L9") is None


@pytest.mark.parametrize(("short", "shown"), [(False, "ARCHIVE001L9"), (True, "ARCHIVE001")])
def test_long_barcodes(tmp_path: Path, short: bool, shown: str) -> None:
    """A barcode is shown whole, however long; or without the two characters at its end, and its cartridge is known."""
    library = library_in(tmp_path, barcode_prefix="ARCHIVE", short_tags=short, capacity_bytes=17 << 20)
    assert robot_of(library).inventory().slots[0].barcode == shown
    assert library.capacity_of(shown) == 17 << 20
    library.close()


def test_what_cannot_be_reached(library: VirtualLibrary) -> None:
    """The inventory says what and why, and a move from or to there changes nothing."""
    changer = robot_of(library)
    library.block(1001, (0x3B, 0x11))
    element = changer.inventory().at(SlotAddress(1001))
    assert element is not None and not element.accessible
    assert element.exception == "medium magazine not accessible (3B/11)"
    for source, destination in ((1001, 1003), (1002, 1001)):
        with pytest.raises(ChangerError) as caught:
            changer.move(SlotAddress(source), SlotAddress(destination))
        assert caught.value.parameters["moved"] is False and "enable the element" in caught.value.hint_text
    library.block(1001, None)
    changer.move(SlotAddress(1001), SlotAddress(1003))


@pytest.mark.parametrize("kind", [FaultKind.STUCK_ROBOT, FaultKind.HARDWARE_ERROR])
def test_a_robot_that_is_stuck(tmp_path: Path, kind: FaultKind) -> None:
    """The error says whether the cartridge has moved all the same, and the next move is tried."""
    library = library_in(tmp_path, FaultPlan((Fault(kind, unit="changer", opcodes=MOVE),)))
    changer = robot_of(library)
    with pytest.raises(ChangerError) as caught:
        changer.move(SlotAddress(1001), SlotAddress(1003))
    assert caught.value.parameters["moved"] is False
    changer.move(SlotAddress(1001), SlotAddress(1003))
    library.close()


def test_a_lost_answer_is_no_answer(tmp_path: Path) -> None:
    """The cartridge has moved, and nobody says that it has not: the inventory tells."""
    library = library_in(tmp_path, FaultPlan((Fault(FaultKind.ANSWER_LOST, unit="changer", opcodes=MOVE),)))
    changer = robot_of(library)
    with pytest.raises(TransportError):
        changer.move(SlotAddress(1001), SlotAddress(1003))
    assert changer.inventory().find("CAP001L9").place == SlotAddress(1003)  # type: ignore[union-attr]
    library.close()


def test_a_part_of_a_library(library: VirtualLibrary) -> None:
    """Nothing outside of it is seen, and nothing moves there."""
    changer = robot_of(library, only=(range(1001, 1003), range(102, 103)))
    found = changer.inventory()
    assert [str(element.place) for element in found] == ["drive:102", "slot:1001", "slot:1002"]
    for destination in (SlotAddress(1003), DriveAddress(101), PortAddress(201)):
        with pytest.raises(ChangerError, match="not ours"):
            changer.move(SlotAddress(1001), destination)
    with pytest.raises(ChangerError, match="not ours"):
        changer.exchange(SlotAddress(1001), SlotAddress(1002), SlotAddress(1003))
    changer.move(SlotAddress(1001), DriveAddress(102))


def test_two_cartridges_change_places(library: VirtualLibrary) -> None:
    """EXCHANGE MEDIUM with the same place for both ends, with a drive in the middle."""
    changer = robot_of(library)
    changer.exchange(SlotAddress(1001), SlotAddress(1002), SlotAddress(1001))
    found = changer.inventory()
    assert found.find("CAP001L9").place == SlotAddress(1002)  # type: ignore[union-attr]
    assert found.find("CAP002L9").place == SlotAddress(1001)  # type: ignore[union-attr]
    changer.move(SlotAddress(1002), DriveAddress(101))
    with pytest.raises(ChangerError, match="drive"):  # it holds the cartridge: nothing has moved
        changer.exchange(SlotAddress(1001), DriveAddress(101), SlotAddress(1003))
    assert changer.inventory().find("CAP002L9").place == SlotAddress(1001)  # type: ignore[union-attr]


def test_a_robot_of_another_host(tmp_path: Path) -> None:
    """RESERVATION CONFLICT is told as what it is."""
    library = library_in(tmp_path)
    transport = library.changer_transport()

    class Reserved:
        address, limits = transport.address, transport.limits

        def execute(self, command: Command) -> object:
            done = transport.execute(command)
            return type(done)(Status.RESERVATION_CONFLICT) if command.cdb[0] == Op.MOVE_MEDIUM else done

        def close(self) -> None:
            transport.close()

    changer = ScsiMediaChanger(Reserved())  # type: ignore[arg-type]
    with pytest.raises(ReservationConflict):
        changer.move(SlotAddress(1001), SlotAddress(1003))
    library.close()


@pytest.mark.parametrize("kind", [kind for kind in FaultKind if kind is not FaultKind.SENSE])
def test_every_failure_is_told_whole(tmp_path: Path, kind: FaultKind) -> None:
    """Whatever goes wrong in its commands: an error whose text lacks nothing, and that accuses no cartridge."""
    failed = 0
    for nth in range(1, 9):
        folder = tmp_path / str(nth)
        folder.mkdir()
        library = library_in(folder, FaultPlan((Fault(kind, nth=nth),)))
        try:
            robot = robot_of(library)
            robot.inventory()
            robot.move(SlotAddress(1001), SlotAddress(1003))
        except (DeviceError, TransportError) as error:
            failed += 1
            assert "?" not in error.message and not isinstance(error, MediumError | EndOfMedium), error
        library.close()
    assert failed or kind in (FaultKind.BUSY, FaultKind.UNIT_ATTENTION, FaultKind.EARLY_WARNING)
