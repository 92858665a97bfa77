"""The device server of a virtual LTO drive: answers SSC commands over a cartridge's image.

It behaves as drives do, not as our code would like. Positions are logical object numbers; whatever is written at a
position makes that the end of data. One partition. What a drive answers beyond this (reservations, attributes) gets its
line in `_COMMANDS` and its page in `drive_pages`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

from capstan.core.generations import Generation, can_read, can_write
from capstan.scsi.cdb import Op
from capstan.scsi.sense import Key, Sense
from capstan.scsi.virtual.access_order import AccessOrder
from capstan.scsi.virtual.auxiliary_memory import AuxiliaryMemory
from capstan.scsi.virtual.cartridge import VirtualCartridge
from capstan.scsi.virtual.drive_modes import DriveModes
from capstan.scsi.virtual.drive_pages import densities, log_page
from capstan.scsi.virtual.encryption import DataEncryption
from capstan.scsi.virtual.fixed import check_blocks, read_blocks, write_blocks
from capstan.scsi.virtual.image import BadRecord, TapeImage
from capstan.scsi.virtual.reservations import DriveReservations
from capstan.scsi.virtual.spacing import position_data, space
from capstan.scsi.virtual.target import INVALID_FIELD, INVALID_OPCODE, CheckCondition, illegal, inquiry_answer, put
from capstan.scsi.virtual.timing import Timing
from capstan.scsi.virtual.upkeep import Upkeep

_MAX_BLOCK = 8 << 20
_NEVER_ATTENTION = frozenset({Op.INQUIRY, Op.REQUEST_SENSE})  # SAM-5, 5.14.1: these do not report unit attentions
_NO_MEDIUM = Sense(Key.NOT_READY, 0x3A, 0x00)
_BLANK = (0x00, 0x05)


class VirtualDrive:
    """One drive. The library puts cartridges in with `insert` and takes them with `take`."""

    def __init__(self, *, generation: Generation, serial: str, timing: Timing, clean_every: int = 0) -> None:
        self.upkeep = Upkeep(clean_every)
        self.generation = generation
        self.serial = serial
        self._timing = timing
        self._cartridge: VirtualCartridge | None = None
        self._tape: TapeImage | None = None  # None when nothing is threaded
        self._position = 0
        self._modes = DriveModes()
        self._attentions: list[Sense] = [Sense(Key.UNIT_ATTENTION, 0x29, 0x00)]
        self._prevented = False
        self._encryption = DataEncryption()
        self._order = AccessOrder()
        self.reservations = DriveReservations()

    # ── what the robot does ───────────────────────────────────────────────────────────────────────────

    @property
    def threaded(self) -> bool:
        """Whether the tape is in the drive's path: then the robot cannot take the cartridge."""
        return self._tape is not None

    def insert(self, cartridge: VirtualCartridge, uses: int = 0) -> None:
        """Take a cartridge and thread it, as LTO drives do on insertion. What goes wrong then, LOAD says. `uses`: as of
        `Upkeep`."""
        self._cartridge = cartridge
        self.upkeep.inserted(cartridge.facts, uses)
        if not cartridge.facts.cleaning and can_read(self.generation, cartridge.generation):
            with suppress(OSError):
                self._thread()

    def take(self) -> VirtualCartridge:
        """Give the cartridge to the robot; only after an unload."""
        assert self._cartridge is not None
        assert self._tape is None
        cartridge, self._cartridge = self._cartridge, None
        return cartridge

    def close(self) -> None:
        """The power goes off: what was not synced is only where the operating system has it."""
        if self._cartridge is not None:
            self._cartridge.remove()
        self._tape = None
        self.reset()
        self.reservations.forget()

    # ── the device server ─────────────────────────────────────────────────────────────────────────────

    def attention(self, opcode: int) -> Sense | None:
        if opcode in _NEVER_ATTENTION or not self._attentions:
            return None
        return self._attentions.pop(0)

    def reset(self) -> None:
        self._position = 0
        self._encryption.forget()
        self._modes.forget()

    def perform(self, cdb: bytes, data: memoryview | None) -> int:
        command = self._COMMANDS.get(cdb[0])
        if command is None:
            raise illegal(*INVALID_OPCODE)
        return command(self, cdb, data)

    def _thread(self) -> None:
        assert self._cartridge is not None
        self._timing.load()
        self._tape = self._cartridge.insert()
        self.upkeep.loaded()
        self._position = 0
        self._modes.block_length = 0
        self._attentions.append(Sense(Key.UNIT_ATTENTION, 0x28, 0x00))

    def _ready(self) -> TapeImage:
        if self._tape is not None:
            return self._tape
        cartridge = self._cartridge
        if cartridge is None:
            raise CheckCondition(_NO_MEDIUM)
        if cartridge.facts.cleaning:
            raise CheckCondition(Sense(Key.NOT_READY, 0x30, 0x03) if self.upkeep.cleaning() else _NO_MEDIUM)
        if not can_read(self.generation, cartridge.generation):
            raise CheckCondition(Sense(Key.NOT_READY, 0x30, 0x00))
        raise CheckCondition(_NO_MEDIUM)

    def _test_unit_ready(self, cdb: bytes, data: memoryview | None) -> int:
        self._ready()
        return 0

    def _inquiry(self, cdb: bytes, data: memoryview | None) -> int:
        product = f"Virtual {self.generation.name}"
        return put(data, inquiry_answer(0x01, product, self.serial, cdb), int.from_bytes(cdb[3:5], "big"))

    def _request_sense(self, cdb: bytes, data: memoryview | None) -> int:
        return put(data, bytes((0x70, 0, 0, 0, 0, 0, 0, 10)) + bytes(10), cdb[4])

    def _read_block_limits(self, cdb: bytes, data: memoryview | None) -> int:
        return put(data, b"\0" + _MAX_BLOCK.to_bytes(3, "big") + (1).to_bytes(2, "big"), 6)

    # ── positions ─────────────────────────────────────────────────────────────────────────────────────

    def _rewind(self, cdb: bytes, data: memoryview | None) -> int:
        tape = self._ready()
        self._timing.locate(self._position, 0, tape.count)
        self._position = 0
        return 0

    def _load_unload(self, cdb: bytes, data: memoryview | None) -> int:
        if cdb[4] & 1:
            if self._tape is None:
                if self._cartridge is None:
                    raise CheckCondition(_NO_MEDIUM)
                if self._cartridge.facts.cleaning or not can_read(self.generation, self._cartridge.generation):
                    self._ready()
                self._thread()
            self._position = 0
            return 0
        if self._prevented:
            raise illegal(0x53, 0x02)
        if self._tape is not None:
            assert self._cartridge is not None
            self._encryption.forget()
            self._timing.locate(self._position, 0, self._tape.count)
            self._tape.sync()
            self._cartridge.save()
            self._cartridge.remove()
            self._tape = None
            self._timing.unload()
        return 0

    def _locate_10(self, cdb: bytes, data: memoryview | None) -> int:
        return self._locate(int.from_bytes(cdb[3:7], "big"))

    def _locate_16(self, cdb: bytes, data: memoryview | None) -> int:
        if cdb[1] & 0x38:  # DEST_TYPE: only logical object identifiers
            raise illegal(*INVALID_FIELD)
        return self._locate(int.from_bytes(cdb[4:12], "big"))

    def _locate(self, block: int) -> int:
        tape = self._ready()
        self._timing.locate(self._position, min(block, tape.count), tape.count)
        if block > tape.count:
            self._position = tape.count
            raise CheckCondition(Sense(Key.BLANK_CHECK, *_BLANK))
        self._position = block
        return 0

    def _read_position(self, cdb: bytes, data: memoryview | None) -> int:
        tape = self._ready()
        at_end = tape.end_offset >= self._cartridge_in().early_warning_at and self._position == tape.count
        return put(data, position_data(tape, self._position, cdb[1] & 0x1F, at_end=at_end), 32)

    def _space(self, cdb: bytes, data: memoryview | None) -> int:
        code = cdb[1] & 0x0F
        count = int.from_bytes(cdb[2:5] if cdb[0] == Op.SPACE_6 else cdb[4:12], "big", signed=True)
        tape = self._ready()
        before = self._position
        self._position, stopped = space(tape, before, code, count)
        self._timing.locate(before, self._position, tape.count)
        if stopped is not None:
            raise stopped
        return 0

    # ── data ──────────────────────────────────────────────────────────────────────────────────────────

    def _read(self, cdb: bytes, data: memoryview | None) -> int:
        tape = self._ready()
        count = int.from_bytes(cdb[2:5], "big")
        if count == 0 or not cdb[1] & 0x01:
            room = data if data is None else data[:count]
            return count and self._read_block(tape, room, count, hides=bool(cdb[1] & 0x02))
        if cdb[1] & 0x02:  # FIXED and SILI
            raise illegal(*INVALID_FIELD)
        whole = check_blocks(count, self._modes.block_length, data, _MAX_BLOCK)
        length = self._modes.block_length
        return read_blocks(lambda part: self._read_block(tape, part, length, hides=False), count, length, whole)

    def _read_block(self, tape: TapeImage, data: memoryview | None, wanted: int, *, hides: bool) -> int:
        if wanted > _MAX_BLOCK:
            raise illegal(*INVALID_FIELD)
        if self._position >= tape.count:
            raise CheckCondition(Sense(Key.BLANK_CHECK, *_BLANK, information=wanted))
        buffer = memoryview(b"") if data is None else data
        number = self._position
        try:
            if tape.is_filemark(number):
                tape.check_filemark(number)
                self._position += 1
                raise CheckCondition(Sense(Key.NO_SENSE, 0x00, 0x01, filemark=True, information=wanted))
            length = self._encryption.read(tape, number, buffer)
        except BadRecord:
            self._position += 1
            self.upkeep.failed(writing=False)
            raise CheckCondition(Sense(Key.MEDIUM_ERROR, 0x11, 0x00, information=wanted)) from None
        self._position += 1
        self.upkeep.moved(length, writing=False)
        self._timing.transfer(length)
        length = self._modes.protection.guarded(buffer, length)
        moved = min(length, len(buffer))
        # SILI hides a short record, and a long one too while the block length is zero (SSC-5, 6.4).
        if length != wanted and not (hides and (length < wanted or self._modes.block_length == 0)):
            raise CheckCondition(Sense(Key.NO_SENSE, incorrect_length=True, information=wanted - length), moved=moved)
        return moved

    def _write(self, cdb: bytes, data: memoryview | None) -> int:
        tape = self._ready()
        count = int.from_bytes(cdb[2:5], "big")
        if count and cdb[1] & 0x01:  # FIXED
            whole = check_blocks(count, self._modes.block_length, data, _MAX_BLOCK)
            return write_blocks(lambda part: self._write_block(tape, part), count, self._modes.block_length, whole)
        if count != (0 if data is None else len(data)) or count > _MAX_BLOCK:
            raise illegal(*INVALID_FIELD)
        return 0 if data is None or not count else self._write_block(tape, data)

    def _write_block(self, tape: TapeImage, data: memoryview) -> int:
        length = len(data)
        block = self._modes.protection.checked(data)
        before = self._check_writable(tape, len(block) + 8 + self._encryption.overhead)
        try:
            self._encryption.write(tape, self._position, block)
        except OSError:
            self.upkeep.failed(writing=True)
            raise CheckCondition(Sense(Key.MEDIUM_ERROR, 0x0C, 0x00)) from None
        self._position += 1
        self.upkeep.moved(len(block), writing=True)
        self._timing.transfer(len(block))
        self._warn(tape, before, moved=length)
        return length

    def _write_filemarks(self, cdb: bytes, data: memoryview | None) -> int:
        tape = self._ready()
        count = int.from_bytes(cdb[2:5], "big")
        before = self._check_writable(tape, 4 * count) if count else 0
        try:
            for _ in range(count):
                tape.write_filemark(self._position)
                self._position += 1
            if not cdb[1] & 1:
                tape.sync()
                self._cartridge_in().save()
        except OSError:
            raise CheckCondition(Sense(Key.MEDIUM_ERROR, 0x0C, 0x00)) from None
        if count:
            self._warn(tape, before, moved=0)
        return 0

    def _erase(self, cdb: bytes, data: memoryview | None) -> int:
        tape = self._ready()
        self._check_writable(tape, 0)
        tape.erase_from(self._position)
        tape.sync()
        return 0

    def _cartridge_in(self) -> VirtualCartridge:
        assert self._cartridge is not None
        return self._cartridge

    def _check_writable(self, tape: TapeImage, size: int) -> int:
        """Raise what keeps `size` bytes from being written; return where on the medium they would begin."""
        cartridge = self._cartridge_in()
        if not can_write(self.generation, cartridge.generation):
            raise CheckCondition(Sense(Key.DATA_PROTECT, 0x30, 0x05))  # CANNOT WRITE MEDIUM - INCOMPATIBLE FORMAT
        if cartridge.facts.write_protected:
            raise CheckCondition(Sense(Key.DATA_PROTECT, 0x27, 0x00))
        if cartridge.facts.worm and self._position < tape.count:
            raise CheckCondition(Sense(Key.DATA_PROTECT, 0x30, 0x0C))
        offset = tape.offset_of(self._position)
        if offset + size > cartridge.facts.capacity_bytes:
            raise CheckCondition(Sense(Key.VOLUME_OVERFLOW, 0x00, 0x02, end_of_medium=True, information=size))
        return offset

    def _warn(self, tape: TapeImage, before: int, *, moved: int) -> None:
        """Each time behind the early warning; once where the programmable one is passed (SSC-5, 4.2.7). `before`: where
        the medium was when the command came, in bytes."""
        warning = self._cartridge_in().early_warning_at
        if tape.end_offset >= warning:
            raise CheckCondition(Sense(Key.NO_SENSE, 0x00, 0x02, end_of_medium=True, information=0), moved=moved)
        if self._modes.early_warning_bytes and before < warning - self._modes.early_warning_bytes <= tape.end_offset:
            raise CheckCondition(Sense(Key.NO_SENSE, 0x00, 0x07, end_of_medium=True, information=0), moved=moved)

    # ── pages ─────────────────────────────────────────────────────────────────────────────────────────

    def _mode_sense(self, cdb: bytes, data: memoryview | None) -> int:
        cartridge = self._cartridge
        writable = cartridge is None or can_write(self.generation, cartridge.generation)
        threaded = self._tape is not None
        allocation = cdb[4] if cdb[0] == Op.MODE_SENSE_6 else int.from_bytes(cdb[7:9], "big")
        return put(data, self._modes.sense(cdb, cartridge, threaded=threaded, writable=writable), allocation)

    def _mode_select(self, cdb: bytes, data: memoryview | None) -> int:
        return self._modes.select(bytes(data or b""), long=cdb[0] == Op.MODE_SELECT_10)

    def _report_density_support(self, cdb: bytes, data: memoryview | None) -> int:
        if cdb[1] & 0x02:  # MEDIUM TYPE: LTO drives do not know it
            raise illegal(*INVALID_FIELD)
        if cdb[1] & 0x01:
            self._ready()
        mounted = self._cartridge_in().generation if cdb[1] & 0x01 else None
        return put(data, densities(self.generation, mounted), int.from_bytes(cdb[7:9], "big"))

    def _log_sense(self, cdb: bytes, data: memoryview | None) -> int:
        page = log_page(cdb[2] & 0x3F, self._cartridge, self._tape, self.upkeep)
        return put(data, page, int.from_bytes(cdb[7:9], "big"))

    def _read_attribute(self, cdb: bytes, data: memoryview | None) -> int:
        memory = AuxiliaryMemory(self._ready(), self._cartridge_in())
        return put(data, memory.answer(cdb), int.from_bytes(cdb[10:14], "big"))

    def _write_attribute(self, cdb: bytes, data: memoryview | None) -> int:
        return AuxiliaryMemory(self._ready(), self._cartridge_in()).write(bytes(data or b""))

    def _security_in(self, cdb: bytes, data: memoryview | None) -> int:
        answer = self._encryption.answer(cdb, lambda: (self._ready(), self._position))
        return put(data, answer, int.from_bytes(cdb[6:10], "big"))

    def _security_out(self, cdb: bytes, data: memoryview | None) -> int:
        return self._encryption.take(cdb, data, loaded=self._tape is not None)

    def _maintenance_out(self, cdb: bytes, data: memoryview | None) -> int:
        return self._order.take(cdb, bytes(data or b""), self._ready(), self._position)

    def _maintenance_in(self, cdb: bytes, data: memoryview | None) -> int:
        return put(data, self._order.answer(cdb), int.from_bytes(cdb[6:10], "big"))

    def _prevent_allow(self, cdb: bytes, data: memoryview | None) -> int:
        self._prevented = bool(cdb[4] & 1)
        return 0

    _COMMANDS: ClassVar[dict[int, Callable[[VirtualDrive, bytes, memoryview | None], int]]] = {
        Op.TEST_UNIT_READY: _test_unit_ready,
        Op.REWIND: _rewind,
        Op.REQUEST_SENSE: _request_sense,
        Op.READ_BLOCK_LIMITS: _read_block_limits,
        Op.READ_6: _read,
        Op.WRITE_6: _write,
        Op.WRITE_FILEMARKS_6: _write_filemarks,
        Op.SPACE_6: _space,
        Op.INQUIRY: _inquiry,
        Op.MODE_SELECT_6: _mode_select,
        Op.ERASE_6: _erase,
        Op.MODE_SENSE_6: _mode_sense,
        Op.MODE_SELECT_10: _mode_select,
        Op.MODE_SENSE_10: _mode_sense,
        Op.LOAD_UNLOAD: _load_unload,
        Op.PREVENT_ALLOW: _prevent_allow,
        Op.LOCATE_10: _locate_10,
        Op.READ_POSITION: _read_position,
        Op.REPORT_DENSITY_SUPPORT: _report_density_support,
        Op.LOG_SENSE: _log_sense,
        Op.READ_ATTRIBUTE: _read_attribute,
        Op.WRITE_ATTRIBUTE: _write_attribute,
        Op.SPACE_16: _space,
        Op.LOCATE_16: _locate_16,
        Op.SECURITY_PROTOCOL_IN: _security_in,
        Op.SECURITY_PROTOCOL_OUT: _security_out,
        Op.MAINTENANCE_IN: _maintenance_in,
        Op.MAINTENANCE_OUT: _maintenance_out,
    }
