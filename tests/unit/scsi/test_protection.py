"""Logical block protection: the page as the standard draws it, and a virtual drive that keeps it at its door."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.core.generations import GENERATIONS
from capstan.scsi import cdb, protection
from capstan.scsi.pages import decode_mode
from capstan.scsi.protection import OFF, ON, ProtectionMode, guard_of
from capstan.scsi.sense import Key, Sense
from capstan.scsi.virtual.cartridge import CartridgeFacts, VirtualCartridge
from capstan.scsi.virtual.drive import VirtualDrive
from capstan.scsi.virtual.storage import DiskStorage
from capstan.scsi.virtual.target import CheckCondition
from capstan.scsi.virtual.timing import Timing

BLOCK = b"123456789"
GUARD = bytes.fromhex("839206e3")  # CRC-32C of it is E3069283h (RFC 3720, B.4, and everybody since)
HEADER = bytes((0, 0, 0x10, 0))


@pytest.fixture
def drive(tmp_path: Path) -> VirtualDrive:
    drive = VirtualDrive(generation=GENERATIONS[9], serial="S", timing=Timing())
    drive.insert(VirtualCartridge.create(tmp_path, CartridgeFacts("T00001L9", 9, 1 << 24), DiskStorage()))
    return drive


def select(drive: VirtualDrive, page: bytes) -> None:
    drive.perform(cdb.mode_select(4 + len(page)), memoryview(HEADER + page))


def sensed(drive: VirtualDrive, subpage: int = 0xF0, page: int = 0x0A) -> bytes:
    data = memoryview(bytearray(255))
    return decode_mode(bytes(data[: drive.perform(cdb.mode_sense(page, subpage), data)])).page


def write(drive: VirtualDrive, data: bytes) -> None:
    drive.perform(cdb.write(len(data)), memoryview(data))


def read(drive: VirtualDrive, size: int) -> tuple[bytes, int]:
    """What came, and what the drive said was missing."""
    drive.perform(cdb.locate(0), None)
    data = memoryview(bytearray(size))
    try:
        return bytes(data[: drive.perform(cdb.read(size), data)]), 0
    except CheckCondition as check:
        assert check.sense.incorrect_length
        return bytes(data[: check.moved]), check.sense.information or 0


def test_the_page_byte_by_byte() -> None:
    """Page 0Ah, subpage F0h, method 02h with 4 bytes, LBP_W and LBP_R; the guard is least significant byte first."""
    assert protection.encode_mode_page(ON).hex(" ") == "4a f0 00 1c 02 04 c0" + " 00" * 25
    assert protection.encode_mode_page(OFF).hex(" ") == "4a f0 00 1c" + " 00" * 28
    assert guard_of(memoryview(BLOCK)) == GUARD


@given(st.builds(ProtectionMode, st.integers(0, 255), st.integers(0, 63), st.booleans(), st.booleans()), st.binary())
def test_pages_come_back(mode: ProtectionMode, data: bytes) -> None:
    """What one end encodes, the other decodes, with PS set too; of other bytes nothing is made, and nothing raises."""
    page = bytearray(protection.encode_mode_page(mode))
    assert protection.decode_mode_page(page) == mode
    page[0] |= 0x80
    assert protection.decode_mode_page(page) == mode
    assert protection.decode_mode_page(bytes(page[:6])) is None
    assert protection.decode_mode_page(b"\x0a" + data) is None


def test_it_is_off_until_it_is_selected(drive: VirtualDrive) -> None:
    """The page is there, alone and among all pages with subpages, and says what was set; a reset ends it."""
    assert sensed(drive) == protection.encode_mode_page(OFF)
    select(drive, protection.encode_mode_page(ON))
    assert sensed(drive) == protection.encode_mode_page(ON)
    assert protection.encode_mode_page(ON) in sensed(drive, page=0x3F, subpage=0xFF)
    assert protection.encode_mode_page(ON) not in sensed(drive, page=0x3F, subpage=0x00)
    drive.reset()
    assert sensed(drive) == protection.encode_mode_page(OFF)


def test_what_cannot_be_selected(drive: VirtualDrive) -> None:
    """Another method, another length of guards, another page, or one cut off: refused, and nothing has changed."""
    select(drive, protection.encode_mode_page(ON))
    for page, code in (
        (protection.encode_mode_page(ProtectionMode(0x01, 4, writes=True, reads=True)), 0x26),
        (protection.encode_mode_page(ProtectionMode(0x02, 8, writes=True, reads=True)), 0x26),
        (b"\x4a\xf1\x00\x00", 0x26),
        (b"\x1c\x02\x00\x00", 0x26),
        (protection.encode_mode_page(OFF)[:-1], 0x1A),
        (b"\x4a\xf0", 0x1A),
    ):
        with pytest.raises(CheckCondition) as caught:
            select(drive, page)
        assert caught.value.sense == Sense(Key.ILLEGAL_REQUEST, code, 0x00)
    assert sensed(drive) == protection.encode_mode_page(ON)
    select(drive, b"\x0f\x0e" + bytes(14))  # of which nothing can be changed


def test_guards_are_compared_and_not_kept(drive: VirtualDrive, tmp_path: Path) -> None:
    """A block with another's guard is refused and not written; a right one is written without it."""
    select(drive, protection.encode_mode_page(ON))
    for data in (BLOCK + GUARD[::-1], BLOCK[:-1] + b"8" + GUARD):
        with pytest.raises(CheckCondition) as caught:
            write(drive, data)
        assert caught.value.sense == Sense(Key.ABORTED_COMMAND, 0x10, 0x01)
    with pytest.raises(CheckCondition) as caught:
        write(drive, GUARD)
    assert caught.value.sense == Sense(Key.ILLEGAL_REQUEST, 0x24, 0x00)
    assert (tmp_path / "T00001L9.tap").read_bytes() == b""
    write(drive, BLOCK + GUARD)
    assert (tmp_path / "T00001L9.tap").read_bytes() == b"\x09\0\0\0" + BLOCK + b"\0\x09\0\0\0"


def test_guards_are_made_for_what_is_read(drive: VirtualDrive) -> None:
    """Also of what was written without; lengths count the guard, and what does not fit is cut off, guard first."""
    write(drive, BLOCK)
    assert read(drive, 9) == (BLOCK, 0)
    select(drive, protection.encode_mode_page(ON))
    whole = BLOCK + GUARD
    assert read(drive, 13) == (whole, 0)
    assert read(drive, 20) == (whole, 7)
    for size in (1, 9, 10, 12):
        assert read(drive, size) == (whole[:size], size - 13)


def test_one_direction_only(drive: VirtualDrive) -> None:
    """Guards go the way that was asked for."""
    select(drive, protection.encode_mode_page(ProtectionMode(2, 4, writes=True, reads=False)))
    write(drive, BLOCK + GUARD)
    assert read(drive, 9) == (BLOCK, 0)
    select(drive, protection.encode_mode_page(ProtectionMode(2, 4, writes=False, reads=True)))
    drive.perform(cdb.locate(0), None)
    write(drive, BLOCK)
    assert read(drive, 13) == (BLOCK + GUARD, 0)
