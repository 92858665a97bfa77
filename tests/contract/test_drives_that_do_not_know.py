"""A drive that never knows where it stands keeps every promise; one that knew, and no longer does, is not trusted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from capstan.errors import PositionLost
from capstan.scsi.cdb import Op
from capstan.scsi.transport import Command, Completion, ScsiTransport
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.tape.changer import DriveAddress, SlotAddress
from capstan.tape.drive import SpaceUnit, TapeDrive
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.testing.drive_contract import DriveContract, write


class Forgetful:
    """A path to a drive that, while `forgets`, answers the long form of READ POSITION with nonsense, and says in the
    short form that it does not know; as tgt does."""

    def __init__(self, inner: ScsiTransport) -> None:
        self._inner = inner
        self.address = inner.address
        self.limits = inner.limits
        self.forgets = True
        self.spaced = 0

    def execute(self, command: Command) -> Completion:
        completion = self._inner.execute(command)
        self.spaced += command.cdb[0] in (Op.SPACE_6, Op.SPACE_16, Op.LOCATE_10, Op.LOCATE_16)
        if self.forgets and command.cdb[0] == Op.READ_POSITION and command.data is not None and not completion.sense:
            command.data[:] = bytes(len(command.data))
            command.data[0] = 0x20 if command.cdb[1] & 0x1F == 6 else 0x14  # LOLU and BYCU (SSC-5, 7.8)
        return completion

    def close(self) -> None:
        self._inner.close()


@contextmanager
def forgetful(folder: Path, *, forgets: bool = True) -> Iterator[tuple[Forgetful, ScsiTapeDrive]]:
    VirtualLibrary.create(folder / "lib", LibrarySpec("lib", cartridges=1, capacity_bytes=16 << 20))
    library = VirtualLibrary.open(folder / "lib")
    ScsiMediaChanger(library.changer_transport()).move(SlotAddress(1001), DriveAddress(101))
    path = Forgetful(library.drive_transport(0))
    path.forgets = forgets
    drive = ScsiTapeDrive(path, sleep=lambda seconds: None)
    drive.load()
    yield path, drive
    drive.close()
    library.close()


class TestDriveThatDoesNotKnow(DriveContract):
    @pytest.fixture
    def drive(self, tmp_path: Path) -> Iterator[TapeDrive]:
        with forgetful(tmp_path) as (path, drive):
            assert not drive.capabilities.reports_position
            yield drive
            assert not path.spaced


def test_backwards_over_records(tmp_path: Path) -> None:
    """As far as the last filemark, and before it, as SPACE does it (SSC-5, 7.14)."""
    with forgetful(tmp_path) as (_, drive):
        write(drive, 1, 1, None, 1, 1, 1)
        assert drive.space(-2, SpaceUnit.BLOCKS) == 2 and drive.position().block == 4
        assert drive.space(-9, SpaceUnit.BLOCKS) == 1 and drive.position().block == 2
        assert drive.space(-9, SpaceUnit.BLOCKS) == 2 and drive.position().block == 0


def test_a_drive_that_knew_is_not_counted_along(tmp_path: Path) -> None:
    """What it says later is the truth, also that it does not know: nobody writes where only our count says we are."""
    with forgetful(tmp_path, forgets=False) as (path, drive):
        assert drive.capabilities.reports_position and drive.capabilities.long_position
        write(drive, 10, 20)
        assert drive.position().block == 2
        drive.capabilities = drive.capabilities.__class__(max_block=drive.capabilities.max_block, long_position=False)
        path.forgets = True
        with pytest.raises(PositionLost):
            drive.position()
        with pytest.raises(PositionLost):
            write(drive, 30)
        assert drive.capabilities.reports_position
        path.forgets = False
        assert drive.position().block == 2
