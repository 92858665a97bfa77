"""Every drive there is keeps the drive's promises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from capstan.errors import BlockChanged, EndOfMedium, MediumError, PositionLost, TransportError, WriteProtected
from capstan.scsi.cdb import Op
from capstan.scsi.transport import Command, Completion, Direction, ScsiTransport
from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.tape.changer import DriveAddress, SlotAddress
from capstan.tape.drive import Read, Room, TapeDrive
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.testing.drive_contract import DriveContract, read, write
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


class TestVirtualDrive(DriveContract):
    @pytest.fixture
    def drive(self, tmp_path: Path) -> Iterator[TapeDrive]:
        yield from opened(tmp_path)


class TestMemoryDrive(DriveContract):
    @pytest.fixture
    def drive(self) -> TapeDrive:
        drive = MemoryTapeDrive(MemoryTape())
        drive.load()
        return drive


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
    plan = FaultPlan((Fault(FaultKind.UNIT_ATTENTION, opcodes=frozenset({Op.READ_POSITION})),))
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


def test_what_lies_in_the_cartridge(tmp_path: Path) -> None:
    """Neither the data nor the key is in the file of a cartridge, and the id of the key is; a byte that was changed
    there is damage of that record alone, never other data."""
    for drive in opened(tmp_path):
        assert drive.encryption is not None
        drive.encryption.set_key(bytes(range(32)), "c0ffee", encrypt=True)
        for _ in range(2):
            drive.write_block(memoryview(b"in plain words" * 100))
        drive.write_filemarks(1)
        path = next(tmp_path.rglob("*.tap"))
        content = bytearray(path.read_bytes())
        assert b"plain words" not in content and bytes(range(32)) not in content and content.count(b"\xc0\xff\xee") == 2
        content[500] ^= 1
        path.write_bytes(content)
        drive.rewind()
        buffer = memoryview(bytearray(4096))
        with pytest.raises(Exception, match="integrity"):
            drive.read_block(buffer)
        drive.locate(1)
        assert bytes(buffer[: drive.read_block(buffer).length]) == b"in plain words" * 100


class Corrupting:
    """A path that flips a bit of every record, one way, while it is told to."""

    def __init__(self, inner: ScsiTransport, opcode: int) -> None:
        self.address, self.limits = inner.address, inner.limits
        self._inner, self._opcode = inner, opcode
        self.active = False

    def execute(self, command: Command) -> Completion:
        hit = self.active and command.cdb[0] == self._opcode and command.data is not None
        if hit and command.direction is Direction.OUT:
            command = replace(command, data=memoryview(bytearray(command.data)))
            command.data[7] ^= 0x10
        completion = self._inner.execute(command)
        if hit and command.direction is Direction.IN:
            command.data[7] ^= 0x10
        return completion

    def close(self) -> None:
        self._inner.close()


def corrupted(folder: Path, opcode: int) -> Iterator[tuple[ScsiTapeDrive, Corrupting]]:
    """A drive behind a path that can be told to flip bits of one command's data."""
    VirtualLibrary.create(folder / "lib", LibrarySpec("lib", cartridges=1, capacity_bytes=16 << 20))
    library = VirtualLibrary.open(folder / "lib")
    ScsiMediaChanger(library.changer_transport()).move(SlotAddress(1001), DriveAddress(101))
    path = Corrupting(library.drive_transport(0), opcode)
    drive = ScsiTapeDrive(path, sleep=lambda seconds: None)
    drive.load()
    yield drive, path
    drive.close()
    library.close()


def test_a_bit_that_flips_on_its_way_to_the_drive(tmp_path: Path) -> None:
    """The drive does not write it, and says so; behind a LOCATE the same record is written again."""
    for drive, path in corrupted(tmp_path, Op.WRITE_6):
        assert drive.capabilities.block_protection
        [first] = write(drive, 5000)
        path.active = True
        with pytest.raises(BlockChanged, match="block 1"):
            write(drive, 6000)
        path.active = False
        with pytest.raises(PositionLost):
            write(drive, 1)
        drive.locate(1)
        [second] = write(drive, 6000)
        drive.rewind()
        assert (read(drive), read(drive), read(drive)) == (first, second, Read.END_OF_DATA)


def test_a_bit_that_flips_on_its_way_from_the_drive(tmp_path: Path) -> None:
    """It is never given on; read again, the record is what it was."""
    for drive, path in corrupted(tmp_path, Op.READ_6):
        [first] = write(drive, 5000)
        drive.rewind()
        path.active = True
        with pytest.raises(BlockChanged, match="block 0"):
            read(drive)
        path.active = False
        drive.locate(0)
        assert read(drive) == first


def test_a_reset_drive_is_told_again(tmp_path: Path) -> None:
    """What stands behind records never becomes data: after a reset, which turns the protection off, it is turned on
    before the next record; and the image of a cartridge has none of it."""
    plan = FaultPlan((Fault(FaultKind.UNIT_ATTENTION, nth=3, opcodes=WRITES),))
    for drive in opened(tmp_path, plan):
        data = write(drive, 4096, 100)
        with pytest.raises(PositionLost):
            write(drive, 1)
        drive.locate(2)
        data += write(drive, 77)
        drive.rewind()
        assert [read(drive) for _ in data] == data
        assert drive.capabilities.max_block == (8 << 20) - 4
        drive.unload()
        path = next(tmp_path.rglob("*.tap"))
        assert path.stat().st_size == 4096 + 8 + 100 + 8 + 78 + 8
