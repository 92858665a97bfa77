"""A library of devices: how its drives are kept from other hosts, what they are told, and which part of it is ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capstan import library_devices
from capstan.config.home import Home
from capstan.config.settings import DeviceLibrarySettings, Settings, VirtualLibrarySettings, parse_elements
from capstan.errors import InvalidValue, ReservationConflict
from capstan.library_devices import DeviceOpener, RealDevices
from capstan.media.library import LibraryDevices
from capstan.scsi import cdb, modes, pages
from capstan.scsi.transport import ScsiTransport
from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.tape.changer import DriveAddress, SlotAddress
from capstan.tape.scsi_drive import ScsiTapeDrive


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualLibrary]:
    """A library with an address for each device, `test:HOST/NUMBER`: the robot's is 0."""
    VirtualLibrary.create(tmp_path / "lib", LibrarySpec("lib", drives=2, slots=6, cartridges=4, capacity_bytes=8 << 20))
    library = VirtualLibrary.open(tmp_path / "lib")

    def transport(address: str) -> ScsiTransport:
        host, number = address.removeprefix("test:").split("/")
        return library.drive_transport(int(number) - 1, host) if int(number) else library.changer_transport()

    monkeypatch.setattr(library_devices, "open_transport", transport)
    yield library
    library.close()


def opened(folder: Path, host: str, **options: Any) -> LibraryDevices:
    """The library as a host's home has it."""
    fields = {"kind": "devices", "changer": f"test:{host}/0", "drives": [f"test:{host}/1", f"test:{host}/2"]}
    settings = Settings(libraries={"lib": DeviceLibrarySettings.model_validate(fields | options)})
    (folder / host / "libraries").mkdir(parents=True, exist_ok=True)
    opener = DeviceOpener(Home(folder / host), settings, faults=None, sleep=lambda seconds: None, trace=None)
    return opener("lib")


def test_a_drive_is_ours_while_it_is_used(library: VirtualLibrary, tmp_path: Path) -> None:
    """Another host does not get it before we let go; what it does not want, it may have at once."""
    ours, theirs = opened(tmp_path, "ours"), opened(tmp_path, "theirs")
    ours.open_drive("", 101)
    with pytest.raises(ReservationConflict):
        theirs.open_drive("", 101)
    theirs.open_drive("", 102)
    with pytest.raises(ReservationConflict):
        ours.open_drive("", 102)
    late = opened(tmp_path, "late")  # it can be opened although all of its drives are in use
    with pytest.raises(ReservationConflict):
        late.open_drive("", 101)
    ours.close()
    late.open_drive("", 101)
    theirs.close()
    late.close()


def test_what_a_killed_process_has_reserved(library: VirtualLibrary, tmp_path: Path) -> None:
    """It is the same home's, and so the next process's."""
    killed = opened(tmp_path, "ours")
    killed.open_drive("", 101)
    assert isinstance(killed, RealDevices)
    killed._lock.release()  # as the system does it
    again = opened(tmp_path, "ours")
    drive = again.open_drive("", 101)
    assert drive.reservations().keys == (drive.reservations().holder,)
    again.close()


def test_without_reservations(library: VirtualLibrary, tmp_path: Path) -> None:
    devices = opened(tmp_path, "ours", reserve=False)
    assert devices.open_drive("", 101).reservations().holder is None
    devices.close()


def test_what_a_drive_is_told(library: VirtualLibrary, tmp_path: Path) -> None:
    """Compression and the early warning, once a cartridge is loaded."""
    for compression in (False, True):
        devices = opened(tmp_path, "ours", compression=compression, early_warning="3MB")
        drive = devices.open_drive("", 101)
        assert isinstance(drive, ScsiTapeDrive)
        devices.changer.move(SlotAddress(1001), DriveAddress(101))
        drive.load()
        page = pages.decode_mode(drive.query(cdb.mode_sense(modes.COMPRESSION), 255)).page
        assert modes.decode_compression(page) is compression
        page = pages.decode_mode(drive.query(cdb.mode_sense(*modes.EXTENSION), 255)).page
        assert modes.decode_early_warning(page) == 3
        drive.unload()
        devices.changer.move(DriveAddress(101), SlotAddress(1001))
        devices.close()


def test_a_part_of_a_library(library: VirtualLibrary, tmp_path: Path) -> None:
    """What others use is not seen."""
    devices = opened(tmp_path, "ours", elements=["101-102", "1001", "1003-1004"])
    inventory = devices.changer.inventory()
    assert [element.place.element for element in inventory] == [101, 102, 1001, 1003, 1004]
    devices.close()


@pytest.mark.parametrize("text", ["", "x", "5-3", "1000-70000", "-3", "3-x"])
def test_elements_that_are_none(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_elements(text)


def test_a_busy_robot_is_waited_for(tmp_path: Path) -> None:
    """With the clock that was given, also while it is opened."""
    home, slept = Home(tmp_path / "home"), list[float]()
    home.library_path(VirtualLibrarySettings(path="libraries/lib")).parent.mkdir(parents=True)
    VirtualLibrary.create(home.path / "libraries" / "lib", LibrarySpec("lib", cartridges=1))
    settings = Settings(libraries={"lib": VirtualLibrarySettings(path="libraries/lib")})
    busy = FaultPlan((Fault(FaultKind.BUSY, nth=1),))
    devices = DeviceOpener(home, settings, faults=busy, sleep=slept.append, trace=None)("lib")
    assert slept and devices.changer.inventory().slots[0].full
    devices.close()
