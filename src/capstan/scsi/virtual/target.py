"""The transport to a virtual unit: commands in, answers out, faults in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from capstan.errors import Delivery, TransportError
from capstan.scsi.sense import Key, Sense, encode_sense
from capstan.scsi.transport import Command, Completion, Direction, Status, TransportLimits
from capstan.scsi.virtual.faults import FaultKind, FaultPlan

VIRTUAL_LIMITS = TransportLimits(max_transfer=8 << 20, max_cdb=16, alignment=1)


class CheckCondition(Exception):
    """A command ends with sense data. `moved`: bytes that were transferred all the same."""

    def __init__(self, sense: Sense, *, moved: int = 0) -> None:
        super().__init__(str(sense))
        self.sense = sense
        self.moved = moved


class Conflict(Exception):
    """A command ends with RESERVATION CONFLICT."""


def illegal(asc: int, ascq: int = 0) -> CheckCondition:
    """ILLEGAL REQUEST with this additional sense code."""
    return CheckCondition(Sense(Key.ILLEGAL_REQUEST, asc, ascq))


_DISK_FAILED = Sense(Key.HARDWARE_ERROR, 0x44, 0x00)  # INTERNAL TARGET FAILURE
INVALID_OPCODE = (0x20, 0x00)
INVALID_FIELD = (0x24, 0x00)


class DeviceServer(Protocol):
    """A logical unit that answers commands (SAM-5, 4.6.19)."""

    def attention(self, opcode: int) -> Sense | None:
        """Take the unit attention that is pending, if this command reports one."""
        ...

    def perform(self, cdb: bytes, data: memoryview | None) -> int:
        """Carry out one command; return how many bytes of `data` were moved. Raises CheckCondition."""
        ...

    def reset(self) -> None:
        """A bus reset: positions are lost; the unit attention is reported by the caller."""
        ...


@dataclass(slots=True)
class _Path:
    unit: str
    device: DeviceServer


class VirtualTransport:
    """A ScsiTransport to one unit of a virtual library in this process."""

    def __init__(
        self, address: str, unit: str, device: DeviceServer, faults: FaultPlan | None, on_close: Callable[[], None]
    ) -> None:
        self.address = address
        self.limits = VIRTUAL_LIMITS
        self._path: _Path | None = _Path(unit, device)
        self._faults = faults
        self._on_close = on_close

    def execute(self, command: Command) -> Completion:
        path = self._path
        if path is None:
            raise TransportError(delivery=Delivery.NOT_DELIVERED, address=self.address, reason="it is closed")
        size = 0 if command.data is None else len(command.data)
        if size > self.limits.max_transfer or (size and command.direction is Direction.NONE):
            raise TransportError(
                delivery=Delivery.NOT_DELIVERED, address=self.address, reason=f"it cannot carry {size} bytes"
            )
        opcode = command.cdb[0]
        planned = self._faults.next_fault(path.unit, opcode) if self._faults else None
        fault = planned and planned.kind
        if fault is FaultKind.NOT_DELIVERED:
            raise TransportError(delivery=Delivery.NOT_DELIVERED, address=self.address, reason="the path is down")
        if fault is FaultKind.BUSY:
            return Completion(Status.BUSY, residual=size)
        if fault is FaultKind.UNIT_ATTENTION:
            path.device.reset()
        if planned is not None and fault not in (FaultKind.ANSWER_LOST, FaultKind.EARLY_WARNING):
            return Completion(Status.CHECK_CONDITION, encode_sense(planned.answer), residual=size)
        completion = self._deliver(self.address, path.device, command, size)
        if fault is FaultKind.ANSWER_LOST:
            raise TransportError(delivery=Delivery.UNKNOWN, address=self.address, reason="the answer was lost")
        if planned is not None and fault is FaultKind.EARLY_WARNING and completion.status is Status.GOOD:
            return Completion(Status.CHECK_CONDITION, encode_sense(planned.answer), completion.residual)
        return completion

    def close(self) -> None:
        if self._path is not None:
            self._path = None
            self._on_close()

    @staticmethod
    def _deliver(address: str, device: DeviceServer, command: Command, size: int) -> Completion:
        attention = device.attention(command.cdb[0])
        if attention is not None:
            return Completion(Status.CHECK_CONDITION, encode_sense(attention), residual=size)
        try:
            moved = device.perform(command.cdb, command.data)
        except CheckCondition as check:
            return Completion(Status.CHECK_CONDITION, encode_sense(check.sense), residual=size - check.moved)
        except Conflict:
            return Completion(Status.RESERVATION_CONFLICT, residual=size)
        except OSError as error:
            if error.filename:
                # No sense data can say which file cannot be opened, and what the operating system has against it.
                reason, hint = f"{error.filename}: {error.strerror}", "mend the file or its permissions"
                raise TransportError(delivery=Delivery.UNKNOWN, address=address, reason=reason, hint=hint) from None
            # The disk that the unit lives on: the command failed, and nobody can say how far it came.
            return Completion(Status.CHECK_CONDITION, encode_sense(_DISK_FAILED), residual=size)
        return Completion(Status.GOOD, residual=size - moved)


def put(data: memoryview | None, answer: bytes, allocation: int) -> int:
    """Give `answer` to the initiator, cut to its allocation length; return the bytes moved."""
    length = min(len(answer), allocation, 0 if data is None else len(data))
    if data is not None:
        data[:length] = answer[:length]
    return length


def inquiry_answer(device_type: int, product: str, serial: str, cdb: bytes) -> bytes:
    """Standard INQUIRY data, or the VPD pages 00h, 80h and 83h (SPC-5, 6.7 and 7.7)."""
    if not cdb[1] & 1:
        if cdb[2]:
            raise illegal(*INVALID_FIELD)
        head = bytes((device_type, 0x80, 0x06, 0x02, 91, 0, 0, 0x02))
        return (head + b"CAPSTAN " + product.encode().ljust(16) + b"0001").ljust(96, b"\0")
    name = serial.encode()
    if cdb[2] == 0x00:
        body = bytes((0x00, 0x80, 0x83))
    elif cdb[2] == 0x80:
        body = name
    elif cdb[2] == 0x83:  # one T10 vendor identifier in ASCII (SPC-5, 7.7.6)
        identity = b"CAPSTAN " + product.encode().ljust(16) + name
        body = bytes((0x02, 0x01, 0, len(identity))) + identity
    else:
        raise illegal(*INVALID_FIELD)
    return bytes((device_type, cdb[2])) + len(body).to_bytes(2, "big") + body
