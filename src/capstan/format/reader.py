"""Reads the payload of segments, record by record, and goes on behind damage."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from crc32c import crc32c

from capstan.core.backup import Segment
from capstan.errors import BlankMedium, BlockTooLarge, CapstanError, FormatError, MediumError, Remedy
from capstan.format.header import Kind, decode_header
from capstan.format.layout import HEADER_BYTES
from capstan.tape.drive import BlockRead, Read, SpaceUnit, TapeDrive

_ATTEMPTS = 3  # to read one record, when the position is lost in between (a unit attention, a bus reset)
_HEADER = -1


class Record(NamedTuple):
    """One record of a segment. `number` counts payload records from 0; -1 is the header record, which is yielded
    only when something is wrong with it. `trouble` is empty when `data` is what was written."""

    number: int
    block: int
    data: memoryview
    trouble: str


def read_crcs(path: Path) -> array[int]:
    """The CRC-32C of each payload record, from an INDEX's `records.crc32c`."""
    crcs = array("I", path.read_bytes())
    if sys.byteorder == "big":
        crcs.byteswap()
    return crcs


class SegmentReader:
    """Reads ranges of records of one cartridge. It owns the drive's position while it lives.

    `locates` counts LOCATE commands, `bytes_read` bytes that came from the tape, header records included.
    """

    def __init__(self, drive: TapeDrive, *, barcode: str) -> None:
        self.locates = 0
        self.bytes_read = 0
        self._drive = drive
        self._barcode = barcode
        self._at: int | None = None  # the block before which the tape stands, when that is known

    def read(self, segment: Segment, first: int, last: int, crcs: array[int]) -> Iterator[Record]:
        """Payload records `first` to `last` of `segment`, each in a buffer of its own.

        `crcs` are those of the whole segment. A record that cannot be read, has another length or another CRC is
        yielded with its `trouble`, and reading goes on behind it; only a drive that fails altogether raises. When
        `first` is 0 the header record is read on the way and checked.
        """
        if first == 0:
            trouble, _ = self._read(segment.block, memoryview(bytearray(HEADER_BYTES)), segment)
            if trouble:
                yield Record(_HEADER, segment.block, memoryview(b""), trouble)
        for index in range(first, last + 1):
            block = segment.block + 1 + index
            expected = min(segment.record_bytes, segment.payload_bytes - index * segment.record_bytes)
            buffer = memoryview(bytearray(expected))
            trouble, data = self._read(block, buffer, None)
            if not trouble and len(data) != expected:
                trouble = f"a record of {len(data)} bytes instead of {expected}"
            if not trouble and crc32c(data) != crcs[index]:
                trouble = "the record does not match its CRC"
            yield Record(index, block, data, trouble)

    def check_end(self, segment: Segment) -> str:
        """What is wrong with the filemark behind `segment`, whose last record was just read; empty when it is there."""
        block = segment.block + 1 + segment.records
        try:
            read = self._read_block(block, memoryview(bytearray(HEADER_BYTES)))
        except (MediumError, BlockTooLarge, BlankMedium) as error:
            self._at = None
            return str(error)
        if read.kind is Read.FILEMARK:
            self._at = block + 1
            return ""
        self._at = None
        return "there is no filemark behind the segment"

    def _read(self, block: int, buffer: memoryview, header_of: Segment | None) -> tuple[str, memoryview]:
        """Read the record at `block` into `buffer`; what is wrong with it, and the bytes."""
        try:
            read = self._read_block(block, buffer)
        except (MediumError, BlockTooLarge) as error:
            # The tape stands behind the record when the drive can say so; LOCATE makes sure of it.
            self._at = None
            return str(error), buffer[:0]
        except BlankMedium:
            self._at = None
            return "the tape ends before it", buffer[:0]
        if read.kind is Read.END_OF_DATA:
            return "the tape ends before it", buffer[:0]
        self._at = block + 1
        if read.kind is Read.FILEMARK:
            return "there is a filemark instead of it", buffer[:0]
        self.bytes_read += read.length
        data = buffer[: read.length]
        return (self._header_trouble(data, header_of) if header_of else ""), data

    def _read_block(self, block: int, buffer: memoryview) -> BlockRead:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                if self._at != block:
                    self._go_to(block)
                return self._drive.read_block(buffer)
            except CapstanError as error:
                self._at = None
                if error.remedy is not Remedy.REPOSITION or attempt == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    def _go_to(self, block: int) -> None:
        """LOCATE, but not over the single filemark between two segments: there the tape need not stop."""
        if self._at == block - 1:
            self._drive.space(1, SpaceUnit.BLOCKS)  # counts 0 when it meets the filemark, and stops behind it
            self._at = block
            return
        self._at = None
        self.locates += 1
        self._drive.locate(block)
        self._at = block

    def _header_trouble(self, data: memoryview, segment: Segment) -> str:
        try:
            header, _ = decode_header(data, barcode=self._barcode, block=segment.block)
        except FormatError as error:
            return str(error)
        found = (header.kind, header.cartridge, header.set, header.segment)
        if found != (Kind.SEGMENT, segment.cartridge, segment.set_id, segment.number):
            return f"the header record is that of another tape file ({header.kind} {header.segment} of {header.set})"
        return ""
