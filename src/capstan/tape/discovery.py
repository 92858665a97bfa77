"""What a drive is and can do: asked when it is opened, never assumed."""

from __future__ import annotations

from typing import Protocol

from capstan.scsi import cdb, pages
from capstan.scsi.transport import TransportLimits
from capstan.tape.drive import DriveCapabilities, DriveIdentity

_DEFAULT_MAX_BLOCK = (1 << 24) - 1  # what the 24 bits of READ(6) can say


class Query(Protocol):
    """Send a command that moves nothing and return its data; `optional`: b"" where the drive does not know it."""

    def __call__(self, command: bytes, size: int, *, optional: bool = False) -> bytes: ...


def identify(query: Query) -> DriveIdentity:
    """INQUIRY and the unit serial number."""
    data = pages.decode_inquiry(query(cdb.inquiry(96), 96))
    serial = pages.decode_serial(query(cdb.inquiry(252, page=0x80), 252, optional=True))
    return DriveIdentity(data.vendor, data.product, data.revision, serial)


def discover(query: Query, limits: TransportLimits) -> DriveCapabilities:
    """Ask for block limits, log pages and the mode page of the programmable early warning.

    Whether LOCATE and the long form of READ POSITION are there can only be tried with a cartridge loaded; the drive
    finds out by the first answer of ILLEGAL REQUEST, and `ScsiTapeDrive` corrects the capabilities then.
    """
    limit = pages.decode_block_limits(query(cdb.read_block_limits(), 6, optional=True)).maximum
    logs = pages.decode_log_pages(query(cdb.log_sense(0x00), 8192, optional=True))
    extension = query(cdb.mode_sense(0x10, 0x01, length=64), 64, optional=True)
    return DriveCapabilities(
        max_block=min(limit or _DEFAULT_MAX_BLOCK, limits.max_transfer),
        programmable_early_warning=bool(extension),
        log_sense=bool(logs),
    )
