"""What the log pages of a drive count."""

from __future__ import annotations

from collections.abc import Callable

from capstan.scsi import pages
from capstan.tape.drive import DriveCounters

_WRITE_ERRORS, _READ_ERRORS, _DEVICE, _VOLUME = 0x02, 0x03, 0x0C, 0x17
_CORRECTED, _PROCESSED, _UNCORRECTED = 0x0003, 0x0005, 0x0006  # SPC-5, 7.3.7
_CLEANING_REQUIRED = 0x0100  # SSC-5, 8.2.4
# SSC-5, table 64: thread count; unrecovered write and read errors; lifetime MB written and read.
_THREADS, _WRITE_FAILURES, _READ_FAILURES, _WRITTEN_MB, _READ_MB = 0x0001, 0x0004, 0x0009, 0x0010, 0x0011
_MEGABYTE = 1_000_000

LogPage = Callable[[int], bytes]  # the data of a page, empty when the drive does not have it


def read_counters(log_page: LogPage) -> DriveCounters:
    """The errors and bytes since the cartridge was loaded, and what the volume has been through."""
    writing, reading = (pages.decode_log(log_page(page)) for page in (_WRITE_ERRORS, _READ_ERRORS))
    volume = pages.decode_log(log_page(_VOLUME))
    cleaning = _number(pages.decode_log(log_page(_DEVICE)), _CLEANING_REQUIRED)
    return DriveCounters(
        written_bytes=_number(writing, _PROCESSED),
        read_bytes=_number(reading, _PROCESSED),
        write_corrected=_number(writing, _CORRECTED),
        write_uncorrected=_number(writing, _UNCORRECTED),
        read_corrected=_number(reading, _CORRECTED),
        read_uncorrected=_number(reading, _UNCORRECTED),
        volume_loads=_number(volume, _THREADS),
        volume_written_bytes=_bytes(volume, _WRITTEN_MB),
        volume_read_bytes=_bytes(volume, _READ_MB),
        volume_write_uncorrected=_number(volume, _WRITE_FAILURES),
        volume_read_uncorrected=_number(volume, _READ_FAILURES),
        wants_cleaning=None if cleaning is None else bool(cleaning),
    )


def _number(found: dict[int, bytes], code: int) -> int | None:
    return int.from_bytes(found[code], "big") if found.get(code) else None


def _bytes(found: dict[int, bytes], code: int) -> int | None:
    number = _number(found, code)
    return None if number is None else number * _MEGABYTE
