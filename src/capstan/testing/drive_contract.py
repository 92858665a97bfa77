"""What every tape drive must do (`tape.drive.TapeDrive`).

Bind it by giving a fixture `drive`: a blank, writable cartridge is loaded and the tape stands at its beginning.
"""

from __future__ import annotations

import os

import pytest

from capstan.errors import (
    BlankMedium,
    BlockTooLarge,
    IllegalRequest,
    InvalidValue,
    NoCartridgeLoaded,
)
from capstan.scsi.attributes import Attribute, Form, Number
from capstan.tape.drive import (
    BlockRead,
    DriveCounters,
    Read,
    Room,
    SpaceUnit,
    TapeDrive,
)

LENGTHS = (1, 2, 511, 4096, 65_536, 100_001)


def write(drive: TapeDrive, *items: int | None) -> list[bytes]:
    """Write records of these lengths, and filemarks for None; return the records' data."""
    written = []
    for item in items:
        if item is None:
            drive.write_filemarks(1)
        else:
            written.append(os.urandom(item))
            drive.write_block(memoryview(written[-1]))
    return written


def read(drive: TapeDrive, size: int = 1 << 20) -> bytes | Read:
    """The next record's data, or what was met instead."""
    buffer = memoryview(bytearray(size))
    found = drive.read_block(buffer)
    return bytes(buffer[: found.length]) if found.kind is Read.DATA else found.kind


class DriveContract:
    """Promises of the port; a clause that a drive cannot keep, by its capabilities, asks nothing more of it."""

    def test_records_come_back(self, drive: TapeDrive) -> None:
        """Records of any length come back whole and in order; filemarks and the end of data are answers."""
        data = write(drive, *LENGTHS, None)
        drive.rewind()
        assert [read(drive) for _ in data] == data
        assert read(drive) is Read.FILEMARK
        assert read(drive) is Read.END_OF_DATA
        assert read(drive) is Read.END_OF_DATA

    def test_attributes(self, drive: TapeDrive) -> None:
        """What is written into the cartridge's memory is read back, and nothing else has changed; an empty value takes
        it away."""
        before = drive.attributes()
        if not before:
            return  # it cannot read the memory of cartridges
        label = Attribute(Number.USER_TEXT_LABEL, Form.TEXT, "Woche 31 周".encode().ljust(160))
        drive.write_attributes([label, Attribute(Number.BARCODE, Form.ASCII, b"CAP009L9".ljust(32))])
        after = drive.attributes()
        assert str(after[Number.USER_TEXT_LABEL]) == "Woche 31 周" and str(after[Number.BARCODE]) == "CAP009L9"
        assert int(after[Number.MAXIMUM_CAPACITY]) > 0 and {*before} <= {*after}
        drive.write_attributes([Attribute(number, Form.ASCII, b"") for number in (label.number, Number.BARCODE)])
        assert drive.attributes() == {
            number: item for number, item in before.items() if number not in (label.number, Number.BARCODE)
        }

    def test_counters(self, drive: TapeDrive) -> None:
        """Bytes since the load, both ways, grow by what is moved; a drive that does not count says None."""
        before = drive.counters()
        if before.written_bytes is None or before.read_bytes is None:
            return  # it does not count
        write(drive, 100_000, None)
        drive.rewind()
        read(drive)
        after = drive.counters()
        assert after.written_bytes is not None and 100_000 <= after.written_bytes - before.written_bytes < 200_000
        assert after.read_bytes is not None and 100_000 <= after.read_bytes - before.read_bytes < 200_000

    def test_counters_of_the_cartridge(self, drive: TapeDrive) -> None:
        """What it has been through in its life is never less than what it has in this drive."""
        write(drive, *[1_000_000] * 3, None)
        drive.unload()
        drive.load()
        found = drive.counters()
        if found.volume_written_bytes is None or found.volume_loads is None:
            return  # the drive does not count
        assert found.volume_loads >= 2 and found.volume_written_bytes >= 3_000_000
        assert not found.volume_write_uncorrected and not found.volume_read_uncorrected

    def test_what_a_drive_lacks_it_says(self, drive: TapeDrive) -> None:
        """What its capabilities say no to is refused, or empty, and never a failure in the middle."""
        able = drive.capabilities
        if not able.attributes:
            assert drive.attributes() == {}
        if not able.log_sense:
            assert drive.alerts() == () and drive.counters() == DriveCounters()
        if not able.reservations:
            with pytest.raises(IllegalRequest):
                drive.reserve(1)
            drive.release()
        if not able.access_order:
            with pytest.raises(IllegalRequest):
                drive.recommended_order([(0, 1)])
        assert {*able.writes} <= {*able.reads}

    def test_reserved_and_released(self, drive: TapeDrive) -> None:
        """Whoever has reserved the drive goes on as before, and is shown as its holder; twice is harmless."""
        if not drive.capabilities.reservations:
            return  # the drive cannot be reserved
        drive.reserve(0xC0FFEE)
        drive.reserve(0xC0FFEE)
        held = drive.reservations()
        assert held.holder == 0xC0FFEE and held.keys.count(0xC0FFEE) == 1
        [data] = write(drive, 5000)
        drive.release()
        drive.release()
        assert drive.reservations().holder is None and 0xC0FFEE not in drive.reservations().keys
        drive.rewind()
        assert read(drive) == data
        for wrong in (0, -1, 1 << 64):
            with pytest.raises(InvalidValue):
                drive.reserve(wrong)

    def test_the_order_of_access(self, drive: TapeDrive) -> None:
        """Every piece comes once, and nothing has moved."""
        if not drive.capabilities.access_order:
            return  # the drive does not say in which order it would read
        write(drive, *[1000] * 40, None)
        drive.locate(7)
        pieces = [(20, 25), (0, 5), (39, 41), (10, 11), (30, 31)]
        order = drive.recommended_order(pieces)
        assert sorted(order) == [0, 1, 2, 3, 4]
        assert drive.recommended_order([]) == () and drive.recommended_order([(0, 41)]) == (0,)
        assert drive.position().block == 7
        with pytest.raises(IllegalRequest):
            drive.recommended_order([(0, 42)])

    def test_a_record_that_does_not_fit_is_told(self, drive: TapeDrive) -> None:
        """A record longer than the buffer is an error, never a cut-off answer; the tape stands behind it."""
        data = write(drive, 5000, 10)
        drive.rewind()
        with pytest.raises(BlockTooLarge):
            drive.read_block(memoryview(bytearray(4999)))
        assert read(drive) == data[1]

    def test_an_exact_buffer_fits(self, drive: TapeDrive) -> None:
        """A buffer of just the record's length is enough."""
        [data] = write(drive, 5000)
        drive.rewind()
        assert read(drive, 5000) == data

    def test_positions_count_records_and_filemarks(self, drive: TapeDrive) -> None:
        """Logical block numbers begin at 0 and count both; `locate` goes to any of them."""
        assert drive.position().block == 0
        data = write(drive, 10, None, 20, 30, None, 40)
        assert drive.position().block == 6
        for block, expected in ((3, data[2]), (0, data[0]), (5, data[3]), (4, Read.FILEMARK), (6, Read.END_OF_DATA)):
            drive.locate(block)
            assert drive.position().block == block
            assert read(drive) == expected

    def test_locating_beyond_the_end(self, drive: TapeDrive) -> None:
        """BlankMedium, and the tape stands at the end of data."""
        write(drive, 10, None)
        with pytest.raises(BlankMedium):
            drive.locate(100)
        assert drive.position().block == 2

    def test_spacing_over_records(self, drive: TapeDrive) -> None:
        """As many as asked for, fewer at a filemark (behind it, going forwards) and at the end of data."""
        write(drive, 1, 1, 1, None, 1)
        drive.rewind()
        assert drive.space(2, SpaceUnit.BLOCKS) == 2
        assert drive.position().block == 2
        assert drive.space(5, SpaceUnit.BLOCKS) == 1
        assert drive.position().block == 4
        assert drive.space(5, SpaceUnit.BLOCKS) == 1
        assert drive.position().block == 5

    def test_spacing_over_filemarks(self, drive: TapeDrive) -> None:
        """Forwards behind them, backwards before them, and no further than there are."""
        write(drive, 1, None, 1, None, 1, None)
        drive.rewind()
        assert drive.space(2, SpaceUnit.FILEMARKS) == 2
        assert drive.position().block == 4
        assert drive.space(9, SpaceUnit.FILEMARKS) == 1
        assert drive.position().block == 6
        if not drive.capabilities.reverse_filemarks:
            return  # the drive does not space backwards over filemarks
        assert drive.space(-2, SpaceUnit.FILEMARKS) == 2
        assert drive.position().block == 3
        assert drive.space(-9, SpaceUnit.FILEMARKS) == 1
        assert drive.position().block in (0, 1)

    def test_writing_ends_the_data_there(self, drive: TapeDrive) -> None:
        """What lay behind a write is gone."""
        write(drive, 10, 20, 30, None)
        drive.locate(1)
        [data] = write(drive, 7)
        assert read(drive) is Read.END_OF_DATA
        drive.locate(1)
        assert read(drive) == data
        assert drive.seek_end_of_data().block == 2

    def test_erasing_ends_the_data_there(self, drive: TapeDrive) -> None:
        """A quick erase makes the position the end of data."""
        write(drive, 10, 20, None)
        drive.locate(1)
        drive.erase(quick=True)
        drive.locate(1)
        assert read(drive) is Read.END_OF_DATA

    def test_filemarks_buffered_and_not(self, drive: TapeDrive) -> None:
        """Several at once, buffered or synchronous; none only flushes."""
        assert drive.write_filemarks(2, immediate=True) is Room.AMPLE
        assert drive.write_filemarks(1) is Room.AMPLE
        drive.flush()
        assert drive.position().block == 3
        drive.rewind()
        assert [read(drive) for _ in range(4)] == [Read.FILEMARK] * 3 + [Read.END_OF_DATA]

    def test_a_blank_tape(self, drive: TapeDrive) -> None:
        """Reading one meets the end of data (or says that nothing was ever written)."""
        try:
            assert drive.read_block(memoryview(bytearray(512))) == BlockRead(Read.END_OF_DATA)
        except BlankMedium:
            pass

    def test_unload_and_load(self, drive: TapeDrive) -> None:
        """What was written survives; unloading twice is harmless; without a cartridge nothing can be read."""
        data = write(drive, 100, None)
        drive.unload()
        drive.unload()
        assert not drive.status().ready
        with pytest.raises(NoCartridgeLoaded):
            drive.rewind()
        drive.load()
        assert drive.status().ready
        assert drive.position().block == 0
        assert read(drive) == data[0]

    def test_close_twice(self, drive: TapeDrive) -> None:
        """Twice is harmless."""
        drive.close()
        drive.close()
