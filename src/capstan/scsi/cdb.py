"""Command descriptor blocks: pure builders, one for each command that Capstan sends.

Operation codes and layouts: SPC-5, SSC-5 and SMC-3; the clause stands with each.
"""

from __future__ import annotations

from enum import IntEnum


class Op(IntEnum):
    """Operation codes (SPC-5, annex F)."""

    TEST_UNIT_READY = 0x00
    REWIND = 0x01
    REQUEST_SENSE = 0x03
    READ_BLOCK_LIMITS = 0x05
    INITIALIZE_ELEMENT_STATUS = 0x07
    READ_6 = 0x08
    WRITE_6 = 0x0A
    WRITE_FILEMARKS_6 = 0x10
    SPACE_6 = 0x11
    INQUIRY = 0x12
    MODE_SELECT_6 = 0x15
    ERASE_6 = 0x19
    MODE_SENSE_6 = 0x1A
    LOAD_UNLOAD = 0x1B
    PREVENT_ALLOW = 0x1E
    INITIALIZE_ELEMENT_STATUS_WITH_RANGE = 0x37
    LOCATE_10 = 0x2B  # of a changer: POSITION TO ELEMENT
    READ_POSITION = 0x34
    REPORT_DENSITY_SUPPORT = 0x44
    LOG_SENSE = 0x4D
    MODE_SELECT_10 = 0x55
    MODE_SENSE_10 = 0x5A
    PERSISTENT_RESERVE_IN = 0x5E
    PERSISTENT_RESERVE_OUT = 0x5F
    READ_ATTRIBUTE = 0x8C
    WRITE_ATTRIBUTE = 0x8D
    SPACE_16 = 0x91
    LOCATE_16 = 0x92
    SECURITY_PROTOCOL_IN = 0xA2
    MAINTENANCE_IN = 0xA3
    MAINTENANCE_OUT = 0xA4
    MOVE_MEDIUM = 0xA5
    EXCHANGE_MEDIUM = 0xA6
    SECURITY_PROTOCOL_OUT = 0xB5
    READ_ELEMENT_STATUS = 0xB8


class SpaceCode(IntEnum):
    """What SPACE counts (SSC-5, 7.7)."""

    BLOCKS = 0
    FILEMARKS = 1
    END_OF_DATA = 3


def test_unit_ready() -> bytes:
    """SPC-5, 6.47."""
    return bytes(6)


def inquiry(length: int, *, page: int | None = None) -> bytes:
    """SPC-5, 6.7: standard data, or with `page` a page of vital product data (EVPD)."""
    return bytes((Op.INQUIRY, page is not None, page or 0)) + length.to_bytes(2, "big") + b"\0"


def read_block_limits() -> bytes:
    """SSC-5, 7.2: answers 6 bytes."""
    return bytes((Op.READ_BLOCK_LIMITS, 0, 0, 0, 0, 0))


def mode_sense(page: int, subpage: int = 0, *, length: int = 255, block_descriptor: bool = True) -> bytes:
    """SPC-5, 6.14: MODE SENSE(6), current values."""
    return bytes((Op.MODE_SENSE_6, 0 if block_descriptor else 0x08, page, subpage, length, 0))


def mode_select(length: int, *, save: bool = False) -> bytes:
    """SPC-5, 6.12: MODE SELECT(6) in page format."""
    return bytes((Op.MODE_SELECT_6, 0x10 | save, 0, 0, length, 0))


def read(length: int, *, suppress_length: bool = False) -> bytes:
    """SSC-5, 6.4: READ(6) of one record in variable block mode. `suppress_length` is SILI."""
    return bytes((Op.READ_6, 0x02 if suppress_length else 0)) + length.to_bytes(3, "big") + b"\0"


def write(length: int) -> bytes:
    """SSC-5, 6.8: WRITE(6) of one record in variable block mode."""
    return bytes((Op.WRITE_6, 0)) + length.to_bytes(3, "big") + b"\0"


def write_filemarks(count: int, *, immediate: bool) -> bytes:
    """SSC-5, 6.9. Not immediate: status comes when all is on the medium; a count of 0 only flushes."""
    return bytes((Op.WRITE_FILEMARKS_6, immediate)) + count.to_bytes(3, "big") + b"\0"


def space(count: int, code: SpaceCode) -> bytes:
    """SSC-5, 7.7: SPACE(6), or SPACE(16) for counts that need more than 24 bits."""
    if -(1 << 23) <= count < 1 << 23:
        return bytes((Op.SPACE_6, code)) + count.to_bytes(3, "big", signed=True) + b"\0"
    return bytes((Op.SPACE_16, code, 0, 0)) + count.to_bytes(8, "big", signed=True) + bytes(4)


def locate(block: int) -> bytes:
    """SSC-5, 7.1: LOCATE(16) to a logical object of the current partition."""
    return bytes((Op.LOCATE_16, 0, 0, 0)) + block.to_bytes(8, "big") + bytes(4)


def read_position(*, long: bool) -> bytes:
    """SSC-5, 7.5: short form (20 bytes) or long form (service action 06h, 32 bytes)."""
    return bytes((Op.READ_POSITION, 0x06 if long else 0)) + bytes(8)


def rewind() -> bytes:
    """SSC-5, 7.6: status comes when the tape is at its beginning."""
    return bytes((Op.REWIND, 0, 0, 0, 0, 0))


def load_unload(*, load: bool) -> bytes:
    """SSC-5, 7.3."""
    return bytes((Op.LOAD_UNLOAD, 0, 0, 0, load, 0))


def erase(*, long: bool) -> bytes:
    """SSC-5, 6.1: long overwrites the medium to its end, short makes the position the end of data."""
    return bytes((Op.ERASE_6, long, 0, 0, 0, 0))


def log_sense(page: int, *, length: int = 8192) -> bytes:
    """SPC-5, 6.10: cumulative current values."""
    return bytes((Op.LOG_SENSE, 0, 0x40 | page, 0, 0, 0, 0)) + length.to_bytes(2, "big") + b"\0"


def read_attribute(first: int = 0, *, length: int = 8192) -> bytes:
    """SPC-5, 6.17: the values of the first partition's attributes, from the one with this number."""
    return (
        bytes((Op.READ_ATTRIBUTE, 0, 0, 0, 0, 0, 0, 0)) + first.to_bytes(2, "big") + length.to_bytes(4, "big") + b"\0\0"
    )


def write_attribute(length: int) -> bytes:
    """SPC-5, 6.42: into the memory itself, not only a copy of it (WTC)."""
    return bytes((Op.WRITE_ATTRIBUTE, 1, 0, 0, 0, 0, 0, 0, 0, 0)) + length.to_bytes(4, "big") + b"\0\0"


def report_density_support(*, mounted: bool = False, length: int = 8192) -> bytes:
    """SSC-5, 7.8: what the drive reads and writes, or with `mounted` (MEDIA) what is in it."""
    return bytes((Op.REPORT_DENSITY_SUPPORT, mounted, 0, 0, 0, 0, 0)) + length.to_bytes(2, "big") + b"\0"


def reserve_in(action: int, *, length: int = 8192) -> bytes:
    """SPC-5, 6.18: PERSISTENT RESERVE IN; `action` of `scsi.reservations.InAction`."""
    return bytes((Op.PERSISTENT_RESERVE_IN, action, 0, 0, 0, 0, 0)) + length.to_bytes(2, "big") + b"\0"


def reserve_out(action: int, kind: int = 0, *, length: int = 24) -> bytes:
    """SPC-5, 6.19: PERSISTENT RESERVE OUT for the logical unit; `action` and `kind` of `scsi.reservations`."""
    return bytes((Op.PERSISTENT_RESERVE_OUT, action, kind, 0, 0)) + length.to_bytes(4, "big") + b"\0"


def generate_access_order(length: int) -> bytes:
    """SSC-5, 7.10: GENERATE RECOMMENDED ACCESS ORDER, which changes the order of segments without geometry."""
    return bytes((Op.MAINTENANCE_OUT, 0x1D, 0x02, 0, 0, 0)) + length.to_bytes(4, "big") + bytes(2)


def receive_access_order(length: int, *, limits: bool = False) -> bytes:
    """SSC-5, 7.11: RECEIVE RECOMMENDED ACCESS ORDER, or with `limits` (UDS_LIMITS) how much it takes."""
    head = bytes((Op.MAINTENANCE_IN, 0x1D | (0x80 if limits else 0))) + bytes(4)
    return head + length.to_bytes(4, "big") + bytes(2)


def prevent_removal(*, prevent: bool) -> bytes:
    """SPC-5, 6.15: PREVENT ALLOW MEDIUM REMOVAL."""
    return bytes((Op.PREVENT_ALLOW, 0, 0, 0, prevent, 0))


def security_protocol_in(protocol: int, page: int, *, length: int) -> bytes:
    """SPC-5, 6.40: `page` is the security protocol specific field; the length in bytes (INC_512 is 0)."""
    return bytes((Op.SECURITY_PROTOCOL_IN, protocol)) + page.to_bytes(2, "big") + bytes(2) + _tail(length)


def security_protocol_out(protocol: int, page: int, *, length: int) -> bytes:
    """SPC-5, 6.41: as for IN; `length` bytes of parameters go to the device."""
    return bytes((Op.SECURITY_PROTOCOL_OUT, protocol)) + page.to_bytes(2, "big") + bytes(2) + _tail(length)


def _tail(length: int) -> bytes:
    """The last six bytes of a CDB of twelve: a length, a reserved byte and CONTROL."""
    return length.to_bytes(4, "big") + bytes(2)


def read_element_status(
    element_type: int, *, first: int = 0, count: int = 0xFFFF, length: int, tags: bool = True, device_ids: bool = False
) -> bytes:
    """SMC-3, 6.11. `tags` asks for volume tags (VOLTAG), `device_ids` for the drives' identification (DVCID)."""
    return (
        bytes((Op.READ_ELEMENT_STATUS, (0x10 if tags else 0) | element_type))
        + first.to_bytes(2, "big")
        + count.to_bytes(2, "big")
        + bytes((device_ids,))
        + length.to_bytes(3, "big")
        + bytes(2)
    )


def move_medium(transport: int, source: int, destination: int) -> bytes:
    """SMC-3, 6.6. `transport` 0 is the default robot."""
    addresses = b"".join(element.to_bytes(2, "big") for element in (transport, source, destination))
    return bytes((Op.MOVE_MEDIUM, 0)) + addresses + bytes(4)


def exchange_medium(transport: int, source: int, first: int, second: int) -> bytes:
    """SMC-3, 6.3: what is in `source` goes to `first`, and what was there to `second`, which may be `source`."""
    addresses = b"".join(element.to_bytes(2, "big") for element in (transport, source, first, second))
    return bytes((Op.EXCHANGE_MEDIUM, 0)) + addresses + bytes(2)


def initialize_element_status() -> bytes:
    """SMC-3, 6.4: the robot looks at every element."""
    return bytes((Op.INITIALIZE_ELEMENT_STATUS, 0, 0, 0, 0, 0))


def initialize_element_range(first: int, count: int) -> bytes:
    """SMC-3, 6.5: the robot looks at `count` elements from `first` (RANGE)."""
    head = bytes((Op.INITIALIZE_ELEMENT_STATUS_WITH_RANGE, 0x01)) + first.to_bytes(2, "big") + bytes(2)
    return head + count.to_bytes(2, "big") + bytes(2)
