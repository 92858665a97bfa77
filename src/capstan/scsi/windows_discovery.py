"""Which tape drives and media changers Windows knows, by the interfaces that their drivers have registered."""

from __future__ import annotations

import ctypes
import uuid
from collections.abc import Iterator

from capstan import win32
from capstan.errors import TransportError
from capstan.scsi import cdb
from capstan.scsi.found_devices import FoundDevice
from capstan.scsi.pages import decode_inquiry, decode_serial
from capstan.scsi.transport import Command, Direction, Status
from capstan.scsi.windows_device import WindowsDevice
from capstan.scsi.windows_spti import SCHEME, SptiTransport

# GUID_DEVINTERFACE_TAPE and GUID_DEVINTERFACE_MEDIUMCHANGER (ntddstor.h), and what their devices are called.
_INTERFACES = (
    (uuid.UUID("53f5630b-b6bf-11d0-94f2-00a0c91efb8b"), "Tape"),
    (uuid.UUID("53f56310-b6bf-11d0-94f2-00a0c91efb8b"), "Changer"),
)
_GET_DEVICE_NUMBER = 0x2D1080  # IOCTL_STORAGE_GET_DEVICE_NUMBER (ntddstor.h)
_PRESENT_INTERFACES = 0x12  # DIGCF_PRESENT | DIGCF_DEVICEINTERFACE
_TIMEOUT = 60.0  # seconds; INQUIRY is answered in any state
_ATTEMPTS = 3
_HANDLE, _DWORD, _POINTER = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p


class InterfaceData(ctypes.Structure):
    """SP_DEVICE_INTERFACE_DATA (setupapi.h)."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("guid", ctypes.c_uint8 * 16),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_void_p),
    )


def find_devices() -> list[FoundDevice]:
    """All tape drives, then all changers, each by number. The names change when devices are added or removed: the
    serial number is what stays. Moves nothing; a device that another program holds is listed with its trouble."""
    found = []
    for guid, name in _INTERFACES:
        numbers = {number for number in map(_number, _paths(guid)) if number is not None}
        found += [_ask(rf"\\.\{name}{number}") for number in sorted(numbers)]
    return found


def _paths(guid: uuid.UUID) -> Iterator[str]:
    """The paths of all devices that are present and have this interface."""
    raw = (ctypes.c_uint8 * 16)(*guid.bytes_le)
    begin = win32.function("setupapi", "SetupDiGetClassDevsW", _HANDLE, _POINTER, ctypes.c_wchar_p, _HANDLE, _DWORD)
    enumerate_ = win32.function(
        "setupapi", "SetupDiEnumDeviceInterfaces", ctypes.c_int, _HANDLE, _POINTER, _POINTER, _DWORD, _POINTER
    )
    end = win32.function("setupapi", "SetupDiDestroyDeviceInfoList", ctypes.c_int, _HANDLE)
    found = begin(ctypes.byref(raw), None, None, _PRESENT_INTERFACES)
    if found in (None, win32.INVALID_HANDLE):
        return
    try:
        data = InterfaceData(size=ctypes.sizeof(InterfaceData))
        index = 0
        while enumerate_(found, None, ctypes.byref(raw), index, ctypes.byref(data)):
            yield _path(found, data)
            index += 1
    finally:
        end(found)


def _path(devices: int, data: InterfaceData) -> str:
    detail = win32.function(
        "setupapi",
        "SetupDiGetDeviceInterfaceDetailW",
        ctypes.c_int,
        *(_HANDLE, _POINTER, _POINTER, _DWORD, _POINTER, _POINTER),
    )
    size = ctypes.c_uint32()
    detail(devices, ctypes.byref(data), None, 0, ctypes.byref(size), None)
    buffer = ctypes.create_string_buffer(max(8, size.value))
    # The size that the structure has without its text: 8 where pointers have 8 bytes (setupapi.h).
    ctypes.c_uint32.from_buffer(buffer).value = 8 if ctypes.sizeof(ctypes.c_void_p) == 8 else 6
    if not detail(devices, ctypes.byref(data), buffer, len(buffer), None, None):
        return ""
    return buffer.raw[4:].decode("utf-16-le").partition("\0")[0]


def _number(path: str) -> int | None:
    """The number by which Windows names the device at an interface's path; None where it does not say."""
    try:
        device = WindowsDevice(path, path, query_only=True)
    except TransportError:
        return None
    try:
        answer = device.control(_GET_DEVICE_NUMBER, ctypes.create_string_buffer(1), 12)
    except TransportError:
        return None
    finally:
        device.close()
    return int.from_bytes(answer[4:8], "little") if len(answer) >= 8 else None


def _ask(path: str) -> FoundDevice:
    try:
        transport = SptiTransport(path)
    except TransportError as error:
        return FoundDevice(f"{SCHEME}:{path}", trouble=f"{error}: {error.hint_text}")
    try:
        inquiry = decode_inquiry(_data(transport, cdb.inquiry(96), 96))
        serial = decode_serial(_data(transport, cdb.inquiry(252, page=0x80), 252))
    except TransportError as error:
        return FoundDevice(transport.address, trouble=f"{error}: {error.hint_text}")
    finally:
        transport.close()
    return FoundDevice(transport.address, inquiry, serial)


def _data(transport: SptiTransport, command: bytes, size: int) -> bytes:
    """The answer; b"" for a page that the device does not have."""
    for _ in range(_ATTEMPTS):
        data = memoryview(bytearray(size))
        done = transport.execute(Command(command, Direction.IN, data, _TIMEOUT))
        if done.status is Status.GOOD:
            return bytes(data[: size - done.residual])
    return b""
