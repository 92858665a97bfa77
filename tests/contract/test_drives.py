"""Every drive there is keeps the drive's promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from capstan.errors import EndOfMedium, MediumError, PositionLost, TransportError, WriteProtected
from capstan.scsi.cdb import Op
from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.tape.changer import DriveAddress, SlotAddress
from capstan.tape.drive import Room, TapeDrive
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.testing.drive_contract import (
    DriveContract,
    read,
    write,
)
from capstan.testing.encrypting_drive_contract import EncryptingDriveContract
from capstan.testing.memory_drive import MemoryTape, MemoryTapeDrive

WRITES = frozenset({Op.WRITE_6})


def opened(folder: Path, faults: FaultPlan | None = None, **spec: int) -> Iterator[ScsiTapeDrive]:
    """A drive of a new virtual library, with a blank cartridge loaded."""
    VirtualLibrary.create(folder / "lib", LibrarySpec("lib", cartridges=1, **{"capacity_bytes": 16 << 20, **spec}))
    library = VirtualLibrary.open(folder / "lib", faults=faults)
    ScsiMediaChanger(library.changer_transport()).move(SlotAddress(1001), DriveAddress(101))
    drive = ScsiTapeDrive(library.drive_transport(0), sleep=lambda seconds: None)
    drive.load()
    yield drive
    drive.close()
    library.close()


class TestVirtualDrive(DriveContract, EncryptingDriveContract):
    @pytest.fixture
    def drive(self, tmp_path: Path) -> Iterator[TapeDrive]:
        yield from opened(tmp_path)

    @pytest.fixture
    def medium(self, tmp_path: Path) -> Callable[[], bytes]:
        return (tmp_path / "lib" / "cartridges" / "CAP001L9.tap").read_bytes


class TestOldDrive(DriveContract):
    """One without LOCATE, logs, cartridge memory, reservations, access order, densities and the newer mode pages."""

    LACKS = frozenset(
        (
            Op.LOCATE_16,
            Op.LOG_SENSE,
            Op.READ_ATTRIBUTE,
            Op.WRITE_ATTRIBUTE,
            Op.PERSISTENT_RESERVE_IN,
            Op.PERSISTENT_RESERVE_OUT,
            Op.MAINTENANCE_IN,
            Op.MAINTENANCE_OUT,
            Op.REPORT_DENSITY_SUPPORT,
            Op.SECURITY_PROTOCOL_IN,
        )
    )

    @pytest.fixture
    def drive(self, tmp_path: Path) -> Iterator[TapeDrive]:
        plan = FaultPlan((Fault(FaultKind.UNKNOWN_COMMAND, opcodes=self.LACKS, permanent=True),))
        yield from opened(tmp_path, plan)

    def test_it_says_so(self, drive: TapeDrive) -> None:
        """What it lacks; what it takes is known by its name."""
        drive.locate(0)
        able = drive.capabilities
        assert not (able.locate or able.log_sense or able.attributes or able.reservations or able.access_order)
        assert able.writes == ("LTO-8", "LTO-9")


class TestMemoryDrive(DriveContract, EncryptingDriveContract):
    @pytest.fixture
    def tape(self) -> MemoryTape:
        return MemoryTape()

    @pytest.fixture
    def drive(self, tape: MemoryTape) -> TapeDrive:
        drive = MemoryTapeDrive(tape)
        drive.load()
        return drive

    @pytest.fixture
    def medium(self, tape: MemoryTape) -> Callable[[], bytes]:
        return lambda: b"".join(block for block in tape.blocks if block)


class TestDriveThatDoesNotEncrypt(DriveContract):
    @pytest.fixture
    def drive(self) -> TapeDrive:
        return MemoryTapeDrive(MemoryTape(), encrypts=False)


def test_nothing_goes_on_from_an_unknown_position(tmp_path: Path) -> None:
    """After a unit attention or a lost answer all but the positioning commands is refused, until one succeeds."""
    for kind, error in ((FaultKind.UNIT_ATTENTION, PositionLost), (FaultKind.ANSWER_LOST, TransportError)):
        plan = FaultPlan((Fault(kind, nth=3, opcodes=WRITES),))
        for drive in opened(tmp_path / kind.value, plan):
            write(drive, 10, 20)
            with pytest.raises(error):
                write(drive, 30)
            with pytest.raises(PositionLost):
                write(drive, 1)
            with pytest.raises(PositionLost):
                read(drive)
            with pytest.raises(PositionLost):
                drive.write_filemarks(1)
            drive.locate(1)
            assert len(read(drive)) == 20


def test_a_position_is_never_that_of_a_reset(tmp_path: Path) -> None:
    """A reset between a motion and the question where it led is told, not answered with the beginning of the tape."""
    # The first question is that of the load, at the beginning.
    plan = FaultPlan((Fault(FaultKind.UNIT_ATTENTION, nth=2, opcodes=frozenset({Op.READ_POSITION})),))
    for drive in opened(tmp_path, plan):
        write(drive, 10, 20)
        with pytest.raises(PositionLost):
            drive.position()
        assert drive.position().block == 0  # where it is now, for those who ask again


def test_the_end_of_the_cartridge(tmp_path: Path) -> None:
    """First the early warning as an answer, with room left; at the very end EndOfMedium, and nothing half-written."""
    block = memoryview(bytes(65_536))
    for drive in opened(tmp_path, capacity_bytes=8 << 20):
        rooms = []
        with pytest.raises(EndOfMedium):
            while True:
                rooms.append(drive.write_block(block))
        assert rooms.count(Room.EARLY_WARNING) > 4
        assert rooms == sorted(rooms, key=lambda room: room is Room.EARLY_WARNING)
        assert drive.position().block == len(rooms)
        drive.locate(len(rooms) - 1)
        assert read(drive) == bytes(block)


def test_a_medium_error_names_its_block(tmp_path: Path) -> None:
    """So that an operator can be told where the tape is bad."""
    for drive in opened(tmp_path, FaultPlan((Fault(FaultKind.MEDIUM_ERROR, nth=2, opcodes=frozenset({Op.READ_6})),))):
        write(drive, 10, 20, 30)
        drive.rewind()
        read(drive)
        with pytest.raises(MediumError, match="block 1"):
            read(drive)


def test_a_write_protected_cartridge(tmp_path: Path) -> None:
    """It says so in its status, and refuses to be written."""
    VirtualLibrary.create(tmp_path / "lib", LibrarySpec("lib", cartridges=1))
    library = VirtualLibrary.open(tmp_path / "lib")
    library.set_write_protected("CAP001L9", protected=True)
    ScsiMediaChanger(library.changer_transport()).move(SlotAddress(1001), DriveAddress(101))
    drive = ScsiTapeDrive(library.drive_transport(0))
    drive.load()
    assert drive.status().write_protected
    with pytest.raises(WriteProtected):
        write(drive, 10)
    library.close()


def test_a_drive_that_is_busy_is_asked_again(tmp_path: Path) -> None:
    """BUSY means that the command was not begun: it is sent again, and nothing is written twice."""
    for drive in opened(tmp_path, FaultPlan((Fault(FaultKind.BUSY, nth=2, opcodes=WRITES),))):
        data = write(drive, 10, 20, 30)
        drive.rewind()
        assert [read(drive) for _ in data] == data
