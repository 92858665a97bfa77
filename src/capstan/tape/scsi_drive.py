"""A tape drive over any SCSI transport (SSC-5)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from capstan.errors import (
    BlockChanged,
    BlockTooLarge,
    DeviceError,
    DriveKeyNeeded,
    IncompatibleMedium,
    MediumError,
    TransportError,
)
from capstan.scsi import cdb, pages
from capstan.scsi.protection import GUARD_BYTES
from capstan.scsi.sense import Key, Sense, decode_sense
from capstan.scsi.transport import Completion, Direction, ScsiTransport, Status
from capstan.tape import timeouts
from capstan.tape.counted_motion import step
from capstan.tape.discovery import discover, identify
from capstan.tape.drive import (
    BlockKey,
    BlockRead,
    DriveSettings,
    DriveStatus,
    Read,
    Reservations,
    Room,
    check_drive_key,
)
from capstan.tape.scsi_commands import ATTENTIONS, MEDIUM_ABSENT, POLL_SECONDS, SECURITY, block_name, is_done
from capstan.tape.scsi_encryption import ScsiDriveKey
from capstan.tape.scsi_motion import DriveMotion
from capstan.tape.scsi_protection import ScsiBlockProtection
from capstan.tape.scsi_reservation import ScsiReservation
from capstan.tape.scsi_settings import ScsiDriveSettings

_BECOMING_READY = ((0x04, 0x01), (0x04, 0x07))  # in process of becoming ready; operation in progress
_CLEANING_REQUESTED = (0x00, 0x17)
_IN_CLEAR = (0x74, 0x02)  # UNENCRYPTED DATA ENCOUNTERED WHILE DECRYPTING
_NOT_AUTHENTIC = (0x74, 0x04)  # CRYPTOGRAPHIC INTEGRITY VALIDATION FAILED
_PROGRAMMED = (0x00, 0x07)  # PROGRAMMABLE EARLY WARNING DETECTED


class ScsiTapeDrive(DriveMotion):
    """Implements `tape.drive.EncryptingDrive`. Asks the drive what it can when it is made; raises as the port says.

    `sleep` waits between two looks at a drive that is busy or loading. `settings`: what the drive is told.
    """

    def __init__(
        self,
        transport: ScsiTransport,
        *,
        sleep: Callable[[float], None] = time.sleep,
        settings: DriveSettings = DriveSettings(),  # noqa: B008 - it is frozen
    ) -> None:
        super().__init__(transport, sleep=sleep, step=lambda: step(self))
        self.identity = identify(self.query)
        self._key = ScsiDriveKey(self)
        self._reservation = ScsiReservation(self)
        self.capabilities = replace(
            discover(self.query, transport.limits, self.identity, encrypts=self._key.supported),
            attributes=self.knows(cdb.read_attribute(length=4), 4),
            reservations=self._reservation.supported(),
            access_order=self._most_segments() > 0,
        )
        self._settings = ScsiDriveSettings(self, settings)
        self._protection = ScsiBlockProtection(self, supported=self.capabilities.block_protection)
        self._prepared = -1  # the number of losses when the drive was told its modes: not yet

    # ── status and cartridge ──────────────────────────────────────────────────────────────────────────

    def status(self) -> DriveStatus:
        completion, sense = self._test_ready()
        if is_done(completion):
            return self._loaded_status(cleaning=sense.code == _CLEANING_REQUESTED)
        if completion.status is not Status.CHECK_CONDITION:
            self._fail("TEST UNIT READY", completion)
        loaded = sense.key is Key.NOT_READY and sense.asc != MEDIUM_ABSENT[0]
        return DriveStatus(ready=False, loaded=loaded, detail=str(sense))

    def _test_ready(self) -> tuple[Completion, Sense]:
        """TEST UNIT READY behind all unit attentions, which are noted."""
        for _ in range(ATTENTIONS):
            completion = self._send(cdb.test_unit_ready(), timeouts.QUERY)
            sense = decode_sense(completion.sense)
            if sense.key is not Key.UNIT_ATTENTION:
                break
            self._lose(str(sense))
        return completion, sense

    def _loaded_status(self, *, cleaning: bool) -> DriveStatus:
        mode = pages.decode_mode(self.query(cdb.mode_sense(0x00, length=64), 64))
        medium = pages.decode_mode(self.query(cdb.mode_sense(0x1D, length=64), 64, optional=True))
        return DriveStatus(
            ready=True,
            loaded=True,
            write_protected=mode.write_protected,
            worm=len(medium.page) > 2 and bool(medium.page[2] & 0x01),
            density=mode.density,
            cleaning_requested=cleaning,
        )

    def load(self) -> None:
        try:
            self._load()
        except IncompatibleMedium as error:
            takes = self.capabilities.reads
            if takes and "hint" not in error.parameters:
                error.parameters["hint"] = f"the drive reads {' and '.join(takes)}: use another drive or cartridge"
            raise
        self._prepare()
        self.rewind()
        if not self._asked_position:
            self._try_position()

    def _load(self) -> None:
        for _ in range(ATTENTIONS):
            completion = self._send(cdb.load_unload(load=True), timeouts.LOAD)
            sense = decode_sense(completion.sense)
            if completion.status is not Status.CHECK_CONDITION or sense.key is not Key.UNIT_ATTENTION:
                break
            self._lose(str(sense))
        if not is_done(completion) and sense.code not in _BECOMING_READY:
            self._fail("LOAD", completion)
        for _ in range(int(timeouts.LOAD / POLL_SECONDS)):
            completion, sense = self._test_ready()
            if is_done(completion):
                return
            if completion.status is not Status.CHECK_CONDITION or sense.code not in _BECOMING_READY:
                break
            self._sleep(POLL_SECONDS)
        self._fail("LOAD", completion)

    def unload(self) -> None:
        self._leave()
        self._lose("the cartridge was unloaded")
        for _ in range(ATTENTIONS):
            completion = self._send(cdb.load_unload(load=False), timeouts.UNLOAD)
            sense = decode_sense(completion.sense)
            if is_done(completion) or sense.asc == MEDIUM_ABSENT[0]:
                self._key.forgotten()
                return
            if sense.key is not Key.UNIT_ATTENTION:
                break
        self._fail("UNLOAD", completion)

    def _prepare(self) -> None:
        """Variable block mode, buffered, protected. Drives lose it when they are reset or get another cartridge."""
        self._prepared = -1  # until all of it is done
        self._reservation.renew()
        self._key.drop_left_over()
        self._protection.turn_on()
        self._settings.apply(self.capabilities)
        if not self._protection.on and self.capabilities.block_protection:
            self.capabilities = replace(self.capabilities, block_protection=False)
        self._prepared = self.losses

    def _leave(self) -> None:
        """Turn off what other programs do not know; the drive may be gone, and then it is off anyway."""
        self._prepared = -1
        with suppress(DeviceError, TransportError):
            self._protection.turn_off()

    def _check_data(self) -> None:
        """Before blocks are read or written: the position is known, and the drive has its modes."""
        self._check_position()
        if self._prepared != self.losses:
            self._prepare()
            self._check_position()

    # ── data ──────────────────────────────────────────────────────────────────────────────────────────

    def read_block(self, into: memoryview) -> BlockRead:
        self._check_data()
        protected = self._protection.on
        data = self._protection.room(len(into), self.capabilities.max_block) if protected else into
        # SILI stays off: with it, a record longer than the buffer would look like one that fits (SSC-5, 6.4).
        completion = self._send(cdb.read(len(data)), timeouts.TRANSFER, data, Direction.IN)
        if completion.status is Status.GOOD:
            return self._came(data[: len(data) - completion.residual], into)
        sense = decode_sense(completion.sense)
        if completion.status is Status.CHECK_CONDITION and not sense.deferred:
            if sense.filemark:
                self._advance()
                return BlockRead(Read.FILEMARK)
            if sense.key is Key.BLANK_CHECK or (sense.key is Key.NO_SENSE and sense.code == (0x00, 0x05)):
                return BlockRead(Read.END_OF_DATA)
            if sense.key in (Key.NO_SENSE, Key.RECOVERED_ERROR) and sense.incorrect_length:
                missing = sense.information or 0
                if missing < 0:
                    self._advance()
                    length = len(data) - missing - (GUARD_BYTES if protected else 0)
                    raise BlockTooLarge(device=self.address, length=length, limit=len(into))
                return self._came(data[: len(data) - missing], into)
            if sense.key is Key.RECOVERED_ERROR or (sense.key is Key.NO_SENSE and sense.end_of_medium):
                return self._came(data[: len(data) - completion.residual], into)
            if sense.key is Key.MEDIUM_ERROR:
                block, self._block = self._block, -1
                raise MediumError(device=self.address, command="READ", block=block_name(block), sense=str(sense))
            if sense.key is Key.DATA_PROTECT and sense.asc == SECURITY:
                self._undecrypted(sense)
        self._fail("READ", completion)

    def _came(self, data: memoryview, into: memoryview) -> BlockRead:
        """A whole block came: where blocks are protected, the caller gets it if it is what the drive sent."""
        block = self._block
        self._advance()
        if not self._protection.on:
            return BlockRead(Read.DATA, len(data))
        length = self._protection.checked(data, into)
        if length is None:
            raise BlockChanged(
                device=self.address, command="READ", block=block_name(block), sense="its guard does not match"
            )
        return BlockRead(Read.DATA, length)

    def _undecrypted(self, sense: Sense) -> NoReturn:
        """The drive has not decrypted the block, and stands before it."""
        block = block_name(self._block)
        if sense.code == _NOT_AUTHENTIC:
            self._lose(str(sense))
            raise MediumError(device=self.address, command="READ", block=block, sense=str(sense))
        if sense.code == _IN_CLEAR:  # only where another program has set the drive to read nothing in clear
            raise DeviceError(device=self.address, command="READ", block=block, sense=str(sense))
        key = self._key.next_block().key_id or "unknown"
        raise DriveKeyNeeded(device=self.address, command="READ", block=block, key=key, sense=str(sense))

    def write_block(self, block: memoryview) -> Room:
        self._check_data()
        if self._key.doubtful:
            raise DriveKeyNeeded(
                device=self.address,
                command="WRITE",
                block=block_name(self._block),
                key=self._key.key_id or "unknown",
                sense="the drive may have lost it, and nothing was written",
                hint="set it again, and go on behind what is committed",
            )
        data = self._protection.guarded(block) if self._protection.on else block
        completion = self._send(cdb.write(len(data)), timeouts.TRANSFER, data, Direction.OUT)
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
            return Room.EARLY_WARNING if self._warned else Room.AMPLE
        if completion.status is Status.CHECK_CONDITION:
            sense = decode_sense(completion.sense)
            if sense.key in (Key.NO_SENSE, Key.RECOVERED_ERROR) and not sense.deferred:
                self._advance(objects)
                self._warned = self._warned or sense.code == _PROGRAMMED
                return Room.EARLY_WARNING if self._warned or sense.end_of_medium else Room.AMPLE
        self._fail(command, completion)

    # ── the key of a drive that encrypts ──────────────────────────────────────────────────────────────

    def set_key(self, key: bytes, key_id: str, *, encrypt: bool) -> None:
        check_drive_key(key, key_id)
        self._key.set(key, key_id, encrypt=encrypt)

    def clear_key(self) -> None:
        self._key.clear()

    def next_block_key(self) -> BlockKey:
        self._check_position()
        return self._key.next_block()

    # ── other hosts ───────────────────────────────────────────────────────────────────────────────────

    def reserve(self, key: int, *, preempt: int | None = None) -> None:
        self._reservation.reserve(key, preempt)

    def release(self) -> None:
        self._reservation.release()

    def reservations(self) -> Reservations:
        return self._reservation.state()

    # ── the end ───────────────────────────────────────────────────────────────────────────────────────

    def clean(self) -> bool:
        for _ in range(int(timeouts.CLEAN / POLL_SECONDS)):
            if not self.status().loaded:
                return True
            self._sleep(POLL_SECONDS)
        return False

    def close(self) -> None:
        self._leave()
        self._transport.close()
