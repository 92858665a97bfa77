"""What the log pages of a drive say: its counters, and the capacity of the cartridge in it."""

from __future__ import annotations

from collections.abc import Callable

from capstan.scsi import pages
from capstan.tape.drive import DriveCounters, MediumCapacity

_WRITE_ERRORS, _READ_ERRORS, _DEVICE, _VOLUME = 0x02, 0x03, 0x0C, 0x17
_CORRECTED, _PROCESSED, _UNCORRECTED = 0x0003, 0x0005, 0x0006  # SPC-5, 7.3.7
_CLEANING_REQUIRED = 0x0100  # SSC-5, 8.2.4
_THREAD_COUNT = 0x0001  # SSC-5, 8.2.5
_CAPACITY, _REMAINING, _MAXIMUM = 0x31, 0x0001, 0x0003  # in MiB; the vendors' page
_MEBIBYTE = 1 << 20

LogPage = Callable[[int], bytes]  # the data of a page, empty when the drive does not have it


def read_capacity(log_page: LogPage) -> MediumCapacity:
    """Native bytes; None where the drive cannot say."""
    found = pages.decode_log(log_page(_CAPACITY))
    total, left = _number(found, _MAXIMUM), _number(found, _REMAINING)
    if total is None or left is None:
        return MediumCapacity()
    return MediumCapacity(total_bytes=total * _MEBIBYTE, remaining_bytes=left * _MEBIBYTE)


def read_counters(log_page: LogPage) -> DriveCounters:
    """Since the cartridge was loaded."""
    writing, reading = (pages.decode_log(log_page(page)) for page in (_WRITE_ERRORS, _READ_ERRORS))
    cleaning = _number(pages.decode_log(log_page(_DEVICE)), _CLEANING_REQUIRED)
    return DriveCounters(
        written_bytes=_number(writing, _PROCESSED),
        read_bytes=_number(reading, _PROCESSED),
        write_corrected=_number(writing, _CORRECTED),
        write_uncorrected=_number(writing, _UNCORRECTED),
        read_corrected=_number(reading, _CORRECTED),
        read_uncorrected=_number(reading, _UNCORRECTED),
        volume_loads=_number(pages.decode_log(log_page(_VOLUME)), _THREAD_COUNT),
        wants_cleaning=None if cleaning is None else bool(cleaning),
    )


def _number(found: dict[int, bytes], code: int) -> int | None:
    return int.from_bytes(found[code], "big") if found.get(code) else None
