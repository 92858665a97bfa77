"""Logical block protection (SSC-5, 8.3.9): behind each block that goes over the wire goes a checksum of it, its guard,
which the other end compares. The mode page that turns it on, and the guard; pure functions for both ends."""

from __future__ import annotations

from dataclasses import dataclass

from crc32c import crc32c

PAGE, SUBPAGE = 0x0A, 0xF0  # control data protection mode page (SSC-5, 8.3.9)
CRC32C = 0x02  # LOGICAL BLOCK PROTECTION METHOD: CRC-32C (Castagnoli)
GUARD_BYTES = 4  # LOGICAL BLOCK PROTECTION INFORMATION LENGTH of that method
_PAGE_BYTES = 32
_HEAD = bytes((0x40 | PAGE, SUBPAGE, 0, _PAGE_BYTES - 4))  # SPF: the page has a subpage code and a length of two bytes


@dataclass(frozen=True, slots=True)
class ProtectionMode:
    """The control data protection mode page. `writes`, `reads`: the guard is there in that direction (LBP_W, LBP_R)."""

    method: int = 0
    guard_bytes: int = 0
    writes: bool = False
    reads: bool = False


OFF = ProtectionMode()
ON = ProtectionMode(CRC32C, GUARD_BYTES, writes=True, reads=True)


def encode_mode_page(mode: ProtectionMode) -> bytes:
    """The page as MODE SENSE returns and MODE SELECT takes it; PS and RBDP are 0."""
    flags = (0x80 if mode.writes else 0) | (0x40 if mode.reads else 0)
    return _HEAD + bytes((mode.method, mode.guard_bytes, flags)).ljust(_PAGE_BYTES - len(_HEAD), b"\0")


def decode_mode_page(page: bytes) -> ProtectionMode | None:
    """Decode the page; None when it is another one, or cut off."""
    if len(page) < 7 or page[0] & 0x7F != _HEAD[0] or page[1] != SUBPAGE:
        return None
    return ProtectionMode(page[4], page[5] & 0x3F, bool(page[6] & 0x80), bool(page[6] & 0x40))


def guard_of(block: memoryview) -> bytes:
    """The guard that goes behind a block: its CRC-32C, least significant byte first, as all LTO drives have it."""
    return int(crc32c(block)).to_bytes(GUARD_BYTES, "little")
