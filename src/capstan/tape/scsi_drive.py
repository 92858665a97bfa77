"""A tape drive over any SCSI transport (SSC-5)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from capstan.errors import (
    BlankMedium,
    BlockChanged,
    BlockTooLarge,
    DeviceError,
    IllegalRequest,
    IncompatibleMedium,
    MediumError,
    NoCartridgeLoaded,
    NotReady,
    PositionLost,
    ReservationConflict,
    TransportError,
)
from capstan.scsi import cdb, pages
from capstan.scsi.block_protection import BYTES
from capstan.scsi.sense import Key, Sense, decode_sense
from capstan.scsi.transport import Command, Completion, Direction, ScsiTransport, Status
from capstan.tape import timeouts
from capstan.tape.discovery import discover, identify
from capstan.tape.drive import BlockEncryption, BlockRead, DriveStatus, MediumCapacity, Position, Read, Room, SpaceUnit
from capstan.tape.scsi_encryption import find_encryption
from capstan.tape.scsi_errors import MEDIUM_ABSENT, block_name, device_error, loses_position, needs_key
from capstan.tape.scsi_protection import BlockProtection

_BECOMING_READY = (0x04, 0x01)
_POLL_SECONDS = 1.0
_BUSY_TRIES = 60
_ATTENTIONS = 8  # as many in a row as a device may have queued; more is a device that is not well
_MEBIBYTE = 1 << 20


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
        self._prepared = False  # the drive knows how it is to work
        self._stopped_at_end = False  # the last SPACE ended there, not at a filemark
        self._protection = BlockProtection(self._send_out)
        self.identity = identify(self._query)
        self.capabilities = discover(self._query, transport.limits)
        limit = self.capabilities.max_block
        if self._protection.is_offered(self._query, limit):
            self.capabilities = replace(self.capabilities, max_block=limit - BYTES, block_protection=True)
        self.encryption: BlockEncryption | None = find_encryption(self._query, self._send_out)

    # ── status and cartridge ──────────────────────────────────────────────────────────────────────────

    def status(self) -> DriveStatus:
        for _ in range(_ATTENTIONS):
            completion = self._send(cdb.test_unit_ready(), timeouts.QUERY)
            if completion.status is Status.GOOD:
                return self._loaded_status()
            sense = decode_sense(completion.sense)
            if sense.key is Key.UNIT_ATTENTION:
                self._attention(sense)
                continue
            loaded = sense.key is Key.NOT_READY and sense.asc != MEDIUM_ABSENT[0]
            return DriveStatus(ready=False, loaded=loaded, detail=str(sense))
        self._fail("TEST UNIT READY", completion)

    def _loaded_status(self) -> DriveStatus:
        mode = pages.decode_mode(self._query(cdb.mode_sense(0x00, length=64), 64))
        medium = pages.decode_mode(self._query(cdb.mode_sense(0x1D, length=64), 64, optional=True))
        worm = len(medium.page) > 2 and bool(medium.page[2] & 0x01)
        return DriveStatus(True, True, write_protected=mode.write_protected, worm=worm, density=mode.density)

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
        self._unprotect()
        self._lose("the cartridge was unloaded")
        for _ in range(_ATTENTIONS):
            completion = self._send(cdb.load_unload(load=False), timeouts.UNLOAD)
            if completion.status is Status.GOOD:
                return
            sense = decode_sense(completion.sense)
            if sense.code == MEDIUM_ABSENT:
                return
            if sense.key is not Key.UNIT_ATTENTION:
                break
        self._fail("UNLOAD", completion)

    def _unprotect(self) -> None:
        """Programs that do not know of it must not read what stands behind records."""
        if self._protection.on:
            with suppress(DeviceError, TransportError):
                self._protection.turn(on=False)
        self._prepared = False

    def _prepare(self) -> None:
        """Variable block mode, buffered (SSC-5, 8.3.2): not kept by the drive when a cartridge leaves it."""
        parameters = memoryview(bytearray((0, 0, 0x10, 8)) + bytes(8))
        self._send_out("MODE SELECT", cdb.mode_select(len(parameters)), parameters)
        self._protection.turn(on=True)
        self._prepared = True

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
        guarded = self._protection.on
        buffer = self._protection.room(len(into)) if guarded else into
        # SILI stays off: with it, a record longer than the buffer would look like one that fits (SSC-5, 6.4).
        completion = self._send(cdb.read(len(buffer)), timeouts.TRANSFER, buffer, Direction.IN)
        length = len(buffer) - completion.residual
        if completion.status is not Status.GOOD:
            met = self._met(completion, len(buffer))
            if isinstance(met, Read):
                return BlockRead(met)
            length = met
        self._advance()
        if guarded:
            plain = self._protection.received(length, into)
            if plain is None:
                raise self._changed("READ", self._block - 1)
            length = plain
        return BlockRead(Read.DATA, length)

    def _met(self, completion: Completion, asked: int) -> int | Read:
        """What READ met that did not end with GOOD: the length of a record, or what stands there instead."""
        if completion.status is Status.CHECK_CONDITION:
            sense = decode_sense(completion.sense)
            if sense.filemark:
                self._advance()
                return Read.FILEMARK
            if sense.key is Key.BLANK_CHECK or (sense.key is Key.NO_SENSE and sense.code == (0x00, 0x05)):
                return Read.END_OF_DATA
            if sense.key in (Key.NO_SENSE, Key.RECOVERED_ERROR) and sense.incorrect_length:
                missing = sense.information or 0
                if missing < 0:
                    self._advance()
                    raise BlockTooLarge(device=self.address, length=asked - missing, limit=asked)
                return asked - missing
            if sense.key is Key.RECOVERED_ERROR or (sense.key is Key.NO_SENSE and sense.end_of_medium):
                return asked - completion.residual
            if sense.key is Key.MEDIUM_ERROR:
                block, self._block = self._block, -1
                raise MediumError(device=self.address, command="READ", block=block_name(block), sense=str(sense))
        self._fail("READ", completion)

    def _changed(self, command: str, block: int) -> BlockChanged:
        self._lose("a record was changed on its way")
        return BlockChanged(device=self.address, command=command, block=block_name(block))

    def write_block(self, block: memoryview) -> Room:
        self._check_position()
        data = self._protection.sent(block)
        completion = self._send(cdb.write(len(data)), timeouts.TRANSFER, data, Direction.OUT)
        return self._written("WRITE", completion, 1)

    def write_filemarks(self, count: int = 1, *, immediate: bool = False) -> Room:
        self._check_position()
        timeout = timeouts.QUERY if immediate else timeouts.FILEMARK
        completion = self._send(cdb.write_filemarks(count, immediate=immediate), timeout)
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
        self._unprotect()
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
                self._attention(sense)
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
                self._attention(sense)
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
        if not self._prepared:  # a reset has made the drive forget
            self._prepare()

    def _lose(self, reason: str) -> None:
        self._lost = reason
        self._block = -1

    def _attention(self, sense: Sense) -> None:
        """Something has happened to the drive: it may stand anywhere, and have forgotten how it was set."""
        self._lose(str(sense))
        self._prepared = self._protection.on = False

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
            self._attention(sense)
            raise PositionLost(device=self.address, reason=str(sense))
        block, key = block_name(self._block), ""
        if loses_position(sense):
            self._lose(str(sense))
        elif needs_key(sense) and self.encryption is not None:
            key = self.encryption.key_wanted() or ""
        raise device_error(sense, device=self.address, command=command, block=block, key=key)
