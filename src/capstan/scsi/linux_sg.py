"""SCSI commands through Linux' generic driver: the ioctl SG_IO, version 3 of its interface, on `/dev/sgN`.

The kernel copies between our buffer and pages of its own (`<scsi/sg.h>`); nothing is copied here. A signal would end
the wait for the answer, and with it what is known of the tape's position, so none is let through meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import math
import mmap
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from capstan.errors import Delivery, TransportError
from capstan.scsi.buffers import pinned
from capstan.scsi.transport import Command, Completion, Direction, Status, TransportLimits

SCHEME = "sg"
SG_IO = 0x2285  # these five: <scsi/sg.h>, <linux/fs.h>
SG_SET_RESERVED_SIZE = 0x2275
SG_GET_VERSION_NUM = 0x2282
SG_GET_SG_TABLESIZE = 0x227F
BLKSECTGET = 0x1267  # on sg it answers in bytes
MAX_CDB = 16
SENSE_BYTES = 96
_LEAST_VERSION = 30000  # 3.0.0: the first with SG_IO
_LEAST_TRANSFER = 32 << 10  # what is reserved for each open device unless more is asked for
_MOST_TRANSFER = 8 << 20
_DIRECTIONS = {Direction.NONE: -1, Direction.OUT: -2, Direction.IN: -3}
_DRIVER_SENSE = 0x08  # in the low four bits of driver_status: sense data came
# What the adapter says instead of the device (host_status, <scsi/scsi.h>), where the command has not been delivered.
_UNDELIVERED = {0x01: "nothing answers there", 0x04: "it is no target any more", 0x0F: "the path is down"}
_LOST = {0x03: "it did not answer in time", 0x05: "the command was aborted", 0x08: "the bus was reset"}


class SgHeader(ctypes.Structure):
    """sg_io_hdr_t (<scsi/sg.h>)."""

    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("direction", ctypes.c_int),
        ("cdb_length", ctypes.c_ubyte),
        ("most_sense", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("data_length", ctypes.c_uint),
        ("data", ctypes.c_void_p),
        ("cdb", ctypes.c_void_p),
        ("sense", ctypes.c_void_p),
        ("timeout_ms", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("message_status", ctypes.c_ubyte),
        ("sense_written", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("residual", ctypes.c_int),
        ("duration_ms", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


class LinuxSgTransport:
    """A `ScsiTransport` to one `/dev/sgN`, which no other Capstan on this machine may open meanwhile."""

    def __init__(self, path: str) -> None:
        """Open the device. TransportError(NOT_DELIVERED), with what to do about it."""
        self.address = f"{SCHEME}:{path}"
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            version = ctypes.c_int()
            fcntl.ioctl(self._fd, SG_GET_VERSION_NUM, version)
        except OSError as error:
            self.close()
            raise self._failed(*_open_failure(path, error)) from None
        if version.value < _LEAST_VERSION:
            self.close()
            raise self._failed(f"its driver is too old ({version.value})")
        self.limits = TransportLimits(max_transfer=self._reserve(), max_cdb=MAX_CDB, alignment=1)

    def execute(self, command: Command) -> Completion:
        data, size = command.data, 0 if command.data is None else command.data.nbytes
        if self._fd < 0:
            raise self._failed("it is closed")
        if len(command.cdb) > MAX_CDB or size > self.limits.max_transfer or (size and _is_empty(command)):
            raise self._failed(f"it cannot carry {size} bytes with a command of {len(command.cdb)}")
        cdb = ctypes.create_string_buffer(command.cdb, len(command.cdb))
        sense = ctypes.create_string_buffer(SENSE_BYTES)
        header = SgHeader(
            interface_id=ord("S"),
            direction=_DIRECTIONS[command.direction if size else Direction.NONE],
            cdb_length=len(command.cdb),
            most_sense=SENSE_BYTES,
            data_length=size,
            cdb=ctypes.addressof(cdb),
            sense=ctypes.addressof(sense),
            timeout_ms=max(1, math.ceil(command.timeout * 1000)),
        )
        with ExitStack() as stack:
            if data is not None and size:
                header.data = stack.enter_context(pinned(data))
            stack.enter_context(_undisturbed())
            try:
                fcntl.ioctl(self._fd, SG_IO, header)
            except OSError as error:
                raise self._refused(error) from None
        return self._completion(header, sense.raw[: header.sense_written], size)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _reserve(self) -> int:
        """Bytes that one command may carry; as many are set aside, so that memory is not looked for each time."""
        most, pieces = ctypes.c_int(), ctypes.c_int()
        with suppress(OSError):
            fcntl.ioctl(self._fd, BLKSECTGET, most)
            fcntl.ioctl(self._fd, SG_GET_SG_TABLESIZE, pieces)  # pages that the adapter takes with one command
        limit = min(max(min(most.value, pieces.value * mmap.PAGESIZE), _LEAST_TRANSFER), _MOST_TRANSFER)
        with suppress(OSError):
            fcntl.ioctl(self._fd, SG_SET_RESERVED_SIZE, ctypes.c_int(limit))
        return limit

    def _completion(self, header: SgHeader, sense: bytes, size: int) -> Completion:
        host, driver = header.host_status, header.driver_status & 0x0F
        if host in _UNDELIVERED:
            raise self._failed(_UNDELIVERED[host], "look at cable and power of the device, then `capstan discover`")
        if host or driver not in (0, _DRIVER_SENSE):
            reason = _LOST.get(host, f"the adapter gave up (host status {host:02X}h, driver status {driver:02X}h)")
            raise TransportError(delivery=Delivery.UNKNOWN, address=self.address, reason=reason)
        try:
            status = Status(header.status)
        except ValueError:
            reason = f"it answered with the status {header.status:02X}h, which no tape device has"
            raise TransportError(delivery=Delivery.UNKNOWN, address=self.address, reason=reason) from None
        if sense and status is Status.GOOD:
            status = Status.CHECK_CONDITION  # some adapters give sense data alone
        return Completion(status, sense, min(max(header.residual, 0), size))

    def _refused(self, error: OSError) -> TransportError:
        """The kernel has not taken the command, or has lost it."""
        gone = error.errno in (errno.ENODEV, errno.ENXIO)
        if gone or error.errno in (errno.EINVAL, errno.ENOMEM, errno.EPERM, errno.EACCES, errno.EBUSY):
            reason = "the device is gone" if gone else f"the kernel did not take the command: {error.strerror}"
            return self._failed(reason, "plug it in again, then `capstan discover`" if gone else "")
        return TransportError(delivery=Delivery.UNKNOWN, address=self.address, reason=error.strerror)

    def _failed(self, reason: str, hint: str = "") -> TransportError:
        more = {"hint": hint} if hint else {}
        return TransportError(delivery=Delivery.NOT_DELIVERED, address=self.address, reason=reason, **more)


def open_sg(path: str) -> LinuxSgTransport:
    """The transport to `/dev/sgN`. TransportError."""
    return LinuxSgTransport(path)


def _is_empty(command: Command) -> bool:
    return command.direction is Direction.NONE


def _open_failure(path: str, error: OSError) -> tuple[str, str]:
    """Why a device cannot be opened, and what to do."""
    reason = error.strerror or str(error)
    match error.errno:
        case errno.ENOENT | errno.ENXIO | errno.ENODEV:
            return (
                "there is no such device",
                "`capstan discover` lists what there is; `modprobe sg` if there is nothing",
            )
        case errno.EACCES | errno.EPERM:
            hint = f"add this user to the group that owns {path} (tape), or a udev rule that gives it access"
            return "this user may not open it", hint
        case errno.EAGAIN | errno.EBUSY:
            return "another program uses it", "wait for it, or look for it with `fuser`"
        case errno.ENOTTY | errno.EINVAL:
            return "it is no SCSI generic device", "give /dev/sgN; `capstan discover` says which"
    return reason, ""


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without signals to this thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
