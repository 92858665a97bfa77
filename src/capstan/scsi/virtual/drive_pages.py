"""Mode and log pages of a virtual drive."""

from __future__ import annotations

from capstan.scsi import protection as block_protection
from capstan.scsi.virtual.cartridge import VirtualCartridge
from capstan.scsi.virtual.image import TapeImage
from capstan.scsi.virtual.target import INVALID_FIELD, illegal
from capstan.scsi.virtual.upkeep import Upkeep

_MEBIBYTE = 1 << 20


def mode_header(
    cartridge: VirtualCartridge | None, threaded: VirtualCartridge | None, length: int, *, writable: bool, short: bool
) -> bytes:
    """The head of MODE SENSE(6), without its first byte, and the block descriptor if not `short` (SSC-5, 8.3.2)."""
    protected = not writable or (cartridge is not None and cartridge.facts.write_protected)
    density = threaded.generation.density if threaded is not None else 0
    descriptor = b"" if short else bytes((density, 0, 0, 0, 0)) + length.to_bytes(3, "big")
    return bytes((0, 0x90 if protected else 0x10, len(descriptor))) + descriptor


def mode_page(page: int, subpage: int, *, worm: bool, protection: bytes) -> bytes:
    """One mode page, or all of them (3Fh; with subpages for subpage FFh). `protection` is the control data protection
    page. Raises ILLEGAL REQUEST for those that the drive does not have."""
    pages = {
        0x0F: bytes((0x0F, 14, 0x00)) + bytes(13),  # data compression: off (SSC-5, 8.3.3)
        0x10: bytes((0x10, 14)) + bytes(6) + b"\x40" + bytes(7),  # device configuration, BIS (SSC-5, 8.3.4)
        0x1D: bytes((0x1D, 30, 0x01 if worm else 0x00)) + bytes(29),  # medium configuration, WORMM (SSC-5, 8.3.7)
    }
    if page == 0x00:
        return b""
    if page == 0x3F and subpage in (0, 0xFF):
        return (protection if subpage else b"") + b"".join(pages.values())
    if (page, subpage) == (block_protection.PAGE, block_protection.SUBPAGE):
        return protection
    if page not in pages or subpage:
        raise illegal(*INVALID_FIELD)
    return pages[page]


def selected_pages(data: bytes) -> list[bytes]:
    """The control data protection pages in what MODE SELECT has brought; those of which nothing can be changed are
    passed over. Raises ILLEGAL REQUEST for others, and for one that is cut off (SPC-5, 7.5.7)."""
    found, at = [], 0
    while at < len(data):
        long = bool(data[at] & 0x40)
        head = 4 if long else 2
        if at + head > len(data):
            raise illegal(0x1A)
        end = at + head + int.from_bytes(data[at + 2 : at + 4] if long else data[at + 1 : at + 2], "big")
        if end > len(data):
            raise illegal(0x1A)
        if long:
            found.append(data[at:end])
        elif data[at] & 0x3F not in (0x0F, 0x10, 0x1D):
            raise illegal(0x26)
        at = end
    return found


def log_page(page: int, cartridge: VirtualCartridge | None, tape: TapeImage | None, upkeep: Upkeep) -> bytes:
    """One log page (SPC-5, 7.3; SSC-5, 8.2). Raises ILLEGAL REQUEST for those that the drive does not have."""
    pages = {
        0x00: lambda: bytes((0x00, 0x02, 0x03, 0x0C, 0x17, 0x2E, 0x31)),
        0x02: lambda: _error_counters(upkeep.written_bytes, upkeep.write_failures),
        0x03: lambda: _error_counters(upkeep.read_bytes, upkeep.read_failures),
        0x0C: lambda: _device(upkeep),
        0x17: lambda: _volume_statistics(cartridge, upkeep),
        0x2E: lambda: _alerts(upkeep.take_alerts()),
        0x31: lambda: _tape_capacity(cartridge, tape),
    }
    if page not in pages:
        raise illegal(*INVALID_FIELD)
    body = pages[page]()
    return bytes((page, 0)) + len(body).to_bytes(2, "big") + body


def _error_counters(processed: int, failures: int) -> bytes:
    """Total errors corrected (0003h), bytes processed (0005h) and uncorrected errors (0006h) (SPC-5, 7.3.7)."""
    return (
        _parameter(0x0003, bytes(4))
        + _parameter(0x0005, processed.to_bytes(8, "big"))
        + _parameter(0x0006, failures.to_bytes(4, "big"))
    )


def _device(upkeep: Upkeep) -> bytes:
    """Bytes received (0000h), written (0001h), read (0002h) and sent (0003h), cleaning action required (0100h) (SSC-5,
    8.2.4)."""
    counts = (upkeep.written_bytes, upkeep.written_bytes, upkeep.read_bytes, upkeep.read_bytes)
    moved = b"".join(_parameter(code, count.to_bytes(8, "big")) for code, count in enumerate(counts))
    return moved + _parameter(0x0100, bytes((0, 0, 0, upkeep.wants_cleaning)))


def _alerts(flags: frozenset[int]) -> bytes:
    return b"".join(_parameter(code, bytes((code in flags,))) for code in range(1, 65))


def _volume_statistics(cartridge: VirtualCartridge | None, upkeep: Upkeep) -> bytes:
    """Page valid (0000h), thread count (0001h), unrecovered write (0004h) and read errors (0009h), MB written (0012h)
    and read (0013h) of this mount (SSC-5, 8.2.5)."""
    values = {
        0x0001: cartridge.facts.loads if cartridge else 0,
        0x0004: upkeep.write_failures,
        0x0009: upkeep.read_failures,
        0x0012: upkeep.written_bytes // 1_000_000,
        0x0013: upkeep.read_bytes // 1_000_000,
    }
    counts = b"".join(_parameter(code, value.to_bytes(4, "big")) for code, value in values.items())
    return _parameter(0x0000, bytes((cartridge is not None,))) + counts


def _tape_capacity(cartridge: VirtualCartridge | None, tape: TapeImage | None) -> bytes:
    """Remaining (0001h) and maximum (0003h) capacity of the partition, in MiB (the vendors' page 31h)."""
    total = cartridge.facts.capacity_bytes if cartridge and tape else 0
    left = max(total - tape.end_offset, 0) if tape else 0
    return _parameter(0x0001, (left // _MEBIBYTE).to_bytes(4, "big")) + _parameter(
        0x0003, (total // _MEBIBYTE).to_bytes(4, "big")
    )


def _parameter(code: int, value: bytes) -> bytes:
    return code.to_bytes(2, "big") + bytes((0x03, len(value))) + value
