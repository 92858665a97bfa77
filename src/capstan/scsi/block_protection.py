"""Logical block protection (SSC-5, 4.2.29): a CRC-32C behind each record on its way between host and drive.

The mode page that turns it on (0Ah/F0h, SSC-5, 8.3.9), and the four bytes themselves. Pure, for both ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from crc32c import crc32c

PAGE, SUBPAGE = 0x0A, 0xF0
BYTES = 4  # of protection information
GUARD_CHECK_FAILED = (0x10, 0x01)  # LOGICAL BLOCK GUARD CHECK FAILED (SPC-5, annex F)
_CRC32C = 0x02  # LOGICAL BLOCK PROTECTION METHOD
_LENGTH = 28


@dataclass(frozen=True, slots=True)
class Protection:
    """The mode page: whether records that are written, and that are read, have a CRC behind them."""

    writes: bool = False
    reads: bool = False


def encode_page(page: Protection) -> bytes:
    """SSC-5, 8.3.9."""
    on = page.writes or page.reads
    head = bytes((0x40 | PAGE, SUBPAGE)) + _LENGTH.to_bytes(2, "big")
    body = bytes((_CRC32C, BYTES) if on else (0, 0)) + bytes((page.writes << 7 | page.reads << 6,))
    return head + body.ljust(_LENGTH, b"\0")


def decode_page(data: bytes) -> Protection | None:
    """None for another page. ValueError for another method."""
    if len(data) < 7 or (data[0] & 0x3F, data[1]) != (PAGE, SUBPAGE):
        return None
    page = Protection(bool(data[6] & 0x80), bool(data[6] & 0x40))
    if page != Protection() and (data[4], data[5] & 0x3F) != (_CRC32C, BYTES):
        raise ValueError("another method of logical block protection")
    return page


def guard_of(record: memoryview) -> bytes:
    """What stands behind a record: its CRC-32C, the lowest byte first."""
    return crc32c(record).to_bytes(BYTES, "little")


def is_whole(guarded: memoryview) -> bool:
    """Whether a record with its guard is as it was sent."""
    return len(guarded) > BYTES and guard_of(guarded[:-BYTES]) == bytes(guarded[-BYTES:])
