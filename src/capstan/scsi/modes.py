"""Mode pages that Capstan sets in a drive (SSC-5, 8.3): compression and the programmable early warning. Pure functions
for both ends. What a page has beyond these fields is kept as the drive gave it."""

from __future__ import annotations

COMPRESSION = 0x0F  # data compression mode page (SSC-5, 8.3.3)
EXTENSION = (0x10, 0x01)  # device configuration extension mode page (SSC-5, 8.3.8)
EARLY_WARNING_UNIT = 1_000_000  # bytes of one count of PEWS
MOST_EARLY_WARNING = 0xFFFF
_DCE, _DCC = 0x80, 0x40  # byte 2: compression enabled; the drive can compress
_PEWS = slice(6, 8)  # PEW SIZE


def encode_compression(*, on: bool) -> bytes:
    """The page of a drive that can compress."""
    return bytes((COMPRESSION, 14, _DCC | (_DCE if on else 0), 0x80)) + bytes(12)


def decode_compression(page: bytes) -> bool:
    """Whether data is compressed (DCE)."""
    return len(page) > 2 and bool(page[2] & _DCE)


def can_compress(page: bytes) -> bool:
    """Whether it is the page of a drive that can compress (DCC)."""
    return len(page) > 2 and page[0] & 0x3F == COMPRESSION and bool(page[2] & _DCC)


def with_compression(page: bytes, *, on: bool) -> bytes:
    """The page that a drive gave, as MODE SELECT takes it back: PS is 0 (SPC-5, 7.5.7)."""
    return bytes((page[0] & 0x3F, page[1], (page[2] & ~_DCE) | (_DCE if on else 0))) + page[3:]


def encode_early_warning(count: int) -> bytes:
    """The device configuration extension page with PEWS set to `count`."""
    return with_early_warning(bytes((0x40 | EXTENSION[0], EXTENSION[1], 0, 28)) + bytes(28), count)


def decode_early_warning(page: bytes) -> int:
    """PEWS."""
    return int.from_bytes(page[_PEWS], "big")


def has_early_warning(page: bytes) -> bool:
    """Whether it is the page of a drive whose early warning can be programmed."""
    return len(page) >= _PEWS.stop and (page[0] & 0x3F, page[1]) == EXTENSION


def with_early_warning(page: bytes, count: int) -> bytes:
    """The page that a drive gave, as MODE SELECT takes it back, with PEWS set to `count`."""
    return bytes((page[0] & 0x7F,)) + page[1 : _PEWS.start] + count.to_bytes(2, "big") + page[_PEWS.stop :]
