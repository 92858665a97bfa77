"""What MODE SELECT sets in a virtual drive, and MODE SENSE shows (SSC-5, 8.3). A reset undoes all of it.

Data is stored as it comes, whether compression is on or off: hosts cannot tell the difference.
"""

from __future__ import annotations

from capstan.scsi import modes, protection
from capstan.scsi.cdb import Op
from capstan.scsi.virtual.cartridge import VirtualCartridge
from capstan.scsi.virtual.protection import BlockProtection
from capstan.scsi.virtual.target import INVALID_FIELD, illegal

_COMPRESSION = (0x0F, 0x00)
_DEVICE = (0x10, 0x00)
_EXTENSION = (0x10, 0x01)
_MEDIUM = (0x1D, 0x00)
_PROTECTION = (protection.PAGE, protection.SUBPAGE)


class DriveModes:
    """The modes of one drive. `block_length` 0: blocks of any length. `early_warning_bytes`: before the drive's own
    early warning, where it warns once more."""

    def __init__(self) -> None:
        self.protection = BlockProtection()
        self.forget()

    def forget(self) -> None:
        """As when the drive is reset."""
        self.block_length = 0
        self.compresses = True
        self._early_warning_mb = 0
        self.protection.forget()

    @property
    def early_warning_bytes(self) -> int:
        return self._early_warning_mb * modes.EARLY_WARNING_UNIT

    def sense(self, cdb: bytes, cartridge: VirtualCartridge | None, *, threaded: bool, writable: bool) -> bytes:
        """The data of MODE SENSE(6) or (10): header, block descriptor unless DBD, and one page or all of them (3Fh;
        with subpages for subpage FFh). ILLEGAL REQUEST for pages that the drive does not have, and for saved values."""
        if cdb[2] >> 6 == 0x03:
            raise illegal(0x39)  # SAVING PARAMETERS NOT SUPPORTED
        page = self._pages(cdb[2] & 0x3F, cdb[3], changeable=cdb[2] >> 6 == 0x01, cartridge=cartridge)
        protected = not writable or (cartridge is not None and cartridge.facts.write_protected)
        density = cartridge.generation.density if cartridge is not None and threaded else 0
        descriptor = b"" if cdb[1] & 0x08 else bytes((density, 0, 0, 0, 0)) + self.block_length.to_bytes(3, "big")
        flags = 0x90 if protected else 0x10  # buffered
        if cdb[0] == Op.MODE_SENSE_10:
            head = bytes((0, flags, 0, 0, 0, len(descriptor)))
            return (len(head + descriptor + page)).to_bytes(2, "big") + head + descriptor + page
        head = bytes((0, flags, len(descriptor)))
        return bytes((len(head + descriptor + page),)) + head + descriptor + page

    def select(self, parameters: bytes, *, long: bool = False) -> int:
        """The data of MODE SELECT(6), or (10) if `long`: all of it or, with ILLEGAL REQUEST, nothing."""
        head = 8 if long else 4
        descriptor = parameters[head - 1 : head]
        if not descriptor or len(parameters) < head + descriptor[0]:
            raise illegal(0x1A)
        pages = _split(parameters[head + descriptor[0] :])
        if any(code not in _KNOWN for code, _ in pages):
            raise illegal(0x26)
        for code, page in pages:
            if code == _PROTECTION:
                self.protection.set(page)  # refuses what it does not know, and then nothing has changed
        for code, page in pages:
            if code == _COMPRESSION:
                self.compresses = modes.decode_compression(page)
            elif code == _EXTENSION:
                self._early_warning_mb = modes.decode_early_warning(page)
        if descriptor[0] >= 8:
            self.block_length = int.from_bytes(parameters[head + 5 : head + 8], "big")
        return len(parameters)

    def _pages(self, page: int, subpage: int, *, changeable: bool, cartridge: VirtualCartridge | None) -> bytes:
        worm = cartridge is not None and cartridge.facts.worm
        algorithm = 1 if self.compresses else 0
        found = {
            _PROTECTION: self.protection.page,
            _COMPRESSION: modes.encode_compression(on=self.compresses),
            # Device configuration (SSC-5, 8.3.4): BIS, and SELECT DATA COMPRESSION ALGORITHM.
            _DEVICE: bytes((0x10, 14)) + bytes(6) + b"\x40" + bytes(5) + bytes((algorithm, 0)),
            _EXTENSION: modes.encode_early_warning(self._early_warning_mb),
            _MEDIUM: bytes((0x1D, 30, 0x01 if worm else 0x00)) + bytes(29),  # WORMM (SSC-5, 8.3.7)
        }
        if changeable:
            found = {code: _changeable(code, value) for code, value in found.items()}
        if page == 0x00:
            return b""
        if page == 0x3F and subpage in (0, 0xFF):
            return b"".join(value for code, value in found.items() if subpage or not code[1])
        if (page, subpage) not in found:
            raise illegal(*INVALID_FIELD)
        return found[page, subpage]


_KNOWN = frozenset((_COMPRESSION, _DEVICE, _EXTENSION, _MEDIUM, _PROTECTION))


def _changeable(code: tuple[int, int], page: bytes) -> bytes:
    """A page as a mask of what can be changed (SPC-5, 6.14.2)."""
    head = _head(page)
    if code == _EXTENSION:
        return modes.encode_early_warning(modes.MOST_EARLY_WARNING)
    if code == _PROTECTION:
        return page[:head] + bytes((0xFF, 0x3F, 0xC0)).ljust(len(page) - head, b"\0")
    return (page[:head] + (b"\x80" if code == _COMPRESSION else b"")).ljust(len(page), b"\0")


def _head(page: bytes) -> int:
    return 4 if page[0] & 0x40 else 2


def _split(data: bytes) -> list[tuple[tuple[int, int], bytes]]:
    """The pages in what MODE SELECT has brought, by page and subpage. ILLEGAL REQUEST for one that is cut off (SPC-5,
    7.5.7)."""
    found, at = [], 0
    while at < len(data):
        head = _head(data[at : at + 1])
        if at + head > len(data):
            raise illegal(0x1A)
        long = head == 4
        end = at + head + int.from_bytes(data[at + 2 : at + 4] if long else data[at + 1 : at + 2], "big")
        if end > len(data):
            raise illegal(0x1A)
        found.append(((data[at] & 0x3F, data[at + 1] if long else 0), data[at:end]))
        at = end
    return found
