"""What is on a tape, read from the tape alone: its tape files, its INDEXes, its records as plain files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from capstan.errors import BlankMedium, BlockTooLarge, FormatError, MediumError
from capstan.format.header import Header, Kind, decode_header
from capstan.format.layout import HEADER_BYTES, MAX_RECORD_BYTES
from capstan.tape.drive import BlockRead, Read, SpaceUnit, TapeDrive


@dataclass(slots=True)
class TapeFile:
    """One tape file. `block` is that of its first record; `records` and `bytes` count that record too.

    `sizes` has each record's size (0: unreadable); empty when only headers were read, and `bytes` is then 0.
    `trouble` says why there is no `header`. `filemark`: it ends with one; without it, it was torn.
    """

    number: int
    block: int
    header: Header | None = None
    header_sha256: str = ""
    trouble: str = ""
    records: int = 0
    bytes: int = 0
    filemark: bool = False
    sizes: list[int] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class IndexPlace:
    """An INDEX that ends with a filemark; its payload was not looked at."""

    block: int
    header: Header
    header_sha256: str


@dataclass(slots=True)
class FoundIndexes:
    """`places`, oldest first. `unreadable`: blocks where a tape file's header should be and cannot be read, with what
    is wrong: each may be an INDEX too, so nobody may take what it says for gone."""

    places: list[IndexPlace] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)


def record_buffer(drive: TapeDrive) -> memoryview:
    """A buffer for any record of the format."""
    return memoryview(bytearray(min(MAX_RECORD_BYTES, drive.capabilities.max_block)))


def read_record(drive: TapeDrive, buffer: memoryview, block: int) -> BlockRead | None:
    """Read the record at `block`, before which the tape stands; None when it is unreadable or larger than any of
    the format. In all cases but the end of data the tape stands behind it afterwards."""
    try:
        return drive.read_block(buffer)
    except (MediumError, BlockTooLarge):
        drive.locate(block + 1)
        return None


def scan_tape(drive: TapeDrive, barcode: str, *, headers_only: bool = False) -> Iterator[TapeFile]:
    """Every tape file from the beginning of the tape to the end of data, as it was read.

    Unreadable records and headers are part of the answer; only a drive that fails altogether raises. With
    `headers_only` a tape file costs one record and one SPACE.
    """
    drive.rewind()
    buffer = record_buffer(drive)
    block = number = 0
    while True:
        found = TapeFile(number, block)
        read = _first_record(drive, found, buffer, barcode)
        if read is None or read.kind is Read.DATA:
            block = _pass_over(drive, found) if headers_only else _read_through(drive, found, buffer, None)
        elif read.kind is Read.FILEMARK:
            block, found.filemark, found.trouble = block + 1, True, "it is empty"
        else:
            return
        yield found
        if not found.filemark:
            return
        number += 1


def extract_tape(drive: TapeDrive, barcode: str, directory: Path) -> Iterator[tuple[TapeFile, Path]]:
    """Write each tape file, header record and payload, as `NNNN.label`, `.segment`, `.index` or `.unknown`.

    An unreadable record becomes zeros of the tape file's record size, so that what follows keeps its place; it is
    named in `TapeFile.damaged`. The directory must exist; files in it with these names are replaced.
    """
    drive.rewind()
    buffer = record_buffer(drive)
    block = number = 0
    while True:
        found = TapeFile(number, block)
        read = _first_record(drive, found, buffer, barcode)
        if read is not None and read.kind is Read.END_OF_DATA:
            return
        path = directory / f"{number:04d}.{found.header.kind if found.header else 'unknown'}"
        with path.open("wb") as out:
            if read is not None and read.kind is Read.FILEMARK:
                block, found.filemark, found.trouble = block + 1, True, "it is empty"
            else:
                out.write(buffer[: read.length] if read else bytes(HEADER_BYTES))
                block = _read_through(drive, found, buffer, out)
        yield found, path
        if not found.filemark:
            return
        number += 1


def find_indexes(drive: TapeDrive, barcode: str, cartridge: str, *, by_links: bool = True) -> FoundIndexes:
    """Every INDEX of this cartridge (uuid), oldest first, without reading a segment's payload.

    The last one is looked for from the end of data backwards by filemarks, then each names the one before it. Where
    that chain is broken by a damaged header, the search goes on by filemarks. A drive that cannot go backwards reads
    every header, forwards; so does one whose links (`by_links`) are not to be believed.
    """
    found = FoundIndexes()
    if not (by_links and drive.capabilities.reverse_filemarks):
        for file in scan_tape(drive, barcode, headers_only=True):
            if file.header is None and not (file.filemark and file.records == 0):
                found.unreadable[file.block] = file.trouble
            elif file.filemark and file.header and _is_index(file.header, cartridge):
                found.places.append(IndexPlace(file.block, file.header, file.header_sha256))
        return found
    buffer = record_buffer(drive)
    end = _filemark_before(drive, drive.seek_end_of_data().block)
    while end > 0:
        begin = _filemark_before(drive, end) + 1
        place = _index_at(drive, begin, barcode, cartridge, buffer, found)
        while place is not None:
            found.places.append(place)
            begin = place.block
            previous = place.header.previous_index_block
            if previous < 0:
                end = 0
                break
            hop = _index_at(drive, previous, barcode, cartridge, buffer, found) if previous < begin else None
            place = hop if hop and hop.header_sha256 == found.places[-1].header.previous_index_sha256 else None
        else:
            end = begin - 1
    found.places.reverse()
    return found


def _first_record(drive: TapeDrive, found: TapeFile, buffer: memoryview, barcode: str) -> BlockRead | None:
    try:
        read = read_record(drive, buffer, found.block)
    except BlankMedium:
        return BlockRead(Read.END_OF_DATA)
    found.records = 1
    if read is None:
        found.trouble = f"block {found.block} cannot be read"
        found.damaged.append(found.block)
        found.sizes.append(0)
    elif read.kind is Read.DATA:
        found.bytes = read.length
        found.sizes.append(read.length)
        try:
            found.header, found.header_sha256 = decode_header(buffer[: read.length], barcode=barcode, block=found.block)
        except FormatError as error:
            found.trouble = str(error)
    return read


def _pass_over(drive: TapeDrive, found: TapeFile) -> int:
    found.filemark = drive.space(1, SpaceUnit.FILEMARKS) == 1
    block = drive.position().block
    found.records = block - found.block - found.filemark
    found.bytes = 0
    found.sizes.clear()
    return block


def _read_through(drive: TapeDrive, found: TapeFile, buffer: memoryview, out: BinaryIO | None) -> int:
    """Read to behind the filemark or to the end of data; return the block the tape stands at."""
    block = found.block + 1
    while True:
        read = read_record(drive, buffer, block)
        if read is not None and read.kind is Read.END_OF_DATA:
            return block
        block += 1
        if read is not None and read.kind is Read.FILEMARK:
            found.filemark = True
            return block
        found.records += 1
        if read is None:
            found.damaged.append(block - 1)
            found.sizes.append(0)
            if out:
                out.write(bytes(found.header.record_bytes if found.header else 0))
        else:
            found.bytes += read.length
            found.sizes.append(read.length)
            if out:
                out.write(buffer[: read.length])


def _filemark_before(drive: TapeDrive, block: int) -> int:
    """The block number of the last filemark before `block`; -1 when there is none."""
    drive.locate(block)
    if drive.space(-1, SpaceUnit.FILEMARKS) == 0:
        return -1
    return drive.position().block


def _index_at(
    drive: TapeDrive, block: int, barcode: str, cartridge: str, buffer: memoryview, found: FoundIndexes
) -> IndexPlace | None:
    drive.locate(block)
    read = read_record(drive, buffer, block)
    if read is None:
        found.unreadable[block] = "a header record cannot be read"
        return None
    if read.kind is not Read.DATA:
        return None
    try:
        header, digest = decode_header(buffer[: read.length], barcode=barcode, block=block)
    except FormatError as error:
        found.unreadable[block] = str(error)
        return None
    return IndexPlace(block, header, digest) if _is_index(header, cartridge) else None


def _is_index(header: Header | None, cartridge: str) -> bool:
    return header is not None and header.kind is Kind.INDEX and header.cartridge == cartridge
