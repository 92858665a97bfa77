"""The devices of a library, opened as capstan.toml defines them: an embedded virtual library, or real ones."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from capstan.config.home import Home
from capstan.config.settings import DeviceLibrarySettings, Settings, VirtualLibrarySettings, parse_elements
from capstan.core.generations import generation_of_barcode
from capstan.core.ids import check_barcode
from capstan.core.suggest import not_found
from capstan.durable_files import write_durably
from capstan.errors import (
    Damaged,
    DeviceError,
    HomeDamaged,
    InvalidValue,
    NotCapstanTape,
    NotFound,
    StorageFailed,
    TransportError,
)
from capstan.format.label import read_label
from capstan.media.library import LibraryDevices
from capstan.process_lock import ProcessLock
from capstan.scsi.address import open_transport
from capstan.scsi.tracing import Trace, TracingTransport
from capstan.scsi.transport import ScsiTransport
from capstan.scsi.virtual.changer import FIRST_DRIVE
from capstan.scsi.virtual.faults import FaultPlan
from capstan.scsi.virtual.library import VirtualLibrary
from capstan.tape.changer import Inventory
from capstan.tape.discovery import identify
from capstan.tape.drive import DriveIdentity, DriveSettings, TapeDrive
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_commands import DriveCommands
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.tape.shelf_changer import ShelfChanger

Sleep = Callable[[float], None]
Traced = Callable[[ScsiTransport], ScsiTransport]


class VirtualDevices:
    """An open virtual library as the tape manager sees it."""

    def __init__(self, name: str, library: VirtualLibrary, sleep: Sleep, traced: Traced) -> None:
        self._library = library
        self._sleep = sleep
        self._traced = traced
        self.name = name  # as capstan.toml has it: the library's own may be an older one
        self.generation = library.generation.name
        self.changer = ScsiMediaChanger(traced(library.changer_transport()), sleep=sleep)

    def has_drive(self, element: int) -> bool:
        return True

    def open_drive(self, serial: str, element: int) -> TapeDrive:
        return ScsiTapeDrive(self._traced(self._library.drive_transport(element - FIRST_DRIVE)), sleep=self._sleep)

    def capacity_of(self, barcode: str) -> int:
        return self._library.capacity_of(barcode)

    def close(self) -> None:
        self._library.close()


class RealDevices:
    """A changer and its drives, each at an address. The drives are paired with the changer's by their serial numbers;
    where the changer says none, they are taken in the order in which they are defined."""

    def __init__(
        self,
        name: str,
        definition: DeviceLibrarySettings,
        lock: ProcessLock,
        sleep: Sleep,
        traced: Traced,
        reservation_key: int,
    ) -> None:
        """Open the changer, and ask the drives who they are, which they say whoever has them. TransportError;
        DeviceError; InvalidValue for a drive that is none of the changer's. Nothing is open, and no lock held, after an
        error. A drive is reserved, under `reservation_key`, when it is first used.
        """
        self.name = name
        self.generation = ""
        self._lock = lock
        self._definition = definition
        self._sleep = sleep
        self._reservation_key = reservation_key
        self._opened: dict[int, TapeDrive] = {}
        ours = [parse_elements(part) for part in definition.elements]
        lock.acquire()
        with ExitStack() as stack:
            stack.callback(lock.release)
            robot = stack.enter_context(closing(traced(open_transport(definition.changer))))
            self.changer = ScsiMediaChanger(robot, sleep=sleep, only=ours)
            drives = []
            for address in definition.drives:
                transport = stack.enter_context(closing(traced(open_transport(address))))
                drives.append(_Found(transport, identify(DriveCommands(transport, sleep=sleep).query)))
            self._drives = pair(self.changer.inventory(), drives)
            stack.pop_all()

    def has_drive(self, element: int) -> bool:
        return element in self._drives

    def open_drive(self, serial: str, element: int) -> TapeDrive:
        found = self._drives.get(element)
        if found is None:
            hint = f"give its address in capstan.toml, [libraries.{self.name}], drives"
            raise NotFound(what=f"address for the drive in element {element} of library", name=self.name, hint=hint)
        if element not in self._opened:
            self._opened[element] = _drive_of(found.transport, self._definition, self._sleep, self._reservation_key)
        return self._opened[element]

    def capacity_of(self, barcode: str) -> int:
        return _capacity_of(barcode)

    def close(self) -> None:
        for drive in self._opened.values():
            _let_go(drive)
        for found in self._drives.values():
            found.transport.close()
        self._lock.release()


@dataclass(frozen=True, slots=True)
class _Found:
    """A drive that has only said who it is."""

    transport: ScsiTransport
    identity: DriveIdentity

    @property
    def address(self) -> str:
        return self.transport.address


class AttendedDevices:
    """A single drive without a changer: people put the cartridges in. What is on their shelf is kept in a file."""

    def __init__(
        self,
        name: str,
        definition: DeviceLibrarySettings,
        lock: ProcessLock,
        sleep: Sleep,
        traced: Traced,
        reservation_key: int,
        shelf: Path,
    ) -> None:
        """Open the drive, and look at what is in it. Errors as of `RealDevices`; HomeDamaged."""
        self.name = name
        self.generation = ""
        self._lock = lock
        lock.acquire()
        with ExitStack() as stack:
            stack.callback(lock.release)
            transport = stack.enter_context(closing(traced(open_transport(definition.drives[0]))))
            self._drive = _drive_of(transport, definition, sleep, reservation_key)
            self.changer = ShelfChanger(
                self._drive,
                _read_shelf(shelf),
                identify=_barcode_on_label,
                save=lambda places: write_durably(shelf, json.dumps(places, indent=1).encode()),
            )
            stack.pop_all()

    def has_drive(self, element: int) -> bool:
        return True

    def open_drive(self, serial: str, element: int) -> TapeDrive:
        return self._drive

    def capacity_of(self, barcode: str) -> int:
        return _capacity_of(barcode)

    def close(self) -> None:
        _let_go(self._drive)
        self._lock.release()


def _drive_of(
    transport: ScsiTransport, definition: DeviceLibrarySettings, sleep: Sleep, reservation_key: int
) -> ScsiTapeDrive:
    """The drive, told what it is to do, and reserved where it can be. ReservationConflict when another host has it."""
    settings = DriveSettings(definition.compression, definition.early_warning)
    drive = ScsiTapeDrive(transport, sleep=sleep, settings=settings)
    if definition.reserve and drive.capabilities.reservations:
        drive.reserve(reservation_key)
    return drive


def _read_shelf(path: Path) -> dict[int, str]:
    try:
        return {int(number): check_barcode(name) for number, name in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageFailed(path=path, reason=error.strerror or str(error)) from None
    except (ValueError, AttributeError, TypeError, InvalidValue) as error:
        hint = 'write it again: numbers of places and barcodes, like {"1001": "CAP001L9"}'
        raise HomeDamaged(path=path, reason=str(error), hint=hint) from None


def _barcode_on_label(drive: TapeDrive) -> str:
    try:
        return read_label(drive, barcode="").barcode
    except (NotCapstanTape, Damaged):  # what may be done with it, is asked by whoever wants it
        return ""


def _capacity_of(barcode: str) -> int:
    """What LTO cartridges of that generation hold; 0 where the barcode does not say."""
    generation = generation_of_barcode(barcode)
    return generation.capacity_bytes if generation else 0


def _let_go(drive: TapeDrive) -> None:
    with suppress(DeviceError, TransportError):  # it may be gone, and its reservation with it
        drive.release()
    drive.close()


class Identified(Protocol):
    """What has an address and has said who it is."""

    @property
    def address(self) -> str: ...
    @property
    def identity(self) -> DriveIdentity: ...


D = TypeVar("D", bound=Identified)


def pair(inventory: Inventory, drives: Sequence[D]) -> dict[int, D]:
    """Drives by element addresses of the changer. InvalidValue when they cannot all be placed."""
    elements = list(inventory.drives)
    placed: dict[int, D] = {}
    left = []
    for drive in drives:
        serial = drive.identity.serial
        at = next((item for item in elements if serial and item.drive_serial.endswith(serial)), None)
        if at is None:
            left.append(drive)
        else:
            elements.remove(at)
            placed[at.place.element] = drive
    silent = [item for item in elements if not item.drive_serial]
    if len(left) > len(silent):
        reason = f"its serial number {left[-1].identity.serial} is that of no drive of the changer"
        raise InvalidValue(what="drive", value=left[-1].address, reason=reason)
    return placed | {item.place.element: drive for item, drive in zip(silent, left, strict=False)}


def definition_of(settings: Settings, name: str) -> VirtualLibrarySettings | DeviceLibrarySettings:
    """What capstan.toml says of a library. NotFound names those that are like it."""
    found = settings.libraries.get(name)
    if found is None:
        known = ", ".join(sorted(settings.libraries)) or "none yet: `capstan library create NAME --virtual`"
        raise not_found("library", name, settings.libraries, f"there are: {known}")
    return found


class DeviceOpener:
    """Opens the devices of libraries, by name. `faults` befall those that are virtual; `sleep` waits for a drive that
    is busy; with a `trace`, everything is traced."""

    def __init__(
        self, home: Home, settings: Settings, *, faults: FaultPlan | None, sleep: Sleep, trace: Trace | None
    ) -> None:
        self._home = home
        self._settings = settings
        self._faults = faults
        self._sleep = sleep
        self._trace = trace

    def __call__(self, name: str) -> LibraryDevices:
        """NotFound; InUse; what the devices say."""
        definition = definition_of(self._settings, name)
        if isinstance(definition, DeviceLibrarySettings):
            lock = ProcessLock(self._home.library_lock(name), f"library {name}")
            given = (name, definition, lock, self._sleep, self._traced, self._reservation_key())
            return (
                RealDevices(*given) if definition.changer else AttendedDevices(*given, self._home.library_shelf(name))
            )
        library = VirtualLibrary.open(self._home.library_path(definition), faults=self._faults)
        try:
            return VirtualDevices(name, library, self._sleep, self._traced)
        except BaseException:
            library.close()  # its robot does not answer: let others try
            raise

    def _reservation_key(self) -> int:
        """The same whenever this home asks on this machine: what a process leaves behind that is killed, is its own."""
        host = f"{socket.gethostname()}:{self._home.path.resolve()}"
        return int.from_bytes(hashlib.sha256(host.encode()).digest()[:8], "big") or 1

    def _traced(self, transport: ScsiTransport) -> ScsiTransport:
        return transport if self._trace is None else TracingTransport(transport, self._trace)
