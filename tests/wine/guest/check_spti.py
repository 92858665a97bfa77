r"""SCSI pass-through of Windows: transport, drive and changer contracts through `\\.\Tape0` and `\\.\Changer0`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scsi_pipe import ServedDevice

from capstan.errors import Delivery, PositionLost, TransportError
from capstan.scsi import cdb
from capstan.scsi.cdb import Op
from capstan.scsi.transport import Command, Direction, ScsiTransport, Status, TransportLimits
from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.scsi.windows_spti import SptiTransport
from capstan.tape.changer import DriveAddress, MediaChanger, SlotAddress
from capstan.tape.drive import TapeDrive
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.testing.changer_contract import ChangerContract
from capstan.testing.drive_contract import DriveContract, read, write
from capstan.testing.encrypting_drive_contract import EncryptingDriveContract
from capstan.testing.transport_contract import TransportContract

SPEC = LibrarySpec("lib", slots=3, cartridges=2, cleaning_cartridges=0, capacity_bytes=16 << 20)


@pytest.fixture
def faults() -> FaultPlan | None:
    return None


@pytest.fixture
def library(tmp_path: Path, faults: FaultPlan | None) -> Iterator[VirtualLibrary]:
    VirtualLibrary.create(tmp_path / "lib", SPEC)
    library = VirtualLibrary.open(tmp_path / "lib", faults=faults)
    yield library
    library.close()


@pytest.fixture
def tape(library: VirtualLibrary) -> Iterator[ServedDevice]:
    served = ServedDevice("Tape0", library.drive_transport(0))
    yield served
    served.close()


@pytest.fixture
def transport(tape: ServedDevice) -> Iterator[ScsiTransport]:
    transport = SptiTransport(tape.path)
    yield transport
    transport.close()


@pytest.fixture
def drive(library: VirtualLibrary, transport: ScsiTransport) -> Iterator[TapeDrive]:
    ScsiMediaChanger(library.changer_transport()).move(SlotAddress(1001), DriveAddress(101))
    drive = ScsiTapeDrive(transport, sleep=lambda seconds: None)
    drive.load()
    yield drive
    drive.close()


@pytest.fixture
def medium(tmp_path: Path) -> Callable[[], bytes]:
    return (tmp_path / "lib" / "cartridges" / "CAP001L9.tap").read_bytes


class TestSptiTransport(TransportContract):
    pass


class TestSptiDrive(DriveContract, EncryptingDriveContract):
    pass


class TestSptiChanger(ChangerContract):
    @pytest.fixture
    def changer(self, library: VirtualLibrary) -> Iterator[MediaChanger]:
        served = ServedDevice("Changer0", library.changer_transport())
        changer = ScsiMediaChanger(SptiTransport(served.path))
        yield changer
        changer.close()
        served.close()


def test_limits_of_the_adapter(transport: ScsiTransport) -> None:
    """What one command carries is what the adapter says, and such a command arrives."""
    assert transport.limits == TransportLimits(max_transfer=1 << 20, max_cdb=16, alignment=4)


def test_data_that_does_not_lie_as_the_adapter_wants(library: VirtualLibrary, drive: TapeDrive) -> None:
    """Read-only memory and odd addresses go and come whole."""
    data = bytes(range(256)) * 100
    drive.write_block(memoryview(data)[3:])
    drive.rewind()
    room = memoryview(bytearray(len(data)))
    assert drive.read_block(room[1:]).length == len(data) - 3
    assert room[1 : 1 + len(data) - 3] == data[3:]


def test_times_are_told(tape: ServedDevice, transport: ScsiTransport) -> None:
    """In whole seconds, rounded up, and never as none."""
    for timeout in (0.2, 60.0, 8100.5):
        transport.execute(Command(cdb.test_unit_ready(), Direction.NONE, None, timeout))
    assert tape.timeouts == [1, 60, 8101]


@pytest.mark.parametrize(
    ("status", "delivery", "said", "hint"),
    [
        (0xC00000B5, Delivery.UNKNOWN, "did not end in its time", "position"),  # STATUS_IO_TIMEOUT
        (0xC0000185, Delivery.UNKNOWN, "adapter or device failed", "cable"),  # STATUS_IO_DEVICE_ERROR
        (0xC000009D, Delivery.UNKNOWN, "the device is gone", "cable and power"),  # STATUS_DEVICE_NOT_CONNECTED
        (0xC00000C0, Delivery.UNKNOWN, "the device is gone", "cable and power"),  # STATUS_DEVICE_DOES_NOT_EXIST
        (0xC0000022, Delivery.NOT_DELIVERED, "access is denied", "as administrator"),  # STATUS_ACCESS_DENIED
        (0xC000009A, Delivery.NOT_DELIVERED, "no memory", "smaller records"),  # STATUS_INSUFFICIENT_RESOURCES
        (0xC0000010, Delivery.NOT_DELIVERED, "refuses SCSI pass-through", "driver"),  # STATUS_INVALID_DEVICE_REQUEST
    ],
)
def test_what_windows_says_instead_of_an_answer(
    tape: ServedDevice, transport: ScsiTransport, status: int, delivery: Delivery, said: str, hint: str
) -> None:
    """An error of Windows says whether the command can have been carried out, and what to do; then all works again."""
    tape.failures.append(status)
    with pytest.raises(TransportError, match=said) as caught:
        transport.execute(Command(cdb.inquiry(36), Direction.IN, memoryview(bytearray(36)), 60.0))
    assert caught.value.delivery is delivery
    assert hint in caught.value.hint_text
    assert r"spti:\\.\Tape0" in str(caught.value)
    done = transport.execute(Command(cdb.inquiry(36), Direction.IN, memoryview(bytearray(36)), 60.0))
    assert done.status is Status.GOOD


def test_a_device_that_is_not_there() -> None:
    """It says so, and what to look at."""
    with pytest.raises(TransportError, match="no such device") as caught:
        SptiTransport(r"\\.\Tape9")
    assert caught.value.delivery is Delivery.NOT_DELIVERED
    assert "device manager" in caught.value.hint_text


def test_a_device_that_another_holds(transport: ScsiTransport) -> None:
    """What is asked beside it is not delivered. (Windows refuses the open already; Wine only what comes after.)"""
    other = SptiTransport(r"\\.\Tape0")
    with pytest.raises(TransportError) as caught:
        other.execute(Command(cdb.test_unit_ready(), Direction.NONE, None, 60.0))
    other.close()
    assert caught.value.delivery is Delivery.NOT_DELIVERED
    assert "stop the service" in caught.value.hint_text
    assert transport.execute(Command(cdb.inquiry(36), Direction.IN, memoryview(bytearray(36)), 60.0)).residual == 0


@pytest.mark.parametrize("faults", [FaultPlan((Fault(FaultKind.ANSWER_LOST, nth=3, opcodes=frozenset({Op.WRITE_6})),))])
def test_a_lost_answer(drive: TapeDrive) -> None:
    """The position is unknown until it is asked for; nothing is written twice."""
    data = write(drive, 10, 20)
    with pytest.raises(TransportError):
        write(drive, 30)
    with pytest.raises(PositionLost):
        write(drive, 30)
    assert drive.position().block == 3
    drive.locate(0)
    assert [read(drive), read(drive)] == data


def test_no_handle_is_left_behind(tape: ServedDevice) -> None:
    """Opened and closed many times, the process holds no more handles than before."""
    count = ctypes.c_uint32()

    def handles() -> int:
        ctypes.windll.kernel32.GetProcessHandleCount(ctypes.c_void_p(-1), ctypes.byref(count))  # type: ignore[attr-defined]
        return count.value

    SptiTransport(tape.path).close()
    before = handles()
    for _ in range(50):
        SptiTransport(tape.path).close()
    assert handles() <= before + 5
