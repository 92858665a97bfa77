"""What a drive is and can do: asked when it is opened, never assumed."""

from __future__ import annotations

import re
from typing import Protocol

from capstan.core.generations import GENERATIONS, MEDIA, can_read, can_write, generation_of_density
from capstan.scsi import cdb, encryption, modes, pages, protection
from capstan.scsi.densities import decode_densities
from capstan.scsi.encryption import Algorithm, InPage, OutPage
from capstan.scsi.protection import ProtectionMode
from capstan.scsi.transport import TransportLimits
from capstan.tape.drive import DRIVE_KEY_BYTES, DriveCapabilities, DriveIdentity

# `ULT3580-TD9`, `ULTRIUM-HH8` (IBM, Quantum), `Ultrium 6-SCSI` (HPE), `LTO-9`.
_PRODUCT = re.compile(r"(?:ULT3580|ULTRIUM|LTO)[- ]?(?:[TH][DH])?(\d+)")
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


def find_generations(query: Query, identity: DriveIdentity) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which generations the drive reads, and which it writes, as it says itself; else as its product name and the LTO
    program's rules say. Empty when neither is known."""
    found = decode_densities(query(cdb.report_density_support(), 8192, optional=True))
    known = [(medium, item.writable) for item in found if (medium := generation_of_density(item.code)) is not None]
    if known:
        reads = {medium.name for medium, _ in known}
        writes = {medium.name for medium, writable in known if writable}
    else:
        match = _PRODUCT.search(identity.product.upper())
        drive = GENERATIONS.get(int(match[1])) if match else None
        reads = {name for name, medium in MEDIA.items() if drive and can_read(drive, medium)}
        writes = {name for name, medium in MEDIA.items() if drive and can_write(drive, medium)}
    return tuple(name for name in MEDIA if name in reads), tuple(name for name in MEDIA if name in writes)


def discover(query: Query, limits: TransportLimits, identity: DriveIdentity, *, encrypts: bool) -> DriveCapabilities:
    """Ask for block limits, log pages, generations, and the mode pages of compression and the programmable early
    warning. `encrypts`: whether `find_algorithm` found something.

    Blocks are protected where the drive can and the transport carries a block of 1 MiB with its guard, so that no tape
    becomes unreadable for want of 4 bytes.

    Whether LOCATE and the long form of READ POSITION are there can only be tried with a cartridge loaded; the drive
    finds out by the first answer of ILLEGAL REQUEST, and `ScsiTapeDrive` corrects the capabilities then.
    """
    limit = pages.decode_block_limits(query(cdb.read_block_limits(), 6, optional=True)).maximum
    largest = min(limit or _DEFAULT_MAX_BLOCK, limits.max_transfer)
    protects = largest >= _LARGEST_USUAL + protection.GUARD_BYTES and find_protection(query) is not None
    logs = pages.decode_log_pages(query(cdb.log_sense(0x00), 8192, optional=True))
    reads, writes = find_generations(query, identity)

    def mode_page(page: int, subpage: int = 0) -> bytes:
        return pages.decode_mode(query(cdb.mode_sense(page, subpage, length=64), 64, optional=True)).page

    return DriveCapabilities(
        max_block=largest - (protection.GUARD_BYTES if protects else 0),
        programmable_early_warning=modes.has_early_warning(mode_page(*modes.EXTENSION)),
        compression=modes.can_compress(mode_page(modes.COMPRESSION)),
        log_sense=bool(logs),
        encryption=encrypts,
        block_protection=protects,
        reads=reads,
        writes=writes,
    )
