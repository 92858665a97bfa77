r"""SCSI commands through Windows' own pass-through (IOCTL_SCSI_PASS_THROUGH_DIRECT), to `\\.\Tape0` or `\\.\Changer0`.

The driver of the adapter reads and writes our memory itself, so a buffer stays where it is until the call returns,
and begins where the adapter wants it. `DeviceIoControl` succeeds whenever an answer came, also CHECK CONDITION.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from capstan.errors import Delivery, TransportError
from capstan.scsi.transport import Command, Completion, Direction, Status, TransportLimits
from capstan.scsi.windows_device import WindowsDevice

SCHEME = "spti"
PASS_THROUGH_DIRECT = 0x4D014  # IOCTL_SCSI_PASS_THROUGH_DIRECT (ntddscsi.h)
QUERY_PROPERTY = 0x2D1400  # IOCTL_STORAGE_QUERY_PROPERTY (ntddstor.h)
MAX_CDB = 16
SENSE_BYTES = 64
_ADAPTER_PROPERTY = 1
_PAGE = 4096
_LEAST_TRANSFER = 64 << 10  # what every adapter carries
_MOST_TRANSFER = 8 << 20  # adapters without a limit say 4 GiB
_DIRECTIONS = {Direction.OUT: 0, Direction.IN: 1, Direction.NONE: 2}


class PassThrough(ctypes.Structure):
    """SCSI_PASS_THROUGH_DIRECT (ntddscsi.h)."""

    _fields_ = (
        ("length", ctypes.c_uint16),
        ("scsi_status", ctypes.c_uint8),
        ("path", ctypes.c_uint8),
        ("target", ctypes.c_uint8),
        ("lun", ctypes.c_uint8),
        ("cdb_length", ctypes.c_uint8),
        ("sense_length", ctypes.c_uint8),
        ("data_in", ctypes.c_uint8),
        ("data_length", ctypes.c_uint32),
        ("timeout", ctypes.c_uint32),
        ("data", ctypes.c_void_p),
        ("sense_offset", ctypes.c_uint32),
        ("cdb", ctypes.c_uint8 * MAX_CDB),
    )


class PassThroughWithSense(ctypes.Structure):
    """What goes in and comes back: the sense data lies behind the command, at a multiple of 4."""

    _fields_ = (
        ("command", PassThrough),
        ("filler", ctypes.c_uint32),
        ("sense", ctypes.c_uint8 * SENSE_BYTES),
    )


def decode_limits(descriptor: bytes) -> TransportLimits:
    """Limits from a STORAGE_ADAPTER_DESCRIPTOR; the least there are where it is too short or says nothing.

    A buffer may begin within a page, so one of the pages that the adapter takes does not count.
    """
    if len(descriptor) < 20:
        return TransportLimits(max_transfer=_LEAST_TRANSFER, max_cdb=MAX_CDB, alignment=1)
    length, pages, mask = struct.unpack_from("<3I", descriptor, 8)
    limits = [length or _LEAST_TRANSFER, _MOST_TRANSFER]
    if pages > 1:
        limits.append((pages - 1) * _PAGE)
    return TransportLimits(max_transfer=min(limits), max_cdb=MAX_CDB, alignment=mask + 1)


class SptiTransport:
    """A `ScsiTransport` to one Windows device; owned by one thread."""

    def __init__(self, path: str) -> None:
        r"""Open `path` (`\\.\Tape0`) and ask its adapter what it carries. TransportError(NOT_DELIVERED)."""
        self.address = f"{SCHEME}:{path}"
        self._device = WindowsDevice(path, self.address)
        self._bounce: mmap.mmap | None = None
        try:
            query = ctypes.create_string_buffer(struct.pack("<3I", _ADAPTER_PROPERTY, 0, 0), 12)
            self.limits = decode_limits(self._device.control(QUERY_PROPERTY, query, 64))
        except TransportError:
            self.limits = decode_limits(b"")

    def execute(self, command: Command) -> Completion:
        data, size = command.data, 0 if command.data is None else command.data.nbytes
        if (
            len(command.cdb) > MAX_CDB
            or size > self.limits.max_transfer
            or (size and command.direction is Direction.NONE)
        ):
            reason = f"it cannot carry {size} bytes with a command of {len(command.cdb)}"
            raise TransportError(delivery=Delivery.NOT_DELIVERED, address=self.address, reason=reason)
        block = PassThroughWithSense()
        block.command = PassThrough(
            length=ctypes.sizeof(PassThrough),
            cdb_length=len(command.cdb),
            sense_length=SENSE_BYTES,
            data_in=_DIRECTIONS[command.direction],
            data_length=size,
            timeout=max(1, math.ceil(command.timeout)),
            sense_offset=PassThroughWithSense.sense.offset,
            cdb=(ctypes.c_uint8 * MAX_CDB)(*command.cdb),
        )
        if data is None or not size:
            self._device.exchange(PASS_THROUGH_DIRECT, block)
        else:
            with self._placed(data, command.direction) as address:
                block.command.data = address
                self._device.exchange(PASS_THROUGH_DIRECT, block)
        return self._completion(block, size)

    def _completion(self, block: PassThroughWithSense, size: int) -> Completion:
        try:
            status = Status(block.command.scsi_status)
        except ValueError:
            reason = f"it answered with the status {block.command.scsi_status:02X}h, which no tape device has"
            raise TransportError(delivery=Delivery.UNKNOWN, address=self.address, reason=reason) from None
        sense = bytes(block.sense)[: block.command.sense_length] if status is Status.CHECK_CONDITION else b""
        return Completion(status, sense, max(0, size - block.command.data_length))

    @contextmanager
    def _placed(self, data: memoryview, direction: Direction) -> Iterator[int]:
        """The address of `data`, or of a copy of it where the adapter wants it to begin elsewhere."""
        if not data.readonly and data.contiguous:
            pinned = ctypes.c_char.from_buffer(data)
            if ctypes.addressof(pinned) % self.limits.alignment == 0:
                try:
                    yield ctypes.addressof(pinned)
                finally:
                    del pinned
                return
            del pinned
        if self._bounce is None or len(self._bounce) < data.nbytes:
            self._bounce = mmap.mmap(-1, -(-data.nbytes // _PAGE) * _PAGE)
        if direction is Direction.OUT:
            self._bounce[: data.nbytes] = data
        copy = ctypes.c_char.from_buffer(self._bounce)
        try:
            yield ctypes.addressof(copy)
        finally:
            del copy
        if direction is Direction.IN:
            data[:] = memoryview(self._bounce)[: data.nbytes]

    def close(self) -> None:
        self._device.close()
