"""What can be known of Windows' pass-through without Windows: layouts, limits, and what its errors mean."""

from __future__ import annotations

import ctypes
import struct

import pytest

from capstan.errors import Delivery
from capstan.scsi.transport import TransportLimits
from capstan.scsi.windows_device import WindowsError, trouble_on_command, trouble_on_open
from capstan.scsi.windows_discovery import InterfaceData
from capstan.scsi.windows_spti import PassThrough, PassThroughWithSense, decode_limits


def test_the_layout_is_that_of_ntddscsi() -> None:
    """Sizes and offsets as 64-bit Windows has them, on every system."""
    offsets = {name: getattr(PassThrough, name).offset for name, _ in PassThrough._fields_}
    assert offsets == {
        "length": 0,
        "scsi_status": 2,
        "path": 3,
        "target": 4,
        "lun": 5,
        "cdb_length": 6,
        "sense_length": 7,
        "data_in": 8,
        "data_length": 12,
        "timeout": 16,
        "data": 24,
        "sense_offset": 32,
        "cdb": 36,
    }
    assert ctypes.sizeof(PassThrough) == 56
    assert PassThroughWithSense.sense.offset == 60
    assert ctypes.sizeof(InterfaceData) == 32


@pytest.mark.parametrize(
    ("length", "pages", "mask", "expected"),
    [
        (1 << 20, 257, 3, TransportLimits(1 << 20, 16, 4)),
        (1 << 20, 129, 0, TransportLimits(512 << 10, 16, 1)),
        (0xFFFFFFFF, 0xFFFFFFFF, 511, TransportLimits(8 << 20, 16, 512)),
        (0, 0, 0, TransportLimits(64 << 10, 16, 1)),
    ],
)
def test_limits_of_an_adapter(length: int, pages: int, mask: int, expected: TransportLimits) -> None:
    """The least of its length and its pages but one, where a buffer may begin, and never without an end."""
    assert decode_limits(struct.pack("<5I", 32, 32, length, pages, mask).ljust(32, b"\0")) == expected


def test_an_adapter_that_says_nothing() -> None:
    """64 KiB go through every one."""
    assert decode_limits(b"").max_transfer == 64 << 10


def test_only_what_certainly_went_nowhere_was_not_delivered() -> None:
    """An error that nobody knows may have come behind the device; when a device is opened, nothing was sent."""
    for code in (*WindowsError, 9999):
        assert trouble_on_open(code).delivery is Delivery.NOT_DELIVERED
    unknown = {code for code in (*WindowsError, 9999) if trouble_on_command(code).delivery is Delivery.UNKNOWN}
    assert unknown == {
        *(WindowsError.GEN_FAILURE, WindowsError.DEV_NOT_EXIST, WindowsError.SEM_TIMEOUT, WindowsError.BUSY),
        *(WindowsError.NO_SUCH_DEVICE, WindowsError.OPERATION_ABORTED, WindowsError.IO_DEVICE),
        *(WindowsError.DEVICE_NOT_CONNECTED, WindowsError.DEVICE_REMOVED, WindowsError.FILE_NOT_FOUND),
        *(WindowsError.PATH_NOT_FOUND, WindowsError.SHARING_VIOLATION, 9999),
    }


@pytest.mark.parametrize("code", [WindowsError.ACCESS_DENIED, WindowsError.SHARING_VIOLATION, WindowsError.BUSY])
def test_a_device_that_cannot_be_had(code: int) -> None:
    """Who may help is said."""
    assert "stop the service" in (trouble_on_open(code).hint or "")
