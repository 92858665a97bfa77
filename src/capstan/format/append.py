"""Where writing may go on, and that nothing committed lies there (docs/design/tape-format.md, 6.1)."""

from __future__ import annotations

from dataclasses import dataclass

from capstan.core.media import Cartridge
from capstan.errors import BlankMedium, Damaged, DriveKeyNeeded, FormatError, NotCapstanTape, TapeDiffersFromCatalog
from capstan.format.header import Header, Kind, decode_header
from capstan.format.layout import MAX_RECORD_BYTES
from capstan.tape.drive import Read, SpaceUnit, TapeDrive


@dataclass(frozen=True, slots=True)
class FoundIndex:
    """A whole INDEX behind the catalog's end: `header_sha256` links the chain; `end_block` is behind its filemark."""

    header: Header
    header_sha256: str
    end_block: int


@dataclass(frozen=True, slots=True)
class Tail:
    """What lies behind the catalog's `end_block`: whole INDEXes that it does not know, oldest first. `torn` tape
    files lie behind the last of them and may be written over."""

    ahead: tuple[FoundIndex, ...]
    torn: int


def examine_tail(drive: TapeDrive, cartridge: Cartridge) -> Tail:
    """Compare the tape with the catalog and read on to the end of data; the position afterwards is undefined.

    The label was checked before. Raises TapeDiffersFromCatalog when what should be there is not, and also when a tape
    file behind the end cannot be told to be a torn one of ours: it may have been acknowledged. A record that cannot
    be read raises MediumError for the same reason. Writes nothing.
    """
    buffer = memoryview(bytearray(min(MAX_RECORD_BYTES, drive.capabilities.max_block)))
    _check_known_end(drive, cartridge, buffer)
    ahead: list[FoundIndex] = []
    torn = 0
    block = cartridge.end_block
    while True:
        read = drive.read_block(buffer)
        if read.kind is Read.END_OF_DATA:
            return Tail(tuple(ahead), torn)
        found = _whole_index(drive, cartridge, buffer, read.length, block) if read.kind is Read.DATA else None
        if found is not None:
            ahead.append(found)
            block, torn = found.end_block, 0
            continue
        torn += 1
        if read.kind is Read.DATA and drive.space(1, SpaceUnit.FILEMARKS) == 0:
            return Tail(tuple(ahead), torn)
        block = drive.position().block


def go_to_end(drive: TapeDrive, cartridge: Cartridge) -> None:
    """LOCATE to where the next tape file begins; call only after `examine_tail` found nothing ahead."""
    drive.locate(cartridge.end_block)


def _check_known_end(drive: TapeDrive, cartridge: Cartridge, buffer: memoryview) -> None:
    """Leave the tape at `end_block`, having seen the catalog's last INDEX and the filemark before the end."""

    def differs(block: int, what: str) -> TapeDiffersFromCatalog:
        return TapeDiffersFromCatalog(barcode=cartridge.barcode, block=block, what=what)

    try:
        if cartridge.index_block >= 0:
            drive.locate(cartridge.index_block)
            read = drive.read_block(buffer)
            if read.kind is not Read.DATA:
                raise differs(cartridge.index_block, "there is no INDEX")
            header, digest = decode_header(
                buffer[: read.length], barcode=cartridge.barcode, block=cartridge.index_block
            )
            if header.kind is not Kind.INDEX or digest != cartridge.index_sha256:
                raise differs(cartridge.index_block, "another INDEX is there")
        drive.locate(cartridge.end_block - 1)
        if drive.read_block(buffer).kind is not Read.FILEMARK:
            raise differs(cartridge.end_block - 1, "there is no filemark before the end")
    except BlankMedium:
        raise differs(cartridge.end_block, "the tape ends before") from None
    except (Damaged, NotCapstanTape) as error:
        raise differs(cartridge.index_block, str(error)) from None


def _whole_index(
    drive: TapeDrive, cartridge: Cartridge, buffer: memoryview, length: int, block: int
) -> FoundIndex | None:
    """Read on if the record in `buffer` heads an INDEX; None when it heads a segment, or an INDEX that was torn.

    An INDEX was acknowledged only after its filemark, so one that runs into the end of data is torn. One with a
    filemark counts as whole, whatever its payload.
    """
    try:
        header, digest = decode_header(buffer[:length], barcode=cartridge.barcode, block=block)
    except FormatError as error:
        raise TapeDiffersFromCatalog(barcode=cartridge.barcode, block=block, what=str(error)) from None
    if header.cartridge != cartridge.uuid:
        what = f"a tape file of another cartridge, {header.cartridge}"
        raise TapeDiffersFromCatalog(barcode=cartridge.barcode, block=block, what=what)
    if header.kind is not Kind.INDEX:
        return None
    try:
        while (read := drive.read_block(buffer)).kind is Read.DATA:
            pass
        whole = read.kind is Read.FILEMARK
    except DriveKeyNeeded:
        whole = drive.space(1, SpaceUnit.FILEMARKS) == 1
    return FoundIndex(header, digest, drive.position().block) if whole else None
