"""The virtual library keeps the promises of transports and changers, and its own: durable, exclusive, like hardware."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from capstan.errors import AlreadyExists, ChangerError, IncompatibleMedium, InUse, Refused, WriteProtected
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.scsi.virtual.storage import DiskStorage
from capstan.scsi.virtual.timing import Timing
from capstan.tape.changer import DriveAddress, MediaChanger, PortAddress, SlotAddress
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.testing.changer_contract import ChangerContract
from capstan.testing.drive_contract import read, write
from capstan.testing.transport_contract import TransportContract

SPEC = LibrarySpec("lib", slots=3, cartridges=2, cleaning_cartridges=0, capacity_bytes=16 << 20)
OWNER = """
import sys, os, time
from pathlib import Path
from capstan.scsi.virtual.library import VirtualLibrary
library = VirtualLibrary.open(Path(sys.argv[1]))
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def library(tmp_path: Path) -> Iterator[VirtualLibrary]:
    VirtualLibrary.create(tmp_path / "lib", SPEC)
    library = VirtualLibrary.open(tmp_path / "lib")
    yield library
    library.close()


class TestVirtualTransport(TransportContract):
    @pytest.fixture
    def transport(self, library: VirtualLibrary) -> object:
        return library.drive_transport(0)


class TestVirtualChanger(ChangerContract):
    @pytest.fixture
    def changer(self, library: VirtualLibrary) -> MediaChanger:
        return ScsiMediaChanger(library.changer_transport())


class RecordingStorage(DiskStorage):
    """Does what the disk does, and remembers it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def sync_file(self, descriptor: int, path: Path) -> None:
        super().sync_file(descriptor, path)
        self.calls.append(path.name.removesuffix(".new"))

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self.calls.append(path.name + "/")


def test_a_synchronous_filemark_is_on_the_disk(tmp_path: Path) -> None:
    """Image, map, sidecar and folder are synced before it returns; a buffered one syncs nothing."""
    storage = RecordingStorage()
    VirtualLibrary.create(tmp_path / "lib", SPEC)
    library = VirtualLibrary.open(tmp_path / "lib", storage=storage)
    ScsiMediaChanger(library.changer_transport()).move(SlotAddress(1001), DriveAddress(101))
    drive = ScsiTapeDrive(library.drive_transport(0))
    drive.load()
    storage.calls.clear()
    write(drive, 100)
    drive.write_filemarks(1, immediate=True)
    assert storage.calls == []
    drive.write_filemarks(1)
    assert storage.calls == ["CAP001L9.tap", "CAP001L9.map", "cartridges/", "CAP001L9.json", "cartridges/"]
    library.close()


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    """What is on tape, where each cartridge is, also one in a drive; the position is the beginning."""
    VirtualLibrary.create(tmp_path / "lib", SPEC)
    library = VirtualLibrary.open(tmp_path / "lib")
    ScsiMediaChanger(library.changer_transport()).move(SlotAddress(1001), DriveAddress(102))
    drive = ScsiTapeDrive(library.drive_transport(1))
    drive.load()
    data = write(drive, 100, None, 200)
    library.close()
    library = VirtualLibrary.open(tmp_path / "lib")
    found = ScsiMediaChanger(library.changer_transport()).inventory().find("CAP001L9")
    assert found is not None
    assert (found.place, found.source) == (DriveAddress(102), SlotAddress(1001))
    drive = ScsiTapeDrive(library.drive_transport(1))
    drive.load()
    assert [read(drive) for _ in range(3)] == [data[0], read_filemark(), data[1]]
    library.close()


def read_filemark() -> object:
    from capstan.tape.drive import Read

    return Read.FILEMARK


def test_a_loaded_cartridge_is_not_taken(library: VirtualLibrary) -> None:
    """The robot cannot take what the drive has not ejected."""
    changer = ScsiMediaChanger(library.changer_transport())
    changer.move(SlotAddress(1001), DriveAddress(101))
    drive = ScsiTapeDrive(library.drive_transport(0))
    drive.load()
    with pytest.raises(ChangerError):
        changer.move(DriveAddress(101), SlotAddress(1001))
    drive.unload()
    changer.move(DriveAddress(101), SlotAddress(1001))


def test_mail_slots(library: VirtualLibrary) -> None:
    """A person puts cartridges in and takes them out, unless the door is locked; the changer reports it."""
    changer = ScsiMediaChanger(library.changer_transport())
    changer.inventory()
    assert library.insert_into_port("NEW001L9") == 201
    assert changer.inventory().at(PortAddress(201)).barcode == "NEW001L9"  # type: ignore[union-attr]
    with pytest.raises(AlreadyExists):
        library.insert_into_port("CAP001L9")
    changer.lock_door(locked=True)
    with pytest.raises(Refused):
        library.take_from_port(201)
    changer.lock_door(locked=False)
    assert library.take_from_port(201) == "NEW001L9"
    assert not changer.inventory().at(PortAddress(201)).full  # type: ignore[union-attr]


def test_one_owner_whose_lock_dies_with_it(tmp_path: Path) -> None:
    """A second process hears the owner's pid. After kill -9 of the owner the library is free, also while a child of it
    lives on."""
    VirtualLibrary.create(tmp_path / "lib", SPEC)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "lib")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "open\n"
    with pytest.raises(InUse, match=str(owner.pid)):
        VirtualLibrary.open(tmp_path / "lib")
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    VirtualLibrary.open(tmp_path / "lib").close()
    assert owner.stdin is not None
    owner.stdin.close()
    owner.stdout.close()


def test_worm_cartridges_are_only_appended_to(library: VirtualLibrary) -> None:
    """Writing at the end works; writing over anything is refused, and nothing is lost."""
    port = library.insert_into_port("WRM001L9", worm=True)
    ScsiMediaChanger(library.changer_transport()).move(PortAddress(port), DriveAddress(101))
    drive = ScsiTapeDrive(library.drive_transport(0))
    drive.load()
    assert drive.status().worm
    data = write(drive, 10, None)
    drive.rewind()
    with pytest.raises(WriteProtected):
        write(drive, 20)
    drive.rewind()
    assert read(drive) == data[0]


def test_emulated_timing(tmp_path: Path) -> None:
    """Loading, locating, moving and transferring take what a real drive takes; without timing nothing takes any."""
    slept: list[float] = []
    timing = Timing(
        sleep=slept.append,
        load_seconds=15,
        unload_seconds=8,
        locate_full_seconds=100,
        move_seconds=5,
        bytes_per_second=1000,
    )
    VirtualLibrary.create(tmp_path / "lib", SPEC)
    library = VirtualLibrary.open(tmp_path / "lib", timing=timing)
    ScsiMediaChanger(library.changer_transport()).move(SlotAddress(1001), DriveAddress(101))
    drive = ScsiTapeDrive(library.drive_transport(0))
    drive.load()
    assert [seconds for seconds in slept if seconds] == [5, 15]
    slept.clear()
    write(drive, 500, 500, 500, 500)
    assert slept == [0.5] * 4
    slept.clear()
    drive.locate(1)
    drive.rewind()
    drive.unload()
    assert [seconds for seconds in slept if seconds] == [75, 25, 8]
    library.close()


def test_a_cleaning_cartridge_is_never_read_or_written(tmp_path: Path) -> None:
    """It is in the inventory like any other; a drive with it in says what it is instead of becoming ready."""
    VirtualLibrary.create(tmp_path / "lib", LibrarySpec("lib", slots=3, cartridges=1, cleaning_cartridges=1))
    library = VirtualLibrary.open(tmp_path / "lib")
    changer = ScsiMediaChanger(library.changer_transport())
    found = changer.inventory().find("CLN001L9")
    assert found is not None
    changer.move(found.place, DriveAddress(101))
    drive = ScsiTapeDrive(library.drive_transport(0))
    assert not drive.status().ready
    assert "cleaning" in drive.status().detail
    with pytest.raises(IncompatibleMedium):
        drive.load()
    library.close()
