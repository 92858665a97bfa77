"""What a device says, what we make of it, and what becomes of the position: one table, from one end to the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import capstan.errors as errors
from capstan.errors import DeviceError, PositionLost, Remedy
from capstan.scsi.cdb import Op
from capstan.scsi.sense import Key, Sense, text_of
from capstan.scsi.sense_codes import TEXTS
from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.tape.changer import DriveAddress, SlotAddress
from capstan.tape.drive import Read
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.tape.sense_errors import error_of, meaning_of
from capstan.testing.drive_contract import read, write

# key/asc/ascq: the error, what an engine may do, whether the tape is where it was
MEANINGS = """
2/04/00 NotReady            RETRY         kept
2/04/01 NotReady            RETRY         kept
2/04/02 NotReady            RETRY         kept
2/04/03 OperatorNeeded      OPERATOR      kept
2/04/07 NotReady            RETRY         kept
2/04/12 OperatorNeeded      OPERATOR      kept
2/04/15 OperatorNeeded      OPERATOR      kept
2/04/18 OperatorNeeded      OPERATOR      kept
2/04/22 OperatorNeeded      OPERATOR      kept
2/30/00 IncompatibleMedium  NEW_CARTRIDGE kept
2/30/03 IncompatibleMedium  NEW_CARTRIDGE kept
2/3A/00 NoCartridgeLoaded   OPERATOR      kept
2/3A/04 NoCartridgeLoaded   OPERATOR      kept
2/3B/12 OperatorNeeded      OPERATOR      kept
2/3E/03 OperatorNeeded      OPERATOR      kept
2/53/00 HardwareError       NEW_DRIVE     lost
2/5A/01 OperatorNeeded      OPERATOR      kept
3/0C/00 MediumError         NEW_CARTRIDGE lost
3/11/00 MediumError         NEW_CARTRIDGE lost
3/14/03 MediumError         NEW_CARTRIDGE lost
3/30/02 IncompatibleMedium  NEW_CARTRIDGE kept
3/31/00 MediumError         NEW_CARTRIDGE lost
3/33/00 MediumError         NEW_CARTRIDGE lost
3/3B/00 MediumError         NEW_CARTRIDGE lost
3/50/00 MediumError         NEW_CARTRIDGE lost
3/51/00 MediumError         NEW_CARTRIDGE lost
3/52/00 MediumError         NEW_CARTRIDGE lost
3/53/00 MediumError         NEW_CARTRIDGE lost
4/08/00 HardwareError       NEW_DRIVE     lost
4/10/01 BlockChanged        REPOSITION    lost
4/15/01 HardwareError       NEW_DRIVE     lost
4/30/07 HardwareError       NEW_DRIVE     lost
4/40/80 HardwareError       NEW_DRIVE     lost
4/44/00 HardwareError       NEW_DRIVE     lost
4/52/00 MediumError         NEW_CARTRIDGE lost
4/53/00 HardwareError       NEW_DRIVE     lost
5/20/00 IllegalRequest      ABORT         kept
5/21/01 IllegalRequest      ABORT         kept
5/24/00 IllegalRequest      ABORT         kept
5/25/00 IllegalRequest      ABORT         kept
5/26/00 IllegalRequest      ABORT         kept
5/30/05 IncompatibleMedium  NEW_CARTRIDGE kept
5/3B/0D IllegalRequest      ABORT         kept
5/53/02 IllegalRequest      ABORT         kept
6/28/00 PositionLost        REPOSITION    lost
6/29/00 PositionLost        REPOSITION    lost
6/2A/03 PositionLost        REPOSITION    lost
6/3F/01 PositionLost        REPOSITION    lost
7/27/00 WriteProtected      NEW_CARTRIDGE kept
7/27/02 WriteProtected      NEW_CARTRIDGE kept
7/30/05 IncompatibleMedium  NEW_CARTRIDGE kept
7/30/0C WriteProtected      NEW_CARTRIDGE kept
7/30/0D MediumError         NEW_CARTRIDGE kept
7/5A/02 WriteProtected      NEW_CARTRIDGE kept
7/74/01 DeviceError         ABORT         kept
8/00/05 BlankMedium         ABORT         kept
8/14/03 MediumError         NEW_CARTRIDGE lost
A/00/00 CommandAborted      REPOSITION    lost
B/00/00 CommandAborted      REPOSITION    lost
B/10/01 BlockChanged        REPOSITION    lost
B/47/00 CommandAborted      REPOSITION    lost
B/4E/00 CommandAborted      REPOSITION    lost
D/00/02 EndOfMedium         NEW_CARTRIDGE kept
E/1D/00 MediumError         NEW_CARTRIDGE lost
9/80/01 DeviceError         ABORT         lost
"""
ROWS = [line.split() for line in MEANINGS.split("\n") if line]


def sense_of(text: str, *, deferred: bool = False) -> Sense:
    key, asc, ascq = (int(part, 16) for part in text.split("/"))
    return Sense(Key(key), asc, ascq, deferred=deferred)


@pytest.mark.parametrize(("code", "error", "remedy", "position"), ROWS, ids=[row[0] for row in ROWS])
def test_the_table(code: str, error: str, remedy: str, position: str) -> None:
    """The error, its remedy and the position; the text has the code, and says what to do."""
    meaning = meaning_of(sense_of(code))
    raised = error_of(sense_of(code), device="D", command="C", block="7")
    assert type(raised) is getattr(errors, error) and raised.remedy is Remedy[remedy]
    assert meaning.keeps_position is (position == "kept")
    assert raised.hint_text or error in ("NoCartridgeLoaded", "PositionLost", "EndOfMedium", "BlankMedium")
    assert "?" not in str(raised)


@pytest.mark.parametrize("code", ["0/00/00", "1/0C/00", "3/0C/00", "4/44/00", "2/04/00", "5/24/00", "D/00/02"])
def test_a_deferred_error_loses_the_position(code: str) -> None:
    """It speaks of an earlier command, and this one was not carried out: nobody knows where the tape is."""
    assert not meaning_of(sense_of(code, deferred=True)).keeps_position


def test_every_code_has_a_meaning() -> None:
    """Whatever key comes with whatever code, known or not, and in words where there are any."""
    for key in Key:
        for asc, ascq in [*TEXTS, (0x80, 0x01), (0xFF, 0xFF), (0x04, 0x7F)]:
            sense = Sense(key, asc, ascq)
            assert isinstance(error_of(sense, device="D", command="C"), DeviceError)
            assert f"({key:X}/{asc:02X}/{ascq:02X})" in str(sense)
            assert not text_of(asc, ascq) or text_of(asc, ascq) in str(sense)
    assert str(Sense(Key.HARDWARE_ERROR, 0x40, 0x91)) == "diagnostic failure of component 91h (4/40/91)"


@contextmanager
def loaded(folder: Path, sense: Sense, opcode: Op, *, nth: int = 1) -> Iterator[ScsiTapeDrive]:
    """A loaded drive whose nth command of that kind ends so."""
    plan = FaultPlan((Fault(FaultKind.SENSE, nth=nth, unit="drive0", opcodes=frozenset({opcode}), sense=sense),))
    VirtualLibrary.create(folder / "lib", LibrarySpec("lib", cartridges=1, capacity_bytes=16 << 20))
    library = VirtualLibrary.open(folder / "lib", faults=plan)
    ScsiMediaChanger(library.changer_transport()).move(SlotAddress(1001), DriveAddress(101))
    drive = ScsiTapeDrive(library.drive_transport(0), sleep=lambda seconds: None)
    drive.load()
    yield drive
    assert plan.triggered
    library.close()


@pytest.mark.parametrize(("code", "error", "remedy", "position"), ROWS, ids=[row[0] for row in ROWS])
def test_what_a_write_raises(tmp_path: Path, code: str, error: str, remedy: str, position: str) -> None:
    """As the table says; where the position is lost nothing is read or written until it is found again."""
    with loaded(tmp_path, sense_of(code), Op.WRITE_6, nth=2) as drive:
        [data] = write(drive, 10)
        with pytest.raises(getattr(errors, error)) as caught:
            write(drive, 20)
        assert caught.value.remedy is Remedy[remedy]
        if position == "lost":
            for refused in (lambda: write(drive, 30), lambda: read(drive), drive.flush):
                with pytest.raises(PositionLost):
                    refused()
            drive.locate(1)
        write(drive, 40)
        drive.locate(0)
        assert read(drive) == data


@pytest.mark.parametrize("key", ["0", "1"])
def test_a_deferred_error_is_never_data(tmp_path: Path, key: str) -> None:
    """A read that ends with one was not carried out: there is no empty record there."""
    with loaded(tmp_path, sense_of(f"{key}/0C/00", deferred=True), Op.READ_6) as drive:
        [data] = write(drive, 10)
        drive.rewind()
        with pytest.raises(errors.CommandAborted):
            read(drive)
        with pytest.raises(PositionLost):
            read(drive)
        drive.rewind()
        assert read(drive) == data
        assert read(drive) is Read.END_OF_DATA


@pytest.mark.parametrize("opcode", [Op.REWIND, Op.LOCATE_16, Op.MODE_SELECT_6, Op.READ_POSITION, Op.LOG_SENSE])
def test_what_was_done_is_done(tmp_path: Path, opcode: Op) -> None:
    """RECOVERED ERROR: the command was carried out, and the drive has something to say about it."""
    recovered = Sense(Key.RECOVERED_ERROR, 0x5D, 0x00)
    with loaded(tmp_path, recovered, opcode, nth=2 if opcode is Op.LOG_SENSE else 1) as drive:
        drive.rewind()
        if opcode is Op.LOCATE_16:
            drive.locate(0)
        if opcode is not Op.READ_POSITION:
            assert drive.position().block == 0
        else:
            drive.position()
        drive.counters()
        write(drive, 10)


def test_a_drive_that_asks_to_be_cleaned(tmp_path: Path) -> None:
    """0/00/17 with TEST UNIT READY: it is ready, and asks."""
    with loaded(tmp_path, Sense(Key.NO_SENSE, 0x00, 0x17), Op.TEST_UNIT_READY, nth=2) as drive:
        found = drive.status()
        assert found.ready and found.cleaning_requested
        assert not drive.status().cleaning_requested
