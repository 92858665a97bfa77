"""What every tape drive must do (`tape.drive.TapeDrive`).

Bind it by giving a fixture `drive`: a blank, writable cartridge is loaded and the tape stands at its beginning.
"""

from __future__ import annotations

import os

import pytest

from capstan.errors import BlankMedium, BlockTooLarge, DriveKeyNeeded, NoCartridgeLoaded
from capstan.tape.drive import BlockEncryption, BlockRead, Read, Room, SpaceUnit, TapeDrive

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
    """Promises of the port; clauses that a drive cannot keep are skipped by its capabilities."""

    def test_records_come_back(self, drive: TapeDrive) -> None:
        """Records of any length come back whole and in order; filemarks and the end of data are answers."""
        data = write(drive, *LENGTHS, None)
        drive.rewind()
        assert [read(drive) for _ in data] == data
        assert read(drive) is Read.FILEMARK
        assert read(drive) is Read.END_OF_DATA
        assert read(drive) is Read.END_OF_DATA

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
            pytest.skip("the drive does not space backwards over filemarks")
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

    # ── drives that encrypt ───────────────────────────────────────────────────────────────────────────

    def test_clear_and_encrypted_records_stand_on_one_tape(self, drive: TapeDrive) -> None:
        """What was written with a key is read with it, beside what was written in clear; lengths and positions are as
        ever, and each encrypted record says which key it wants."""
        encryption = _encryption(drive)
        data = write(drive, 4096)
        encryption.set_key(KEY, "0123456789ab", encrypt=True)
        data += write(drive, 65_536, 1, None, 100_001)
        encryption.set_key(KEY, "0123456789ab", encrypt=False)
        data += write(drive, 4096)
        drive.rewind()
        assert [read(drive) for _ in range(3)] == data[:3]
        assert read(drive) is Read.FILEMARK
        assert encryption.key_wanted() == "0123456789ab"
        assert read(drive) == data[3]
        assert encryption.key_wanted() is None
        assert (read(drive), read(drive)) == (data[4], Read.END_OF_DATA)
        drive.locate(2)
        assert read(drive) == data[2]

    def test_without_the_key_nothing_is_read(self, drive: TapeDrive) -> None:
        """No key, or another one: an error that names the key, before the record; what is in clear is read all the
        same, and filemarks are passed."""
        encryption = _encryption(drive)
        encryption.set_key(KEY, "aa11", encrypt=True)
        data = write(drive, 5000, None)
        encryption.clear_key()
        data += write(drive, 10)
        drive.rewind()
        for key, key_id in ((b"", ""), (bytes(32), "bb22")):
            if key:
                encryption.set_key(key, key_id, encrypt=False)
            with pytest.raises(DriveKeyNeeded, match="key aa11"):
                read(drive)
            assert drive.position().block == 0
        assert drive.space(1, SpaceUnit.FILEMARKS) == 1
        assert read(drive) == data[1]
        drive.rewind()
        encryption.set_key(bytes(32), "aa11", encrypt=False)  # it says that it is the one
        with pytest.raises(DriveKeyNeeded):
            read(drive)
        encryption.set_key(KEY, "aa11", encrypt=False)
        assert read(drive) == data[0]

    def test_a_key_leaves_with_the_cartridge(self, drive: TapeDrive) -> None:
        """An unload forgets the key: whoever loads again must set it again, and else writes in clear."""
        encryption = _encryption(drive)
        encryption.set_key(KEY, "aa11", encrypt=True)
        [data] = write(drive, 5000)
        drive.unload()
        drive.load()
        with pytest.raises(DriveKeyNeeded):
            read(drive)
        encryption.set_key(KEY, "aa11", encrypt=False)
        assert read(drive) == data


KEY = bytes(range(32))


def _encryption(drive: TapeDrive) -> BlockEncryption:
    if drive.encryption is None:
        pytest.skip("the drive does not encrypt")
    return drive.encryption
