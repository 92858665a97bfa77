"""READ and WRITE of several blocks at once, as programs of others use them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from capstan.scsi import cdb
from capstan.scsi.sense import Key, Sense, decode_sense
from capstan.scsi.transport import Command, Completion, Direction, ScsiTransport, Status
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.tape.changer import DriveAddress, SlotAddress
from capstan.tape.scsi_changer import ScsiMediaChanger

BLOCK = 512


def send(transport: ScsiTransport, command: bytes, data: bytearray | None = None, *, out: bool = False) -> Completion:
    direction = Direction.NONE if data is None else Direction.OUT if out else Direction.IN
    for _ in range(4):
        answer = transport.execute(Command(command, direction, None if data is None else memoryview(data), 60))
        if not answer.sense or decode_sense(answer.sense).key is not Key.UNIT_ATTENTION:
            return answer
    raise AssertionError("one unit attention after the other")


def fixed(opcode: int, count: int, flags: int = 0x01) -> bytes:
    return bytes((opcode, flags)) + count.to_bytes(3, "big") + b"\0"


def sense_of(answer: Completion) -> Sense:
    assert answer.status is Status.CHECK_CONDITION
    return decode_sense(answer.sense)


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[ScsiTransport]:
    VirtualLibrary.create(tmp_path / "lib", LibrarySpec("lib", capacity_bytes=4 << 20, cartridges=1, slots=2))
    library = VirtualLibrary.open(tmp_path / "lib")
    ScsiMediaChanger(library.changer_transport()).move(SlotAddress(1001), DriveAddress(101))
    transport = library.drive_transport(0)
    header = bytearray(b"\0\0\0\x08\0\0\0\0\0" + BLOCK.to_bytes(3, "big"))
    assert send(transport, cdb.mode_select(len(header)), header, out=True).status is Status.GOOD
    yield transport
    library.close()


def test_as_many_records_as_blocks(drive: ScsiTransport) -> None:
    """Written as four, read as three, and the fourth by a read of variable length."""
    data = bytearray(range(256)) * 8
    assert send(drive, fixed(0x0A, 4), data, out=True).status is Status.GOOD
    send(drive, cdb.rewind())
    three = bytearray(3 * BLOCK)
    assert send(drive, fixed(0x08, 3), three).status is Status.GOOD and three == data[: 3 * BLOCK]
    last = bytearray(BLOCK)
    assert send(drive, fixed(0x08, BLOCK, 0), last).status is Status.GOOD and last == data[3 * BLOCK :]


def test_what_ends_it_early(drive: ScsiTransport) -> None:
    """A filemark, a record of another length, the end of data: what came before is there, and the information says how
    many blocks are left."""
    data = bytearray(b"x" * (2 * BLOCK))
    send(drive, fixed(0x0A, 2), data, out=True)
    send(drive, cdb.write_filemarks(1, immediate=False))
    send(drive, fixed(0x0A, 1), data[:BLOCK], out=True)
    send(drive, fixed(0x0A, 100, 0), data[:100], out=True)
    send(drive, cdb.rewind())
    found = bytearray(5 * BLOCK)
    answer = send(drive, fixed(0x08, 5), found)
    assert (sense_of(answer).filemark, sense_of(answer).information, answer.residual) == (True, 3, 3 * BLOCK)
    answer = send(drive, fixed(0x08, 5), found)
    assert (sense_of(answer).incorrect_length, sense_of(answer).information) == (True, 4)
    answer = send(drive, fixed(0x08, 5), found)
    assert (sense_of(answer).key, sense_of(answer).information) == (Key.BLANK_CHECK, 5)


def test_what_does_not_fit_together(drive: ScsiTransport) -> None:
    """FIXED with SILI, other lengths than were announced, no block length: ILLEGAL REQUEST, and nothing was done."""
    for command, size in ((fixed(0x08, 1, 0x03), BLOCK), (fixed(0x0A, 2), BLOCK), (fixed(0x08, 1), BLOCK - 1)):
        answer = send(drive, command, bytearray(size), out=command[0] == 0x0A)
        assert sense_of(answer).key is Key.ILLEGAL_REQUEST
    variable = bytearray(b"\0\0\0\x08" + bytes(8))
    send(drive, cdb.mode_select(len(variable)), variable, out=True)
    assert sense_of(send(drive, fixed(0x0A, 1), bytearray(BLOCK), out=True)).key is Key.ILLEGAL_REQUEST


def test_the_end_of_the_tape(drive: ScsiTransport) -> None:
    """The early warning comes when all is written; past the end, the information says how many blocks are not."""
    warned = full = None
    while full is None:
        answer = send(drive, fixed(0x0A, 100), bytearray(100 * BLOCK), out=True)
        if answer.status is not Status.GOOD:
            if sense_of(answer).key is Key.NO_SENSE:
                warned = warned or answer
            else:
                full = answer
    assert warned is not None and sense_of(warned).end_of_medium and warned.residual == 0
    assert sense_of(full).key is Key.VOLUME_OVERFLOW
    left = sense_of(full).information
    assert left is not None and 0 < left <= 100 and full.residual == left * BLOCK
