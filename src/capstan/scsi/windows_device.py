"""A Windows device that is open for control codes: `CreateFileW`, `DeviceIoControl`, `CloseHandle`, and what their
errors mean for a command that was on its way."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum

from capstan import win32
from capstan.errors import Delivery, TransportError

_GENERIC_READ_WRITE = 0xC000_0000
_OPEN_EXISTING = 3
_HANDLE, _DWORD, _POINTER = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p


class WindowsError(IntEnum):
    """Win32 errors that say something about a device (winerror.h)."""

    INVALID_FUNCTION = 1
    FILE_NOT_FOUND = 2
    PATH_NOT_FOUND = 3
    ACCESS_DENIED = 5
    INVALID_HANDLE = 6
    NOT_ENOUGH_MEMORY = 8
    GEN_FAILURE = 31
    SHARING_VIOLATION = 32
    NOT_SUPPORTED = 50
    DEV_NOT_EXIST = 55
    INVALID_PARAMETER = 87
    SEM_TIMEOUT = 121
    BUSY = 170
    NO_SUCH_DEVICE = 433
    OPERATION_ABORTED = 995
    IO_DEVICE = 1117
    DEVICE_NOT_CONNECTED = 1167
    REVISION_MISMATCH = 1306
    NO_SYSTEM_RESOURCES = 1450
    WORKING_SET_QUOTA = 1453
    DEVICE_REMOVED = 1617


@dataclass(frozen=True, slots=True)
class Trouble:
    """What an error means: whether the command can have reached the device, and what to do; `reason` is empty where
    Windows says it well enough itself."""

    delivery: Delivery
    reason: str = ""
    hint: str | None = None


_RIGHTS = Trouble(
    Delivery.NOT_DELIVERED,
    "access is denied",
    "run Capstan as administrator, and stop the service that holds the device (another backup program)",
)
_HELD = Trouble(
    Delivery.NOT_DELIVERED,
    "another program holds it",
    "stop the service that holds the device (another backup program), then try again",
)
_ABSENT = Trouble(
    Delivery.NOT_DELIVERED,
    "there is no such device",
    "look whether the device manager shows it and whether its driver is installed; names change when devices are added",
)
_REFUSED = Trouble(Delivery.NOT_DELIVERED, "its driver refuses SCSI pass-through", "install the vendor's tape driver")
_MEMORY = Trouble(Delivery.NOT_DELIVERED, "Windows has no memory for the transfer", "choose smaller records, or wait")
_GONE = Trouble(
    Delivery.UNKNOWN,
    "the device is gone",
    "look at cable and power; when Windows has found it again, run the command again",
)
_TIMEOUT = Trouble(Delivery.UNKNOWN, "the command did not end in its time")
_ADAPTER = Trouble(Delivery.UNKNOWN, "adapter or device failed, or the bus was reset")

_ON_OPEN = {
    WindowsError.FILE_NOT_FOUND: _ABSENT,
    WindowsError.PATH_NOT_FOUND: _ABSENT,
    WindowsError.NO_SUCH_DEVICE: _ABSENT,
    WindowsError.DEV_NOT_EXIST: _ABSENT,
    WindowsError.ACCESS_DENIED: _RIGHTS,
    WindowsError.SHARING_VIOLATION: _HELD,
    WindowsError.BUSY: _HELD,
}
_ON_COMMAND = {
    WindowsError.INVALID_FUNCTION: _REFUSED,
    WindowsError.NOT_SUPPORTED: _REFUSED,
    WindowsError.REVISION_MISMATCH: _REFUSED,
    WindowsError.ACCESS_DENIED: _RIGHTS,
    WindowsError.INVALID_HANDLE: Trouble(Delivery.NOT_DELIVERED, "it is closed"),
    WindowsError.INVALID_PARAMETER: Trouble(
        Delivery.NOT_DELIVERED, "the adapter cannot carry this command", "choose smaller records"
    ),
    WindowsError.NOT_ENOUGH_MEMORY: _MEMORY,
    WindowsError.NO_SYSTEM_RESOURCES: _MEMORY,
    WindowsError.WORKING_SET_QUOTA: _MEMORY,
    WindowsError.SEM_TIMEOUT: _TIMEOUT,
    WindowsError.GEN_FAILURE: _ADAPTER,
    WindowsError.IO_DEVICE: _ADAPTER,
    WindowsError.OPERATION_ABORTED: _ADAPTER,
    WindowsError.DEV_NOT_EXIST: _GONE,
    WindowsError.NO_SUCH_DEVICE: _GONE,
    WindowsError.DEVICE_NOT_CONNECTED: _GONE,
    WindowsError.DEVICE_REMOVED: _GONE,
}


def trouble_on_open(code: int) -> Trouble:
    """What an error of `CreateFileW` means: nothing was sent."""
    return _ON_OPEN.get(code, Trouble(Delivery.NOT_DELIVERED))  # type: ignore[call-overload, no-any-return]


def trouble_on_command(code: int) -> Trouble:
    """What an error of `DeviceIoControl` means. What is not known to come before the device may have reached it."""
    return _ON_COMMAND.get(code, Trouble(Delivery.UNKNOWN))  # type: ignore[call-overload, no-any-return]


class WindowsDevice:
    """One open device. Not thread-safe. `address` names it in errors."""

    def __init__(self, path: str, address: str, *, query_only: bool = False) -> None:
        r"""Open `path` (`\\.\Tape0`), for nobody else as long as it is open; `query_only`: for questions that need no
        rights, beside others. TransportError(NOT_DELIVERED) says what to do."""
        self.address = address
        create = win32.function(
            "kernel32", "CreateFileW", _HANDLE, ctypes.c_wchar_p, _DWORD, _DWORD, _POINTER, _DWORD, _DWORD, _HANDLE
        )
        access, share = (0, 3) if query_only else (_GENERIC_READ_WRITE, 0)
        handle = create(path, access, share, None, _OPEN_EXISTING, 0, None)
        if handle in (None, win32.INVALID_HANDLE):
            raise _error(address, trouble_on_open(win32.last_error()))
        self._handle: int | None = handle

    def control(self, code: int, given: ctypes.Array[ctypes.c_char] | ctypes.Structure, size: int) -> bytes:
        """Ask with a control code; the answer, of `size` bytes at most. TransportError."""
        answer = ctypes.create_string_buffer(size)
        size = self._control(code, given, answer)
        return answer.raw[:size]

    def exchange(self, code: int, block: ctypes.Structure) -> None:
        """Send `block` with a control code, and have it changed to the answer. TransportError."""
        self._control(code, block, block)

    def _control(
        self,
        code: int,
        given: ctypes.Array[ctypes.c_char] | ctypes.Structure,
        into: ctypes.Array[ctypes.c_char] | ctypes.Structure,
    ) -> int:
        if self._handle is None:
            raise TransportError(delivery=Delivery.NOT_DELIVERED, address=self.address, reason="it is closed")
        control = win32.function(
            "kernel32",
            "DeviceIoControl",
            ctypes.c_int,
            *(_HANDLE, _DWORD, _POINTER, _DWORD, _POINTER, _DWORD, _POINTER, _POINTER),
        )
        moved = ctypes.c_uint32()
        size = ctypes.sizeof
        if not control(
            *(self._handle, code, ctypes.byref(given), size(given), ctypes.byref(into), size(into)),
            ctypes.byref(moved),
            None,
        ):
            raise _error(self.address, trouble_on_command(win32.last_error()))
        return moved.value

    def close(self) -> None:
        """Twice is harmless. After it, every question raises TransportError(NOT_DELIVERED)."""
        if self._handle is not None:
            win32.function("kernel32", "CloseHandle", ctypes.c_int, _HANDLE)(self._handle)
            self._handle = None


def _error(address: str, trouble: Trouble) -> TransportError:
    said = win32.error_text(win32.last_error())
    return TransportError(
        delivery=trouble.delivery,
        address=address,
        reason=f"{trouble.reason}: {said}" if trouble.reason else said,
        **({"hint": trouble.hint} if trouble.hint else {}),
    )
