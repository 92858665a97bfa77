"""A bit that flips between host and drive is found at once, in both directions; of the guards nobody sees anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from capstan.errors import (
    BlockChanged,
    BlockTooLarge,
    Delivery,
    MediumError,
    PositionLost,
    Remedy,
    ReservationConflict,
    TransportError,
)
from capstan.scsi import cdb, protection
from capstan.scsi.cdb import Op
from capstan.scsi.protection import OFF
from capstan.scsi.sense import Key, Sense, encode_sense
from capstan.scsi.transport import Command, Completion, Direction, Status, TransportLimits
from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.tape.changer import DriveAddress, SlotAddress
from capstan.tape.drive import Read
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.testing.drive_contract import LENGTHS, read, write
from capstan.testing.encrypting_drive_contract import KEY, KEY_ID
from capstan.testing.watched_transport import WatchedTransport

IMAGE = Path("lib") / "cartridges" / "CAP001L9.tap"
ILLEGAL = Completion(Status.CHECK_CONDITION, encode_sense(Sense(Key.ILLEGAL_REQUEST, 0x26, 0x00)))


@contextmanager
def line_of(folder: Path, faults: FaultPlan | None = None) -> Iterator[WatchedTransport]:
    """The line to a drive with a blank cartridge."""
    VirtualLibrary.create(folder / "lib", LibrarySpec("lib", cartridges=1, capacity_bytes=32 << 20))
    library = VirtualLibrary.open(folder / "lib", faults=faults)
    ScsiMediaChanger(library.changer_transport()).move(SlotAddress(1001), DriveAddress(101))
    yield WatchedTransport(library.drive_transport(0))
    library.close()


def opened(line: WatchedTransport) -> ScsiTapeDrive:
    drive = ScsiTapeDrive(line, sleep=lambda seconds: None)
    drive.load()
    return drive


def mode_of(line: WatchedTransport) -> protection.ProtectionMode | None:
    """The mode that the drive is in, as another program asks for it."""
    data = memoryview(bytearray(64))
    line.execute(Command(cdb.mode_sense(0x0A, 0xF0, length=64), Direction.IN, data, 60.0))
    return protection.decode_mode_page(bytes(data[12:]))


def no_page(command: Command) -> Completion | None:
    """A drive that does not have the control data protection page."""
    return ILLEGAL if command.cdb[0] == Op.MODE_SENSE_6 and command.cdb[2] == protection.PAGE else None


class Flip:
    """Flips one bit of the n-th transfer of one kind; `bit` counts from the end where it is negative."""

    def __init__(self, opcode: int, nth: int, bit: int) -> None:
        self._opcode, self._left, self._bit = opcode, nth, bit

    def __call__(self, command: Command, completion: Completion | None = None) -> None:
        if command.cdb[0] != self._opcode or command.data is None:
            return
        self._left -= 1
        if self._left == 0:
            moved = command.data[: len(command.data) - (completion.residual if completion else 0)]
            assert not moved.readonly
            moved[self._bit // 8] ^= 1 << self._bit % 8


def test_nobody_sees_the_guards(tmp_path: Path) -> None:
    """With protection on, blocks have the lengths that they were written with, up to the largest, and the cartridge is
    byte for byte what it is without."""
    with line_of(tmp_path / "on") as line:
        drive = opened(line)
        assert drive.capabilities.block_protection
        assert mode_of(line) == protection.ON
        assert drive.capabilities.max_block == (8 << 20) - 4
        data = write(drive, *LENGTHS, drive.capabilities.max_block, None)
        drive.rewind()
        assert [read(drive, len(item)) for item in data] == data
        assert [read(drive), read(drive)] == [Read.FILEMARK, Read.END_OF_DATA]
        drive.locate(1)
        assert read(drive, 64 << 20) == data[1]
        with pytest.raises(BlockTooLarge, match="511 bytes does not fit into 510"):
            read(drive, 510)
        assert read(drive) == data[3]
    with line_of(tmp_path / "off") as line:
        line.before = no_page
        drive = opened(line)
        assert not drive.capabilities.block_protection
        assert drive.capabilities.max_block == 8 << 20
        for item in data:
            drive.write_block(memoryview(item))
        drive.write_filemarks(1)
        line.before = lambda command: None
        assert mode_of(line) == OFF
    assert (tmp_path / "on" / IMAGE).read_bytes() == (tmp_path / "off" / IMAGE).read_bytes()


@pytest.mark.parametrize("key", [None, KEY], ids=["clear", "encrypted"])
@pytest.mark.parametrize("bit", [0, 4321, -33, -1])
def test_a_bit_that_flips_on_the_way_out(tmp_path: Path, bit: int, key: bytes | None) -> None:
    """In the block or in its guard: the drive refuses it, nothing is written, the error names the block and spares the
    cartridge; from its place on, writing goes on."""
    with line_of(tmp_path) as line:
        drive = opened(line)
        if key:
            drive.set_key(key, KEY_ID, encrypt=True)
        data = write(drive, 1000, 1000)
        before = (tmp_path / IMAGE).read_bytes()
        line.before = Flip(Op.WRITE_6, 1, bit)
        with pytest.raises(BlockChanged, match="WRITE: block 2 was changed on its way") as caught:
            write(drive, 1000)
        assert caught.value.remedy is Remedy.REPOSITION
        assert (tmp_path / IMAGE).read_bytes() == before
        with pytest.raises(PositionLost):
            write(drive, 1)
        drive.locate(2)
        if key:
            drive.set_key(key, KEY_ID, encrypt=True)
        data += write(drive, 1000)
        drive.rewind()
        assert [read(drive) for _ in range(4)] == [*data, Read.END_OF_DATA]


@pytest.mark.parametrize("key", [None, KEY], ids=["clear", "encrypted"])
@pytest.mark.parametrize("bit", [0, 4321, -33, -1])
def test_a_bit_that_flips_on_the_way_in(tmp_path: Path, bit: int, key: bytes | None) -> None:
    """The host finds it: a medium error for those who only count what they have lost, which names the block and gives
    nothing of it; the tape stands behind it, and it can be read again."""
    with line_of(tmp_path) as line:
        drive = opened(line)
        if key:
            drive.set_key(key, KEY_ID, encrypt=True)
        data = write(drive, 1000, 1000, 1000)
        drive.rewind()
        line.after = Flip(Op.READ_6, 2, bit)
        assert read(drive) == data[0]
        buffer = memoryview(bytearray(1000))
        with pytest.raises(BlockChanged, match="READ: block 1 was changed on its way") as caught:
            drive.read_block(buffer)
        assert isinstance(caught.value, MediumError)
        assert bytes(buffer) == bytes(1000)
        assert read(drive) == data[2]
        drive.locate(1)
        assert read(drive) == data[1]


def test_without_protection_it_is_not_found(tmp_path: Path) -> None:
    """What the other tests prove is the protection's doing."""
    with line_of(tmp_path) as line:
        line.before = no_page
        drive = opened(line)
        [data] = write(drive, 1000)
        drive.rewind()
        line.after = Flip(Op.READ_6, 1, 4321)
        assert read(drive) != data


@pytest.mark.parametrize("kind", [FaultKind.UNIT_ATTENTION, FaultKind.ANSWER_LOST])
@pytest.mark.parametrize("opcode", [Op.WRITE_6, Op.READ_6, Op.LOCATE_16, Op.MODE_SELECT_6, Op.MODE_SENSE_6])
def test_a_drive_that_was_reset(tmp_path: Path, kind: FaultKind, opcode: Op) -> None:
    """It has forgotten the mode, and would write guards as data: before the next block it is set again, whenever the
    reset was heard of. No block ever has a guard on the medium, and protection is on at the end."""
    for nth in range(1, 6):
        plan = FaultPlan((Fault(kind, nth=nth, unit="drive0", opcodes=frozenset({opcode})),))
        with line_of(tmp_path / str(nth), plan) as line:
            drive = None
            for _ in range(4):
                try:
                    drive = drive or opened(line)
                    drive.locate(0)
                    data = write(drive, 100, 101, 102)
                    drive.locate(0)
                    assert [read(drive) for _ in range(4)] == [*data, Read.END_OF_DATA]
                    drive.locate(1)
                    data[1:] = write(drive, 103)
                    drive.locate(0)
                    assert [read(drive) for _ in range(3)] == [*data, Read.END_OF_DATA]
                    break
                except (PositionLost, TransportError):
                    assert plan.triggered
            else:
                raise AssertionError("it never came to an end")
            assert drive.capabilities.block_protection
            plan.faults = ()  # one that has not come yet would hit the question
            assert mode_of(line) == protection.ON


def test_others_find_the_drive_as_it_was(tmp_path: Path) -> None:
    """Programs that know of no guards must not be given any: unloading and closing turn protection off."""
    with line_of(tmp_path) as line:
        drive = opened(line)
        write(drive, 10)
        drive.unload()
        assert mode_of(line) == OFF
        drive.load()
        assert mode_of(line) == protection.ON
        modes: list[int] = []
        line.after = lambda command, completion: modes.append(command.cdb[0])
        drive.close()
        drive.close()
        assert modes == [Op.MODE_SELECT_6, Op.MODE_SENSE_6]


def test_a_cartridge_that_is_in_the_drive_already(tmp_path: Path) -> None:
    """A drive that is opened and not loaded is protected from its first block on."""
    with line_of(tmp_path) as line:
        opened(line).unload()
        line.execute(Command(cdb.load_unload(load=True), Direction.NONE, None, 60.0))
        drive = ScsiTapeDrive(line)
        drive.rewind()
        assert mode_of(line) == OFF
        [data] = write(drive, 100)
        assert mode_of(line) == protection.ON
        drive.rewind()
        assert read(drive) == data


def test_a_mode_of_which_nobody_knows(tmp_path: Path) -> None:
    """The drive was told its mode, and the answer to the question for it is lost: all the same it is turned off when
    the drive is left, and set again before the next block."""

    def lose_the_answer(command: Command) -> Completion | None:
        if command.cdb[0] == Op.MODE_SENSE_6 and command.cdb[2] == protection.PAGE:
            line.before = lambda command: None
            raise TransportError(delivery=Delivery.UNKNOWN, address="line", reason="the answer was lost")
        return None

    for leave in (True, False):
        with line_of(tmp_path / str(leave)) as line:
            drive = ScsiTapeDrive(line)
            drive.rewind()
            line.before = lose_the_answer
            with pytest.raises(TransportError):
                write(drive, 100)
            assert mode_of(line) == protection.ON
            if leave:
                drive.unload()
                assert mode_of(line) == OFF
            else:
                drive.rewind()
                [data] = write(drive, 100)
                drive.rewind()
                assert read(drive) == data


def test_a_load_that_fails_half_way(tmp_path: Path) -> None:
    """Another host has reserved the drive, and lets go of it: the mode is set before the next block."""
    with line_of(tmp_path) as line:
        drive = opened(line)
        asks = (Op.MODE_SENSE_6, protection.PAGE)
        line.before = lambda command: (
            Completion(Status.RESERVATION_CONFLICT) if (command.cdb[0], command.cdb[2]) == asks else None
        )
        with pytest.raises(ReservationConflict):
            drive.load()
        line.before = lambda command: None
        [data] = write(drive, 100)
        drive.rewind()
        assert read(drive) == data


@pytest.mark.parametrize("how", ["refuses", "half", "small"])
def test_a_drive_that_does_not_protect(tmp_path: Path, how: str) -> None:
    """One that refuses the mode, that does half of it, or behind a transport that carries no block of 1 MiB with its
    guard: it works without, and says so."""
    with line_of(tmp_path) as line:

        def before(command: Command) -> Completion | None:
            if command.cdb[0] != Op.MODE_SELECT_6 or command.data is None or len(command.data) < 44:
                return None
            if how == "half" and command.data[12 + 4]:
                command.data = memoryview(bytes(command.data[:18]) + b"\x80" + bytes(command.data[19:]))
            return ILLEGAL if how == "refuses" else None

        if how == "small":
            opened(line)  # a run that is killed, and leaves protection on
            assert mode_of(line) == protection.ON
            line.limits = TransportLimits(max_transfer=1 << 20)
        line.before = before
        drive = opened(line)
        assert not drive.capabilities.block_protection
        assert mode_of(line) == OFF
        data = write(drive, 100, 1 << 20)
        drive.rewind()
        assert [read(drive, len(item)) for item in data] == data


def test_a_drive_that_has_something_to_say(tmp_path: Path) -> None:
    """RECOVERED ERROR means that it was done; whether it was, is asked."""
    rounded = Completion(Status.CHECK_CONDITION, encode_sense(Sense(Key.RECOVERED_ERROR, 0x37, 0x00)))
    with line_of(tmp_path) as line:

        def before(command: Command) -> Completion | None:
            if command.cdb[0] != Op.MODE_SELECT_6:
                return None
            done = line.inner.execute(command)
            return rounded if done.status is Status.GOOD else done

        line.before = before
        drive = opened(line)
        assert drive.capabilities.block_protection
        assert mode_of(line) == protection.ON


def test_a_reset_that_is_heard_of_while_the_mode_is_set(tmp_path: Path) -> None:
    """The tape is not where it was: nothing is written there."""
    plan = FaultPlan()
    with line_of(tmp_path, plan) as line:
        drive = opened(line)
        data = write(drive, 100, 101)
        plan.faults = (
            Fault(FaultKind.UNIT_ATTENTION, opcodes=frozenset({Op.LOCATE_16})),
            Fault(FaultKind.UNIT_ATTENTION, opcodes=frozenset({Op.MODE_SELECT_6})),
        )
        drive.locate(2)
        with pytest.raises(PositionLost):
            write(drive, 102)
        drive.locate(2)
        data += write(drive, 102)
        drive.rewind()
        assert [read(drive) for _ in data] == data


def test_one_buffer_for_all_blocks(tmp_path: Path) -> None:
    """Blocks pass through one buffer, in which they are put once: none is made for each, and the drive is told its mode
    but once."""
    buffers = set()

    def after(command: Command, completion: Completion) -> None:
        assert command.cdb[0] != Op.MODE_SELECT_6
        if command.cdb[0] in (Op.READ_6, Op.WRITE_6) and command.data is not None:
            buffers.add(id(command.data.obj))

    with line_of(tmp_path) as line:
        drive = opened(line)
        write(drive, 100_000)
        line.after = after
        write(drive, *LENGTHS[:-1])
        drive.rewind()
        for _ in LENGTHS:
            read(drive, 100_000)
    assert len(buffers) == 1
