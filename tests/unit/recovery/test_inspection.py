"""What a cartridge says of itself, and what does not fit together on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from written_home import WrittenHome
from written_set import RECORD, MemoryTarget, WrittenSet, member

from capstan.core.media import CartridgeState
from capstan.errors import DeviceError, HardwareError, PositionLost
from capstan.format.header import Header, Kind
from capstan.format.records import TapeFileWriter
from capstan.recovery.inspection import Inspection, check_headers, inspect_cartridge
from capstan.testing.memory_drive import MemoryTape, MemoryTapeDrive


@pytest.fixture
def home(tmp_path: Path) -> Iterator[WrittenHome]:
    """Three sets on one cartridge."""
    written = WrittenHome(tmp_path)

    async def fill() -> None:
        await written.open()
        await written.label("A1L9")
        for name in ("one", "two", "three"):
            await written.write(name, [member(name.encode(), name.encode() * 9)], ["A1L9"])
        await written.close()

    asyncio.run(fill())
    yield written


def inspect(home: WrittenHome, spool: str = "inspect") -> Inspection:
    drive = MemoryTapeDrive(home.tapes["A1L9"])
    inspection = inspect_cartridge(drive, "A1L9", home.folder / spool)
    check_headers(drive, inspection)
    return inspection


def test_a_sound_cartridge_has_no_troubles(home: WrittenHome) -> None:
    """All INDEXes are read, oldest first; what lies torn behind the last of them is no trouble."""
    home.tapes["A1L9"].blocks += [b"torn"]
    inspection = inspect(home)
    assert [index.manifest.backup_set.name for index in inspection.indexes] == ["one", "two", "three"]
    assert (inspection.state, inspection.troubles, inspection.full) == (CartridgeState.AVAILABLE, [], False)
    home.tapes["A1L9"].early_warning_bytes = 1
    assert inspect(home, "again").full


class FailingDrive(MemoryTapeDrive):
    """Its REWIND fails, `times` times."""

    def __init__(self, tape: MemoryTape, error: DeviceError, times: int) -> None:
        super().__init__(tape)
        self.error, self.times = error, times

    def rewind(self) -> None:
        if self.times:
            self.times -= 1
            raise self.error
        super().rewind()


def test_what_a_drive_lacks_is_not_said_of_its_cartridge(home: WrittenHome) -> None:
    """A drive that fails before the label is read fails the inspection, and a lost position is found again; only what
    the drive says of the medium makes a cartridge suspect."""
    spool = home.folder / "inspect"
    broken = HardwareError(device="d", command="REWIND", sense="4/44/00")
    with pytest.raises(HardwareError):
        inspect_cartridge(FailingDrive(home.tapes["A1L9"], broken, 1), "A1L9", spool)
    lost = PositionLost(device="d", reason="6/29/00")
    found = inspect_cartridge(FailingDrive(home.tapes["A1L9"], lost, 1), "A1L9", spool)
    assert (found.state, len(found.indexes)) == (CartridgeState.AVAILABLE, 3)
    with pytest.raises(PositionLost):
        inspect_cartridge(FailingDrive(home.tapes["A1L9"], lost, 9), "A1L9", spool)
    home.tapes["A1L9"].unreadable.add(0)
    assert inspect_cartridge(MemoryTapeDrive(home.tapes["A1L9"]), "A1L9", spool).state is CartridgeState.SUSPECT


def test_an_index_that_is_gone_is_missed_without_a_catalog(home: WrittenHome) -> None:
    """The chain of INDEXes alone tells that one of them cannot be read, and its segments have no owner any more."""
    middle = inspect(home).indexes[1]
    home.tapes["A1L9"].unreadable.add(middle.header.block)
    inspection = inspect(home, "again")
    assert [index.manifest.backup_set.name for index in inspection.indexes] == ["one", "three"]
    blocks = {trouble.block for trouble in inspection.troubles}
    assert blocks == {
        inspection.indexes[1].header.block,
        middle.header.block,
        middle.manifest.segments[0].block,
    }


def test_a_segment_that_nobody_claims_is_named(home: WrittenHome) -> None:
    """A tape file between INDEXes that no manifest knows, as a segment or as torn, is a trouble."""
    end = home.ends["A1L9"]
    drive = MemoryTapeDrive(home.tapes["A1L9"])
    drive.locate(end.end_block)
    stray = TapeFileWriter(drive, record_bytes=RECORD, block=end.end_block, tape_file=end.tape_files)
    header = Header(Kind.SEGMENT, end.tape_files, end.end_block, end.cartridge, "A1L9", RECORD, "", "", "", set="x")
    stray.begin(header.encode()[0])
    stray.end(synchronous=True)
    known = inspect(home).indexes[-1]
    assert known.header.block < end.end_block

    async def one_more() -> None:
        home.ends["A1L9"] = replace(end, end_block=stray.block, tape_files=stray.tape_file)
        await home.open()
        await home.write("four", [member(b"four", b"4")], ["A1L9"])
        await home.close()

    asyncio.run(one_more())
    assert [trouble.block for trouble in inspect(home, "again").troubles] == [end.end_block]


def test_a_segment_whose_records_changed_with_their_crcs_is_found(tmp_path: Path) -> None:
    """Even when every CRC agrees, the segment's SHA-256 is compared on request, and its filemark is looked for."""
    written = WrittenSet(tmp_path, [member(b"a", b"a" * 1000)])
    assert written.restore(target=MemoryTarget(), digests=True).sound
    written.segments[0] = replace(written.segments[0], payload_sha256="0" * 64)
    written.part = written._part(tmp_path)
    report = written.restore(target=MemoryTarget(), digests=True)
    assert [trouble.block for trouble in report.damage] == [written.segments[0].block] and not report.problems
    mark = written.segments[0].block + 1 + written.segments[0].records
    written.tapes["C0"].blocks[mark] = b"x"
    report = written.restore(target=MemoryTarget(), digests=True)
    assert [trouble.block for trouble in report.damage] == [written.segments[0].block, mark]
