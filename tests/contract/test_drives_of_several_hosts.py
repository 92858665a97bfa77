"""A drive that several hosts see: who has reserved it uses it, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from capstan.errors import PositionLost, ReservationConflict
from capstan.scsi.cdb import Op
from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.tape.changer import DriveAddress, SlotAddress
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.testing.drive_contract import read, write

OURS, THEIRS = 0xA1, 0xB2
Pair = tuple[ScsiTapeDrive, ScsiTapeDrive]


def opened(folder: Path, faults: FaultPlan | None = None) -> Iterator[Pair]:
    """One drive as two hosts have it, with a cartridge that both have seen."""
    VirtualLibrary.create(folder / "lib", LibrarySpec("lib", cartridges=1, capacity_bytes=16 << 20))
    library = VirtualLibrary.open(folder / "lib", faults=faults)
    ScsiMediaChanger(library.changer_transport()).move(SlotAddress(1001), DriveAddress(101))
    pair = [ScsiTapeDrive(library.drive_transport(0, host), sleep=lambda seconds: None) for host in ("ours", "theirs")]
    for drive in pair:
        drive.load()
    yield pair[0], pair[1]
    library.close()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Pair]:
    yield from opened(tmp_path)


def test_the_other_host_is_kept_out(hosts: Pair) -> None:
    """It can ask who has the drive and what it is, and moves, reads and writes nothing; once it is released, it can."""
    ours, theirs = hosts
    ours.reserve(OURS)
    for forbidden in (theirs.rewind, lambda: write(theirs, 10), lambda: read(theirs), theirs.unload):
        with pytest.raises(ReservationConflict):
            forbidden()
    with pytest.raises(ReservationConflict):
        theirs.reserve(THEIRS)
    assert theirs.reservations().holder == OURS
    assert theirs.alerts() == ()
    theirs.release()
    [data] = write(ours, 100)
    ours.release()
    theirs.reserve(THEIRS)
    theirs.rewind()
    assert read(theirs) == data
    with pytest.raises(ReservationConflict):
        ours.rewind()


def test_a_dead_host_is_preempted(hosts: Pair) -> None:
    """Its key is taken out and the drive is ours. When it turns out to be alive, it hears of it, and does no harm."""
    dead, ours = hosts
    dead.reserve(THEIRS)
    [data] = write(dead, 100)
    ours.reserve(OURS, preempt=THEIRS)
    assert ours.reservations().holder == OURS and ours.reservations().keys == (OURS,)
    ours.rewind()
    assert read(ours) == data
    with pytest.raises((PositionLost, ReservationConflict)):
        write(dead, 10)
    with pytest.raises((PositionLost, ReservationConflict)):
        write(dead, 10)
    dead.release()
    assert ours.reservations().holder == OURS


def test_preempting_the_wrong_key_takes_nothing_away(hosts: Pair) -> None:
    """A key that no host has is passed over: whoever has the drive keeps it."""
    theirs, ours = hosts
    theirs.reserve(THEIRS)
    with pytest.raises(ReservationConflict):
        ours.reserve(OURS, preempt=0xDEAD)
    assert ours.reservations().holder == THEIRS
    write(theirs, 10)


def test_reserved_again_behind_a_reset(tmp_path: Path) -> None:
    """A reset may have undone it; before anything is written, it is there again."""
    plan = FaultPlan((Fault(FaultKind.UNIT_ATTENTION, nth=2, opcodes=frozenset({Op.WRITE_6})),))
    for ours, theirs in opened(tmp_path, plan):
        ours.reserve(OURS)
        write(ours, 10)
        with pytest.raises(PositionLost):
            write(ours, 20)
        theirs_key = theirs.reservations()
        assert theirs_key.holder == OURS
        ours.locate(1)
        write(ours, 30)
        assert ours.reservations().holder == OURS


def test_a_lost_reservation_is_never_written_through(hosts: Pair) -> None:
    """Another host was faster behind the reset: writing is refused, however the position is found again."""
    ours, theirs = hosts
    ours.reserve(OURS)
    theirs.reserve(THEIRS, preempt=OURS)
    for _ in range(3):
        with pytest.raises((PositionLost, ReservationConflict)):
            ours.rewind()
            write(ours, 10)
    theirs.rewind()
    assert theirs.reservations().holder == THEIRS
