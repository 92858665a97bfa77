"""A command in words: its name in the standards, and the fields that say what it does."""

from __future__ import annotations

from collections.abc import Callable

from capstan.scsi.cdb import Op

_SPACE = {0: "blocks", 1: "filemarks", 3: "to the end of data"}
_ELEMENTS = {0: "all", 1: "robots", 2: "slots", 3: "mail slots", 4: "drives"}


def _number(cdb: bytes, first: int, last: int, *, signed: bool = False) -> int:
    return int.from_bytes(cdb[first : last + 1], "big", signed=signed)


def _transfer(cdb: bytes) -> str:
    return f"{_number(cdb, 2, 4)} {'blocks' if cdb[1] & 0x01 else 'bytes'}"


def _page(cdb: bytes) -> str:
    return f"page {cdb[2] & 0x3F:02X}h" + (f"/{cdb[3]:02X}h" if cdb[3] else "")


# The fields stand where SPC-5, SSC-5 and SMC-3 have them.
_FIELDS: dict[int, Callable[[bytes], str]] = {
    Op.READ_6: _transfer,
    Op.WRITE_6: _transfer,
    Op.WRITE_FILEMARKS_6: lambda cdb: f"{_number(cdb, 2, 4)}" + (", immediate" if cdb[1] & 0x01 else ""),
    Op.SPACE_6: lambda cdb: f"{_number(cdb, 2, 4, signed=True)} {_SPACE.get(cdb[1] & 0x0F, '?')}",
    Op.SPACE_16: lambda cdb: f"{_number(cdb, 4, 11, signed=True)} {_SPACE.get(cdb[1] & 0x0F, '?')}",
    Op.LOCATE_10: lambda cdb: f"block {_number(cdb, 3, 6)}",
    Op.LOCATE_16: lambda cdb: f"block {_number(cdb, 4, 11)}",
    Op.READ_POSITION: lambda cdb: "long form" if cdb[1] & 0x1F == 6 else "short form",
    Op.ERASE_6: lambda cdb: "long" if cdb[1] & 0x01 else "short",
    Op.LOAD_UNLOAD: lambda cdb: "load" if cdb[4] & 0x01 else "unload",
    Op.PREVENT_ALLOW: lambda cdb: "prevent" if cdb[4] & 0x01 else "allow",
    Op.INQUIRY: lambda cdb: f"page {cdb[2]:02X}h" if cdb[1] & 0x01 else "standard data",
    Op.MODE_SENSE_6: _page,
    Op.MODE_SENSE_10: _page,
    Op.LOG_SENSE: _page,
    Op.READ_ATTRIBUTE: lambda cdb: f"from {_number(cdb, 8, 9):04X}h",
    Op.SECURITY_PROTOCOL_IN: lambda cdb: f"protocol {cdb[1]:02X}h page {_number(cdb, 2, 3):04X}h",
    Op.SECURITY_PROTOCOL_OUT: lambda cdb: f"protocol {cdb[1]:02X}h page {_number(cdb, 2, 3):04X}h",
    Op.MOVE_MEDIUM: lambda cdb: f"from {_number(cdb, 4, 5)} to {_number(cdb, 6, 7)}",
    Op.EXCHANGE_MEDIUM: lambda cdb: f"from {_number(cdb, 4, 5)} to {_number(cdb, 6, 7)} to {_number(cdb, 8, 9)}",
    Op.PERSISTENT_RESERVE_IN: lambda cdb: f"action {cdb[1] & 0x1F:02X}h",
    Op.PERSISTENT_RESERVE_OUT: lambda cdb: f"action {cdb[1] & 0x1F:02X}h type {cdb[2] & 0x0F:X}h",
    Op.MAINTENANCE_IN: lambda cdb: f"action {cdb[1] & 0x1F:02X}h",
    Op.MAINTENANCE_OUT: lambda cdb: f"action {cdb[1] & 0x1F:02X}h",
    Op.READ_ELEMENT_STATUS: lambda cdb: (
        f"{_ELEMENTS.get(cdb[1] & 0x0F, '?')} from {_number(cdb, 2, 3)}, {_number(cdb, 4, 5)} of them"
    ),
}


def name_of(cdb: bytes) -> str:
    """`WRITE(6)`, `LOCATE(16)`; the code alone for one that is not known."""
    try:
        words = Op(cdb[0]).name.split("_")
    except (ValueError, IndexError):
        return f"command {cdb[:1].hex().upper() or '?'}h"
    return " ".join(words[:-1]) + f"({words[-1]})" if words[-1].isdigit() else " ".join(words)


def fields_of(cdb: bytes) -> str:
    """What the command says, empty for one that says nothing, or is not known, or is cut off."""
    describe = _FIELDS.get(cdb[0]) if cdb else None
    try:
        return describe(cdb) if describe else ""
    except IndexError:
        return ""
