"""How a tape drive's commands are sent, and what their answers mean."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NoReturn

from capstan.errors import (
    DeviceError,
    NotReady,
    PositionLost,
    ReservationConflict,
    TransportError,
)
from capstan.scsi.sense import Key, Sense, decode_sense
from capstan.scsi.transport import Command, Completion, Direction, ScsiTransport, Status
from capstan.tape import timeouts
from capstan.tape.sense_errors import error_of, meaning_of

ATTENTIONS = 8  # as many in a row as a device may have queued; more is a device that is not well
MEDIUM_ABSENT = (0x3A, 0x00)
POLL_SECONDS = 1.0
_BUSY_TRIES = 60
SECURITY = 0x74  # additional sense code of what encryption has to say (SPC-5, annex F)


class DriveCommands:
    """Sends commands to one drive and raises what their status means. Knows whether the position is known.

    `sleep` waits between two looks at a drive that is busy or loading. The logical block number is counted along, only
    so that an error can name the place; whoever needs the position asks the drive.
    """

    def __init__(self, transport: ScsiTransport, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.address = transport.address
        self._transport = transport
        self._sleep = sleep
        self._lost = ""  # why the position is unknown
        self._block = 0
        self.losses = 0  # how often the position was lost: whatever was set in the drive may be gone since the last

    def query(self, command: bytes, size: int, *, optional: bool = False) -> bytes:
        """Ask without motion. Unit attentions are noted and the question repeated. `optional`: b"" for a drive that
        does not know the answer."""
        for _ in range(ATTENTIONS):
            buffer = memoryview(bytearray(size))
            completion = self._send(command, timeouts.LOG, buffer, Direction.IN)
            if is_done(completion):
                return bytes(buffer[: size - completion.residual])
            sense = decode_sense(completion.sense)
            if sense.key is Key.UNIT_ATTENTION:
                self._lose(str(sense))
                continue
            if optional and sense.key in (Key.ILLEGAL_REQUEST, Key.NOT_READY):
                return b""
            break
        self._fail(f"command {command[0]:02X}h", completion)

    def knows(self, command: bytes, size: int) -> bool:
        """Whether the drive carries out a command that moves nothing, whatever it would say to it now."""
        for _ in range(ATTENTIONS):
            completion = self._send(command, timeouts.LOG, memoryview(bytearray(size)), Direction.IN)
            sense = decode_sense(completion.sense)
            if completion.status is Status.CHECK_CONDITION and sense.key is Key.UNIT_ATTENTION:
                self._lose(str(sense))
                continue
            return completion.status is Status.GOOD or sense.key is Key.NOT_READY
        return False

    def _command(self, name: str, command: bytes, timeout: float, *, size: int = 0, tries: int = ATTENTIONS) -> bytes:
        buffer = memoryview(bytearray(size)) if size else None
        for _ in range(tries):
            completion = self._send(command, timeout, buffer, Direction.IN if size else Direction.NONE)
            if is_done(completion):
                return bytes(buffer[: size - completion.residual]) if buffer is not None else b""
            sense = decode_sense(completion.sense)
            if completion.status is Status.CHECK_CONDITION and sense.key is Key.UNIT_ATTENTION:
                # Not carried out (SAM-5, 5.14). These commands ask for no known position: say it again.
                self._lose(str(sense))
                continue
            break
        self._fail(name, completion)

    def send_parameters(self, name: str, command: bytes, data: memoryview, *, optional: bool = False) -> bool:
        """Send parameters that concern no position: behind a unit attention, which is noted, they are sent again. True;
        with `optional`, False for a drive that does not take them."""
        for _ in range(ATTENTIONS):
            completion = self._send(command, timeouts.QUERY, data, Direction.OUT)
            if is_done(completion):
                return True
            sense = decode_sense(completion.sense)
            if completion.status is not Status.CHECK_CONDITION:
                break
            if sense.key is not Key.UNIT_ATTENTION:
                break
            self._lose(str(sense))
        if optional and completion.status is Status.CHECK_CONDITION and sense.key is Key.ILLEGAL_REQUEST:
            return False
        self._fail(name, completion)

    def _send(
        self,
        command: bytes,
        timeout: float,
        data: memoryview | None = None,
        direction: Direction = Direction.NONE,
    ) -> Completion:
        """Deliver; a drive that is BUSY has not begun, so the command may be sent again."""
        for _ in range(_BUSY_TRIES):
            try:
                completion = self._transport.execute(Command(command, direction, data, timeout))
            except TransportError as error:
                self._lose(str(error))
                raise
            if completion.status not in (Status.BUSY, Status.TASK_SET_FULL):
                return completion
            self._sleep(POLL_SECONDS)
        return completion

    def _check_position(self) -> None:
        if self._lost:
            raise PositionLost(device=self.address, reason=self._lost)

    def _lose(self, reason: str) -> None:
        self._lost = reason
        self._block = -1
        self.losses += 1

    def _found(self, block: int) -> None:
        self._lost = ""
        self._block = block

    def _advance(self, objects: int = 1) -> None:
        if self._block >= 0:
            self._block += objects

    def _fail(self, command: str, completion: Completion) -> NoReturn:
        """Raise what the status and sense mean."""
        if completion.status is Status.RESERVATION_CONFLICT:
            raise ReservationConflict(device=self.address, command=command)
        sense = decode_sense(completion.sense)
        if completion.status is not Status.CHECK_CONDITION:
            self._lose(f"{command} ended with {completion.status.name}")
            raise NotReady(device=self.address, command=command, sense=completion.status.name.lower())
        if sense.key is Key.UNIT_ATTENTION:
            self._lose(str(sense))
            raise PositionLost(device=self.address, reason=str(sense))
        raise self._device_error(command, sense)

    def _device_error(self, command: str, sense: Sense) -> DeviceError:
        block = block_name(self._block)
        if not meaning_of(sense).keeps_position:
            self._lose(str(sense))
        return error_of(sense, device=self.address, command=command, block=block)


def is_done(completion: Completion) -> bool:
    """Whether a command was carried out, with or without something to say about it (RECOVERED ERROR, NO SENSE)."""
    if completion.status is not Status.CHECK_CONDITION:
        return completion.status is Status.GOOD
    sense = decode_sense(completion.sense)
    return sense.key in (Key.NO_SENSE, Key.RECOVERED_ERROR) and not sense.deferred


def block_name(block: int) -> str:
    """A block number for an error's text; -1 is not known."""
    return str(block) if block >= 0 else "unknown"
