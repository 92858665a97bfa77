"""What a search for devices finds."""

from __future__ import annotations

from dataclasses import dataclass

from capstan.scsi.pages import InquiryData

TAPE, CHANGER = 0x01, 0x08  # peripheral device types (SPC-5, table 150)


@dataclass(frozen=True, slots=True)
class FoundDevice:
    r"""A drive or changer. `address` is what a library names (`sg:/dev/sg3`, `spti:\\.\Tape0`); where it could not be
    asked what it is, `inquiry` is None and `trouble` says why. `names`: what else the system calls it; `holders`: who
    has it open, as far as this user may know."""

    address: str
    inquiry: InquiryData | None = None
    serial: str = ""
    trouble: str = ""
    names: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
