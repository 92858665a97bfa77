"""Decoders for the data that devices return: pure functions from bytes to values.

A device's bytes are not trusted: what is too short is read as zeros or left out, never an exception.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class ElementType(IntEnum):
    """Element type codes (SMC-3, table 15)."""

    ALL = 0
    TRANSPORT = 1
    STORAGE = 2
    IMPORT_EXPORT = 3
    DRIVE = 4


@dataclass(frozen=True, slots=True)
class InquiryData:
    """Standard INQUIRY data (SPC-5, 6.7.2). `device_type`: 01h sequential access, 08h media changer."""

    device_type: int
    vendor: str
    product: str
    revision: str


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """READ BLOCK LIMITS data (SSC-5, 7.2), in bytes. `maximum` 0 means no limit."""

    maximum: int
    minimum: int


@dataclass(frozen=True, slots=True)
class PositionData:
    """READ POSITION data (SSC-5, 7.5). `unknown`: the drive does not know where it stands."""

    block: int
    file: int | None
    partition: int
    at_beginning: bool
    at_end: bool
    unknown: bool


@dataclass(frozen=True, slots=True)
class ModeData:
    """MODE SENSE(6) header, block descriptor and the page behind it (SPC-5, 7.5)."""

    device_specific: int = 0
    density: int = 0
    block_length: int = 0
    page: bytes = b""

    @property
    def write_protected(self) -> bool:
        """WP of the device-specific parameter (SSC-5, 8.3.2)."""
        return bool(self.device_specific & 0x80)


@dataclass(frozen=True, slots=True)
class ElementDescriptor:
    """One element of READ ELEMENT STATUS (SMC-3, 6.11.4). `source` is None where SVALID is not set. `identifier`: as
    text, a binary one in hexadecimal. Of a mail slot: `put_in` by a person; whether it `imports` and `exports`."""

    type: int
    address: int
    full: bool
    exception: bool
    accessible: bool
    barcode: str
    source: int | None
    code: tuple[int, int]
    identifier: str
    put_in: bool = False
    imports: bool = True
    exports: bool = True
    disabled: bool = False


def decode_inquiry(data: bytes) -> InquiryData:
    """Decode standard INQUIRY data."""
    padded = data.ljust(36, b"\0")
    return InquiryData(padded[0] & 0x1F, _text(padded[8:16]), _text(padded[16:32]), _text(padded[32:36]))


def decode_serial(data: bytes) -> str:
    """Unit serial number page (SPC-5, 7.7.18)."""
    return _text(data[4 : 4 + int.from_bytes(data[2:4], "big")])


def decode_block_limits(data: bytes) -> BlockLimits:
    """Decode READ BLOCK LIMITS data."""
    padded = data.ljust(6, b"\0")
    return BlockLimits(int.from_bytes(padded[1:4], "big"), int.from_bytes(padded[4:6], "big"))


def decode_position_short(data: bytes) -> PositionData:
    """Short form (SSC-5, table 78): BOP, EOP, LOLU/BPU, partition, first logical object."""
    padded = data.ljust(20, b"\0")
    flags = padded[0]
    return PositionData(
        block=int.from_bytes(padded[4:8], "big"),
        file=None,
        partition=padded[1],
        at_beginning=bool(flags & 0x80),
        at_end=bool(flags & 0x40),
        unknown=bool(flags & 0x04),
    )


def decode_position_long(data: bytes) -> PositionData:
    """Long form (SSC-5, table 80): also counts the filemarks passed."""
    padded = data.ljust(32, b"\0")
    flags = padded[0]
    return PositionData(
        block=int.from_bytes(padded[8:16], "big"),
        file=None if flags & 0x08 else int.from_bytes(padded[16:24], "big"),
        partition=int.from_bytes(padded[4:8], "big"),
        at_beginning=bool(flags & 0x80),
        at_end=bool(flags & 0x40),
        unknown=bool(flags & 0x04),
    )


def decode_mode(data: bytes) -> ModeData:
    """Decode MODE SENSE(6) data with or without a block descriptor."""
    if len(data) < 4:
        return ModeData()
    descriptor = data[4:12] if data[3] >= 8 else bytes(8)
    descriptor = descriptor.ljust(8, b"\0")
    return ModeData(
        device_specific=data[2],
        density=descriptor[0],
        block_length=int.from_bytes(descriptor[5:8], "big"),
        page=data[4 + data[3] : data[0] + 1],
    )


def decode_log(data: bytes) -> dict[int, bytes]:
    """Parameters of a log page by code (SPC-5, 7.3)."""
    found: dict[int, bytes] = {}
    end = min(len(data), 4 + int.from_bytes(data[2:4], "big"))
    at = 4
    while at + 4 <= end:
        length = data[at + 3]
        found[int.from_bytes(data[at : at + 2], "big")] = data[at + 4 : min(at + 4 + length, end)]
        at += 4 + length
    return found


def decode_log_pages(data: bytes) -> frozenset[int]:
    """The codes of the supported log pages (page 00h; SPC-5, 7.3.18)."""
    return frozenset(data[4 : 4 + int.from_bytes(data[2:4], "big")])


def decode_tape_alerts(data: bytes) -> tuple[int, ...]:
    """The TapeAlert flags that are set (log page 2Eh; SSC-5, 8.2.3)."""
    return tuple(sorted(code for code, value in decode_log(data).items() if value[:1] == b"\1"))


def decode_element_address_assignment(page: bytes) -> dict[ElementType, tuple[int, int]]:
    """First address and count of each element type (mode page 1Dh; SMC-3, 7.3.4)."""
    padded = page.ljust(18, b"\0")
    order = (ElementType.TRANSPORT, ElementType.STORAGE, ElementType.IMPORT_EXPORT, ElementType.DRIVE)
    return {
        kind: (int.from_bytes(padded[at : at + 2], "big"), int.from_bytes(padded[at + 2 : at + 4], "big"))
        for kind, at in zip(order, (2, 6, 10, 14), strict=True)
    }


_PAGE_HEADER, _DESCRIPTOR = 8, 12  # bytes of an element status page's header, and of what all descriptors have


@dataclass(frozen=True, slots=True)
class ChangerAbilities:
    """Device capabilities mode page (1Fh; SMC-3, 7.3.2): which element types the robot moves cartridges between, and
    exchanges them; each pair is source and destination."""

    moves: frozenset[tuple[ElementType, ElementType]] = frozenset()
    exchanges: frozenset[tuple[ElementType, ElementType]] = frozenset()


_TYPES = (ElementType.TRANSPORT, ElementType.STORAGE, ElementType.IMPORT_EXPORT, ElementType.DRIVE)
_MOVES_AT, _EXCHANGES_AT = 4, 12  # a byte for each source, a bit for each destination
_ABILITIES_BYTES = 20


def encode_changer_abilities(abilities: ChangerAbilities) -> bytes:
    """The page; every kind of element stores cartridges but the robot."""
    page = bytearray(_ABILITIES_BYTES)
    page[0], page[1], page[2] = 0x1F, _ABILITIES_BYTES - 2, 0x0E
    for at, pairs in ((_MOVES_AT, abilities.moves), (_EXCHANGES_AT, abilities.exchanges)):
        for source, destination in pairs:
            page[at + _TYPES.index(source)] |= 1 << _TYPES.index(destination)
    return bytes(page)


def decode_changer_abilities(page: bytes) -> ChangerAbilities | None:
    """Decode the page; None when it is another one."""
    if len(page) < 2 or page[0] & 0x3F != 0x1F:
        return None
    padded = page.ljust(_ABILITIES_BYTES, b"\0")

    def pairs(at: int) -> frozenset[tuple[ElementType, ElementType]]:
        return frozenset(
            (source, destination)
            for row, source in enumerate(_TYPES)
            for bit, destination in enumerate(_TYPES)
            if padded[at + row] & (1 << bit)
        )

    return ChangerAbilities(pairs(_MOVES_AT), pairs(_EXCHANGES_AT))


def is_cut_off(data: bytes) -> bool:
    """Whether READ ELEMENT STATUS had more to say than came (BYTE COUNT OF REPORT AVAILABLE)."""
    return 8 + int.from_bytes(data[5:8], "big") > len(data)


def decode_element_status(data: bytes) -> list[ElementDescriptor]:
    """All elements in READ ELEMENT STATUS data, of every page in it, in the order they come.

    Some libraries count the bytes without the page header, and send as many less: the number of elements is relied on,
    and what is cut off of the last one is taken for empty, if it is less than the part that all descriptors have.
    """
    found: list[ElementDescriptor] = []
    count, end = int.from_bytes(data[2:4], "big"), len(data) + _PAGE_HEADER
    at = 8
    while at + _PAGE_HEADER <= len(data) and len(found) < count:
        kind, flags = data[at], data[at + 1]
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        stop = min(end, at + 8 + int.from_bytes(data[at + 5 : at + 8], "big"))
        at += 8
        if size < 12:
            break
        while at + size <= stop:
            if at + _DESCRIPTOR <= len(data):
                found.append(_element(kind, flags, data[at : at + size]))
            at += size
        at = stop
    return found


def _element(kind: int, page_flags: int, data: bytes) -> ElementDescriptor:
    flags = data[2]
    port = kind == ElementType.IMPORT_EXPORT
    at = 12
    barcode = ""
    if page_flags & 0x80:  # PVOLTAG: 36 bytes, the volume identifier in the first 32 (SMC-3, table 31)
        barcode = _text(data[at : at + 32])
        at += 36
    if page_flags & 0x40:
        at += 36
    identifier = ""
    if len(data) >= at + 4 and len(data) >= at + 4 + data[at + 3]:  # DVCID: code set, type, length (SMC-3, 6.11.5)
        raw = data[at + 4 : at + 4 + data[at + 3]]
        identifier = raw.hex() if data[at] & 0x0F == 0x01 else _text(raw)
    return ElementDescriptor(
        type=kind,
        address=int.from_bytes(data[0:2], "big"),
        full=bool(flags & 0x01),
        exception=bool(flags & 0x04),
        accessible=bool(flags & 0x08),
        barcode=barcode,
        source=int.from_bytes(data[10:12], "big") if data[9] & 0x80 else None,
        code=(data[4], data[5]),
        identifier=identifier,
        put_in=port and bool(flags & 0x02),
        imports=not port or bool(flags & 0x20),
        exports=not port or bool(flags & 0x10),
        disabled=bool(data[9] & 0x08),
    )


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace").replace("\0", " ").strip()
