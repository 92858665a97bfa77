"""Log pages of a virtual drive, and its densities."""

from __future__ import annotations

from capstan.core.generations import MEDIA, Generation, can_read, can_write
from capstan.scsi.attributes import Number
from capstan.scsi.virtual.cartridge import VirtualCartridge
from capstan.scsi.virtual.image import TapeImage
from capstan.scsi.virtual.target import INVALID_FIELD, illegal
from capstan.scsi.virtual.upkeep import Upkeep

_MEBIBYTE = 1 << 20
_MEGABYTE = 1_000_000
_DENSITY_BYTES = 52


def log_page(page: int, cartridge: VirtualCartridge | None, tape: TapeImage | None, upkeep: Upkeep) -> bytes:
    """One log page (SPC-5, 7.3; SSC-5, 8.2). Raises ILLEGAL REQUEST for those that the drive does not have."""
    pages = {
        0x00: lambda: bytes((0x00, 0x02, 0x03, 0x0C, 0x17, 0x2E, 0x31)),
        0x02: lambda: _error_counters(upkeep.written_bytes, upkeep.write_failures),
        0x03: lambda: _error_counters(upkeep.read_bytes, upkeep.read_failures),
        0x0C: lambda: _device(upkeep),
        0x17: lambda: _volume_statistics(cartridge, tape, upkeep),
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


def _volume_statistics(cartridge: VirtualCartridge | None, tape: TapeImage | None, upkeep: Upkeep) -> bytes:
    """Page valid (0000h); counts of this mount and of the cartridge's life, in MB where they are amounts; who it is
    (SSC-5, table 64)."""
    if cartridge is None or tape is None:
        return _parameter(0x0000, b"\0")
    facts = cartridge.facts
    values = {
        0x0001: facts.loads,  # thread count
        0x0004: facts.write_failures,  # unrecovered write errors
        0x0009: facts.read_failures,  # unrecovered read errors
        0x000C: upkeep.write_failures,  # of this mount
        0x000D: upkeep.read_failures,
        0x000E: upkeep.written_bytes // _MEGABYTE,
        0x000F: upkeep.read_bytes // _MEGABYTE,
        0x0016: facts.capacity_bytes // _MEGABYTE,
        0x0017: tape.end_offset // _MEGABYTE,
    }
    counts = {code: _parameter(code, value.to_bytes(4, "big")) for code, value in values.items()}
    for code, value in ((0x0010, facts.written_bytes), (0x0011, facts.read_bytes)):
        counts[code] = _parameter(code, (value // _MEGABYTE).to_bytes(8, "big"))
    texts = {
        0x0040: (facts.barcode, 32),
        0x0042: (
            bytes.fromhex(facts.attributes.get(f"{Number.BARCODE:04x}", "")).decode("ascii", "replace").strip(),
            32,
        ),
        0x0043: ("CAPSTAN", 8),
        0x0045: (f"Ultrium-{cartridge.generation.number}", 9),
    }
    counts |= {code: _parameter(code, text.encode().ljust(size)) for code, (text, size) in texts.items()}
    flags = {0x0080: facts.write_protected, 0x0081: facts.worm}
    counts |= {code: _parameter(code, bytes((flag,))) for code, flag in flags.items()}
    return _parameter(0x0000, b"\1") + b"".join(counts[code] for code in sorted(counts))


def _tape_capacity(cartridge: VirtualCartridge | None, tape: TapeImage | None) -> bytes:
    """Remaining (0001h) and maximum (0003h) capacity of the partition, in MiB (the vendors' page 31h)."""
    total = cartridge.facts.capacity_bytes if cartridge and tape else 0
    left = max(total - tape.end_offset, 0) if tape else 0
    return _parameter(0x0001, (left // _MEBIBYTE).to_bytes(4, "big")) + _parameter(
        0x0003, (total // _MEBIBYTE).to_bytes(4, "big")
    )


def _parameter(code: int, value: bytes) -> bytes:
    return code.to_bytes(2, "big") + bytes((0x03, len(value))) + value


def densities(drive: Generation, mounted: Generation | None) -> bytes:
    """The data of REPORT DENSITY SUPPORT (SSC-5, 7.8.3): what the drive reads, or what is `mounted`."""
    body = b"".join(
        _density(drive, item) for item in ([mounted] if mounted else MEDIA.values()) if can_read(drive, item)
    )
    return (len(body) + 2).to_bytes(2, "big") + bytes(2) + body


def _density(drive: Generation, medium: Generation) -> bytes:
    """One descriptor (SSC-5, table 86): WRTOK, DEFLT for the drive's own; 1/2 inch tape; capacity in MB."""
    flags = (0x80 if can_write(drive, medium) else 0) | (0x20 if medium == drive else 0)
    head = bytes((medium.density, medium.density, flags, 0, 0)) + bytes(3) + (127).to_bytes(2, "big") + bytes(2)
    head += (medium.capacity_bytes // _MEGABYTE).to_bytes(4, "big")
    name = f"U-{medium.suffix}"
    data = head + b"LTO-CVE " + name.encode().ljust(8) + medium.name.encode().ljust(20)
    assert len(data) == _DENSITY_BYTES
    return data
