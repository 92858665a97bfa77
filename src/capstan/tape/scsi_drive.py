"""A tape drive over any SCSI transport (SSC-5)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

from capstan.errors import (
    BlankMedium,
    BlockTooLarge,
    DeviceError,
    DriveKeyNeeded,
    EndOfMedium,
    HardwareError,
    IllegalRequest,
    IncompatibleMedium,
    MediumError,
    NoCartridgeLoaded,
    NotReady,
    PositionLost,
    ReservationConflict,
    TransportError,
    WriteProtected,
)
from capstan.scsi import cdb, pages
from capstan.scsi.sense import Key, Sense, decode_sense
from capstan.scsi.transport import Command, Completion, Direction, ScsiTransport, Status
from capstan.tape import timeouts
from capstan.tape.discovery import discover, identify
from capstan.tape.drive import BlockEncryption, BlockRead, DriveStatus, MediumCapacity, Position, Read, Room, SpaceUnit
from capstan.tape.scsi_encryption import find_encryption

_MEDIUM_ABSENT = (0x3A, 0x00)
_ENCRYPTED = 0x74  # ASC of all that may be wrong with an encrypted record (SPC-5, annex F)
_BECOMING_READY = (0x04, 0x01)
_POLL_SECONDS = 1.0
_BUSY_TRIES = 60
_ATTENTIONS = 8  # as many in a row as a device may have queued; more is a device that is not well
_MEBIBYTE = 1 << 20

_ERRORS: dict[Key, type[DeviceError]] = {
    Key.MEDIUM_ERROR: MediumError,
    Key.HARDWARE_ERROR: HardwareError,
    Key.ILLEGAL_REQUEST: IllegalRequest,
    Key.DATA_PROTECT: WriteProtected,
    Key.BLANK_CHECK: BlankMedium,
    Key.VOLUME_OVERFLOW: EndOfMedium,
    Key.NOT_READY: NotReady,
}


class ScsiTapeDrive:
    """Implements `tape.drive.TapeDrive`. Asks the drive what it can when it is made; raises as the port says.

    `sleep` waits between two looks at a drive that is busy or loading. The logical block number is counted along, only
    so that an error can name the place; whoever needs the position asks the drive.
    """

    def __init__(self, transport: ScsiTransport, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.address = transport.address
        self._transport = transport
        self._sleep = sleep
        self._lost = ""  # why the position is unknown
        self._block = 0
        self._stopped_at_end = False  # the last SPACE ended there, not at a filemark
        self.identity = identify(self._query)
        self.capabilities = discover(self._query, transport.limits)
        self.encryption: BlockEncryption | None = find_encryption(self._query, self._send_out)

    # ── status and cartridge ──────────────────────────────────────────────────────────────────────────

    def status(self) -> DriveStatus:
        for _ in range(_ATTENTIONS):
            completion = self._send(cdb.test_unit_ready(), timeouts.QUERY)
            if completion.status is Status.GOOD:
                return self._loaded_status()
            sense = decode_sense(completion.sense)
            if sense.key is Key.UNIT_ATTENTION:
                self._lose(str(sense))
                continue
            loaded = sense.asc != _MEDIUM_ABSENT[0]
            return DriveStatus(ready=False, loaded=loaded and sense.key is Key.NOT_READY, detail=str(sense))
        self._fail("TEST UNIT READY", completion)

    def _loaded_status(self) -> DriveStatus:
        mode = pages.decode_mode(self._query(cdb.mode_sense(0x00, length=64), 64))
        medium = pages.decode_mode(self._query(cdb.mode_sense(0x1D, length=64), 64, optional=True))
        worm = len(medium.page) > 2 and bool(medium.page[2] & 0x01)
        return DriveStatus(
            ready=True, loaded=True, write_protected=mode.write_protected, worm=worm, density=mode.density
        )

    def load(self) -> None:
        completion = self._send(cdb.load_unload(load=True), timeouts.LOAD)
        if completion.status is not Status.GOOD:
            sense = decode_sense(completion.sense)
            if sense.key is Key.UNIT_ATTENTION:
                completion = self._send(cdb.load_unload(load=True), timeouts.LOAD)
                sense = decode_sense(completion.sense)
            if completion.status is not Status.GOOD and sense.code != _BECOMING_READY:
                self._fail("LOAD", completion)
        while not (status := self.status()).ready:
            if not status.loaded:
                raise NoCartridgeLoaded(device=self.address)
            if "becoming ready" not in status.detail:
                raise IncompatibleMedium(device=self.address, sense=status.detail)
            self._sleep(_POLL_SECONDS)
        self._prepare()
        self.rewind()

    def unload(self) -> None:
        self._lose("the cartridge was unloaded")
        for _ in range(_ATTENTIONS):
            completion = self._send(cdb.load_unload(load=False), timeouts.UNLOAD)
            if completion.status is Status.GOOD:
                return
            sense = decode_sense(completion.sense)
            if sense.code == _MEDIUM_ABSENT:
                return
            if sense.key is not Key.UNIT_ATTENTION:
                break
        self._fail("UNLOAD", completion)

    def _prepare(self) -> None:
        """Variable block mode, buffered (SSC-5, 8.3.2): not kept by the drive when a cartridge leaves it."""
        parameters = bytes((0, 0, 0x10, 8)) + bytes(8)
        self._send_out("MODE SELECT", cdb.mode_select(len(parameters)), memoryview(bytearray(parameters)))

    # ── positions ─────────────────────────────────────────────────────────────────────────────────────

    def position(self) -> Position:
        long = self.capabilities.long_position
        try:
            size = 32 if long else 20
            # Not said again behind a unit attention: a reset has moved the tape, and whoever asks means where it was.
            data = self._command("READ POSITION", cdb.read_position(long=long), timeouts.QUERY, size=size, tries=1)
        except IllegalRequest:
            if not long:
                raise
            self.capabilities = replace(self.capabilities, long_position=False)
            return self.position()
        found = pages.decode_position_long(data) if long else pages.decode_position_short(data)
        if found.unknown:
            self._lose("the drive does not know it")
            raise PositionLost(device=self.address, reason=self._lost)
        self._found(found.block)
        return Position(found.block, found.file, found.partition, found.at_beginning, found.at_end)

    def rewind(self) -> None:
        self._command("REWIND", cdb.rewind(), timeouts.MOTION)
        self._found(0)

    def locate(self, block: int) -> None:
        if not self.capabilities.locate:
            self._space_to(block)
            return
        try:
            self._command("LOCATE", cdb.locate(block), timeouts.MOTION)
        except IllegalRequest:
            self.capabilities = replace(self.capabilities, locate=False)
            self._space_to(block)
        except BlankMedium:
            self.seek_end_of_data()
            raise
        self._found(block)

    def _space_to(self, block: int) -> None:
        """LOCATE for drives without it: from the beginning, over records and filemarks, counting both."""
        self.rewind()
        left = block
        while left:
            passed = self.space(left, SpaceUnit.BLOCKS)
            left -= passed
            if not left:
                break
            # Stopped at a filemark, which it has passed and which counts, or at the end of data.
            if self._stopped_at_end:
                raise BlankMedium(device=self.address, command="LOCATE", sense="end of data")
            left -= 1
        self._found(block)

    def space(self, count: int, over: SpaceUnit) -> int:
        self._check_position()
        code = cdb.SpaceCode.BLOCKS if over is SpaceUnit.BLOCKS else cdb.SpaceCode.FILEMARKS
        completion = self._send(cdb.space(count, code), timeouts.MOTION)
        self._stopped_at_end = False
        if completion.status is Status.GOOD:
            self._block = -1
            return abs(count)
        sense = decode_sense(completion.sense)
        self._stopped_at_end = sense.key is Key.BLANK_CHECK
        stopped = sense.key is Key.NO_SENSE and (sense.filemark or sense.end_of_medium)
        if not (stopped or self._stopped_at_end):
            self._fail("SPACE", completion)
        self._block = -1
        return abs(count) - abs(sense.information or 0)

    def seek_end_of_data(self) -> Position:
        self._command("SPACE to end of data", cdb.space(0, cdb.SpaceCode.END_OF_DATA), timeouts.MOTION)
        return self.position()

    # ── data ──────────────────────────────────────────────────────────────────────────────────────────

    def read_block(self, into: memoryview) -> BlockRead:
        self._check_position()
        # SILI stays off: with it, a record longer than the buffer would look like one that fits (SSC-5, 6.4).
        completion = self._send(cdb.read(len(into)), timeouts.TRANSFER, into, Direction.IN)
        if completion.status is Status.GOOD:
            self._advance()
            return BlockRead(Read.DATA, len(into) - completion.residual)
        if completion.status is Status.CHECK_CONDITION:
            sense = decode_sense(completion.sense)
            if sense.filemark:
                self._advance()
                return BlockRead(Read.FILEMARK)
            if sense.key is Key.BLANK_CHECK or (sense.key is Key.NO_SENSE and sense.code == (0x00, 0x05)):
                return BlockRead(Read.END_OF_DATA)
            if sense.key in (Key.NO_SENSE, Key.RECOVERED_ERROR) and sense.incorrect_length:
                self._advance()
                missing = sense.information or 0
                if missing < 0:
                    raise BlockTooLarge(device=self.address, length=len(into) - missing, limit=len(into))
                return BlockRead(Read.DATA, len(into) - missing)
            if sense.key is Key.RECOVERED_ERROR or (sense.key is Key.NO_SENSE and sense.end_of_medium):
                self._advance()
                return BlockRead(Read.DATA, len(into) - completion.residual)
            if sense.key is Key.MEDIUM_ERROR:
                block, self._block = self._block, -1
                raise MediumError(device=self.address, command="READ", block=_name(block), sense=str(sense))
        self._fail("READ", completion)

    def write_block(self, block: memoryview) -> Room:
        self._check_position()
        completion = self._send(cdb.write(len(block)), timeouts.TRANSFER, block, Direction.OUT)
        return self._written("WRITE", completion, 1)

    def write_filemarks(self, count: int = 1, *, immediate: bool = False) -> Room:
        self._check_position()
        limit = timeouts.QUERY if immediate else timeouts.FILEMARK
        completion = self._send(cdb.write_filemarks(count, immediate=immediate), limit)
        return self._written("WRITE FILEMARKS", completion, count)

    def flush(self) -> None:
        self.write_filemarks(0)

    def erase(self, *, quick: bool = True) -> None:
        self._check_position()
        self._command("ERASE", cdb.erase(long=not quick), timeouts.QUERY if quick else timeouts.ERASE)

    def _written(self, command: str, completion: Completion, objects: int) -> Room:
        if completion.status is Status.GOOD:
            self._advance(objects)
            return Room.AMPLE
        if completion.status is Status.CHECK_CONDITION:
            sense = decode_sense(completion.sense)
            if sense.key in (Key.NO_SENSE, Key.RECOVERED_ERROR) and not sense.deferred:
                self._advance(objects)
                return Room.EARLY_WARNING if sense.end_of_medium or sense.code == (0x00, 0x07) else Room.AMPLE
        self._fail(command, completion)

    # ── reports ───────────────────────────────────────────────────────────────────────────────────────

    def capacity(self) -> MediumCapacity:
        data = self._query(cdb.log_sense(0x31), 8192, optional=True)
        found = pages.decode_log(data)
        if 0x0001 not in found or 0x0003 not in found:
            return MediumCapacity()
        return MediumCapacity(
            total_bytes=int.from_bytes(found[0x0003], "big") * _MEBIBYTE,
            remaining_bytes=int.from_bytes(found[0x0001], "big") * _MEBIBYTE,
        )

    def alerts(self) -> tuple[int, ...]:
        return pages.decode_tape_alerts(self._query(cdb.log_sense(0x2E), 8192, optional=True))

    def close(self) -> None:
        self._transport.close()

    # ── commands and what may go wrong with them ──────────────────────────────────────────────────────

    def _query(self, command: bytes, size: int, *, optional: bool = False) -> bytes:
        """Ask without motion. Unit attentions are noted and the question repeated. `optional`: b"" for a drive that
        does not know the answer."""
        for _ in range(_ATTENTIONS):
            buffer = memoryview(bytearray(size))
            completion = self._send(command, timeouts.LOG, buffer, Direction.IN)
            if completion.status is Status.GOOD:
                return bytes(buffer[: size - completion.residual])
            sense = decode_sense(completion.sense)
            if sense.key is Key.UNIT_ATTENTION:
                self._lose(str(sense))
                continue
            if optional and sense.key in (Key.ILLEGAL_REQUEST, Key.NOT_READY):
                return b""
            break
        self._fail(f"command {command[0]:02X}h", completion)

    def _send_out(self, name: str, command: bytes, data: memoryview) -> None:
        completion = self._send(command, timeouts.QUERY, data, Direction.OUT)
        if completion.status is not Status.GOOD:
            self._fail(name, completion)

    def _command(self, name: str, command: bytes, timeout: float, *, size: int = 0, tries: int = _ATTENTIONS) -> bytes:
        buffer = memoryview(bytearray(size)) if size else None
        for _ in range(tries):
            completion = self._send(command, timeout, buffer, Direction.IN if size else Direction.NONE)
            if completion.status is Status.GOOD:
                return bytes(buffer[: size - completion.residual]) if buffer is not None else b""
            sense = decode_sense(completion.sense)
            if completion.status is Status.CHECK_CONDITION and sense.key is Key.UNIT_ATTENTION:
                # Not carried out (SAM-5, 5.14). These commands ask for no known position: say it again.
                self._lose(str(sense))
                continue
            break
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
            self._sleep(_POLL_SECONDS)
        return completion

    def _check_position(self) -> None:
        if self._lost:
            raise PositionLost(device=self.address, reason=self._lost)

    def _lose(self, reason: str) -> None:
        self._lost = reason
        self._block = -1

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
        block = _name(self._block)
        if sense.key in (Key.MEDIUM_ERROR, Key.HARDWARE_ERROR, Key.ABORTED_COMMAND) or sense.deferred:
            self._lose(str(sense))
        if sense.key is Key.DATA_PROTECT and sense.asc == _ENCRYPTED:
            key = (self.encryption.key_wanted() if self.encryption else None) or "of another program"
            return DriveKeyNeeded(device=self.address, block=block, key=key, sense=str(sense))
        if sense.key is Key.NOT_READY and sense.asc == _MEDIUM_ABSENT[0]:
            return NoCartridgeLoaded(device=self.address)
        if sense.asc == 0x30 and sense.code != (0x30, 0x0C):
            return IncompatibleMedium(device=self.address, command=command, sense=str(sense))
        return _ERRORS.get(sense.key, DeviceError)(device=self.address, command=command, sense=str(sense), block=block)


def _name(block: int) -> str:
    return str(block) if block >= 0 else "unknown"
