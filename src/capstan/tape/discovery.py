"""What a drive is and can do: asked when it is opened, never assumed."""

from __future__ import annotations

from typing import Protocol

from capstan.scsi import cdb, encryption, pages, protection
from capstan.scsi.encryption import Algorithm, InPage, OutPage
from capstan.scsi.protection import ProtectionMode
from capstan.scsi.transport import TransportLimits
from capstan.tape.drive import DRIVE_KEY_BYTES, DriveCapabilities, DriveIdentity

_LARGEST_USUAL = 1 << 20  # bytes of a block; larger ones are rare on tape
KEY_ID_BYTES = 8  # that a drive must be able to keep with each block
_NEEDED_PAGES = {InPage.OUT_SUPPORT, InPage.CAPABILITIES, InPage.STATUS, InPage.NEXT_BLOCK}
_DEFAULT_MAX_BLOCK = (1 << 24) - 1  # what the 24 bits of READ(6) can say


class Query(Protocol):
    """Send a command that moves nothing and return its data; `optional`: b"" where the drive does not know it."""

    def __call__(self, command: bytes, size: int, *, optional: bool = False) -> bytes: ...


def identify(query: Query) -> DriveIdentity:
    """INQUIRY and the unit serial number."""
    data = pages.decode_inquiry(query(cdb.inquiry(96), 96))
    serial = pages.decode_serial(query(cdb.inquiry(252, page=0x80), 252, optional=True))
    return DriveIdentity(data.vendor, data.product, data.revision, serial)


def find_algorithm(query: Query) -> Algorithm | None:
    """The algorithm by which the drive encrypts; None when it has none with a key of 32 bytes, lacks a page that is
    needed to use it safely, or cannot keep the key's id with a block."""

    def answer(page: int) -> bytes:
        return query(cdb.security_protocol_in(encryption.PROTOCOL, page, length=1024), 1024, optional=True)

    if not encryption.decode_support(answer(InPage.IN_SUPPORT)) >= _NEEDED_PAGES:
        return None
    if OutPage.SET_DATA_ENCRYPTION not in encryption.decode_support(answer(InPage.OUT_SUPPORT)):
        return None
    for algorithm in encryption.decode_capabilities(answer(InPage.CAPABILITIES)):
        able = algorithm.encrypts and algorithm.decrypts and algorithm.key_bytes == DRIVE_KEY_BYTES
        if able and algorithm.max_authenticated >= KEY_ID_BYTES:
            return algorithm
    return None


def find_protection(query: Query) -> ProtectionMode | None:
    """The control data protection mode that the drive is in; None when it cannot protect blocks."""
    answer = query(cdb.mode_sense(protection.PAGE, protection.SUBPAGE, length=64), 64, optional=True)
    return protection.decode_mode_page(pages.decode_mode(answer).page)


def discover(query: Query, limits: TransportLimits, *, encrypts: bool) -> DriveCapabilities:
    """Ask for block limits, log pages and the mode page of the programmable early warning. `encrypts`: whether
    `find_algorithm` found something.

    Blocks are protected where the drive can and the transport carries a block of 1 MiB with its guard, so that no tape
    becomes unreadable for want of 4 bytes.

    Whether LOCATE and the long form of READ POSITION are there can only be tried with a cartridge loaded; the drive
    finds out by the first answer of ILLEGAL REQUEST, and `ScsiTapeDrive` corrects the capabilities then.
    """
    limit = pages.decode_block_limits(query(cdb.read_block_limits(), 6, optional=True)).maximum
    largest = min(limit or _DEFAULT_MAX_BLOCK, limits.max_transfer)
    protects = largest >= _LARGEST_USUAL + protection.GUARD_BYTES and find_protection(query) is not None
    logs = pages.decode_log_pages(query(cdb.log_sense(0x00), 8192, optional=True))
    extension = query(cdb.mode_sense(0x10, 0x01, length=64), 64, optional=True)
    return DriveCapabilities(
        max_block=largest - (protection.GUARD_BYTES if protects else 0),
        programmable_early_warning=bool(extension),
        log_sense=bool(logs),
        encryption=encrypts,
        block_protection=protects,
    )
