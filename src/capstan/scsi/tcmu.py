"""Gives SCSI units of this process to the Linux kernel, so that any program can use them as `/dev/sgN` and `/dev/nstN`.

The kernel's target core (module `target_core_user`) lays each command into a ring in shared memory, which a UIO device
announces; `tcm_loop` makes the machine its own initiator. The layout is that of <linux/target_core_user.h>. Needs root,
and a kernel with both modules.
"""

from __future__ import annotations

import mmap
import os
import select
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from capstan.errors import Refused, TransportError
from capstan.scsi.sense import Key, Sense, encode_sense
from capstan.scsi.transport import Command, Completion, Direction, ScsiTransport, Status

TARGET = Path("/sys/kernel/config/target")
_UIO = Path("/sys/class/uio")
_MAILBOX = struct.Struct("<HHIII")  # version, flags, where the ring begins, its size, head
_TAIL_AT = 64
_ENTRY = struct.Struct("<IHBB")  # length and operation, id, flags of the kernel, flags of ours
_REQUEST = struct.Struct("<III4xQ16x")  # pieces of data, two counts that tapes never have, where the CDB lies
_PIECE = struct.Struct("<QQ")
_RESPONSE = struct.Struct("<B3xI96s")  # status, bytes read, sense data
_VERSION = 2
_WWN, _WWN_OF_HOST = "naa.60014051", "naa.60014052"  # of the target and of what uses it; 8 digits follow
_OP_COMMAND = 1
_OPERATION = 0x07
_UNKNOWN_OPERATION = 0x01  # flags of ours
_READ_LENGTH = 0x02
_TIMEOUT = 3600.0
_CDB_BYTES = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}  # by the upper three bits of the operation code (SPC-5, 4.2.5.1)
# Commands that bring data; all others that have any fetch it.
_OUT = frozenset((0x0A, 0x15, 0x1D, 0x3B, 0x4C, 0x55, 0x5F, 0x8D, 0xA4, 0xB5))
_FAILED = Sense(Key.HARDWARE_ERROR, 0x44, 0x00)  # INTERNAL TARGET FAILURE


class CommandRing:
    """The ring of one unit, and the unit that answers. Owned by one thread."""

    def __init__(self, uio: Path, unit: ScsiTransport) -> None:
        self._unit = unit
        self.fd = os.open(Path("/dev") / uio.name, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = int((uio / "maps/map0/size").read_text(), 16)
            self._map = mmap.mmap(self.fd, size)
        except BaseException:
            os.close(self.fd)
            raise
        self._memory = memoryview(self._map)
        version, _, self._start, self._size, _ = _MAILBOX.unpack_from(self._memory)
        if version != _VERSION:
            self.close()
            raise Refused(reason=f"the kernel's ring has version {version}, and this program knows {_VERSION}")

    def serve(self) -> None:
        """Answer what has come. Call it when `fd` can be read."""
        os.read(self.fd, 4)
        while (tail := self._word(_TAIL_AT)) != self._word(_MAILBOX.size - 4):
            at = self._start + tail
            head, number, kernel, _ = _ENTRY.unpack_from(self._memory, at)
            if head & _OPERATION == _OP_COMMAND:
                self._answer(at)
            elif head & _OPERATION:
                _ENTRY.pack_into(self._memory, at, head, number, kernel, _UNKNOWN_OPERATION)
            length = head & ~_OPERATION
            struct.pack_into("<I", self._memory, _TAIL_AT, (tail + length) % self._size)
        os.write(self.fd, bytes(4))

    def close(self) -> None:
        """Let go of the ring. Twice is harmless."""
        if self.fd >= 0:
            self._memory.release()
            self._map.close()
            os.close(self.fd)
            self.fd = -1

    def _word(self, at: int) -> int:
        (value,) = struct.unpack_from("<I", self._memory, at)
        return int(value)

    def _answer(self, at: int) -> None:
        count, _, _, cdb_at = _REQUEST.unpack_from(self._memory, at + _ENTRY.size)
        first = at + _ENTRY.size + _REQUEST.size
        pieces = [_PIECE.unpack_from(self._memory, first + _PIECE.size * index) for index in range(count)]
        opcode = self._memory[cdb_at]
        cdb = bytes(self._memory[cdb_at : cdb_at + _CDB_BYTES.get(opcode >> 5, 16)])
        views = [self._memory[begin : begin + length] for begin, length in pieces]
        completion, moved = self._execute(cdb, views)
        _RESPONSE.pack_into(self._memory, at + _ENTRY.size, completion.status, moved, completion.sense)
        self._memory[at + 7] = _READ_LENGTH

    def _execute(self, cdb: bytes, views: Sequence[memoryview]) -> tuple[Completion, int]:
        """The answer of the unit, and how many bytes of it were read."""
        size = sum(map(len, views))
        direction = Direction.NONE if not size else Direction.OUT if cdb[0] in _OUT else Direction.IN
        data = None if not size else views[0] if len(views) == 1 else memoryview(bytearray(size))
        if len(views) > 1 and direction is Direction.OUT and data is not None:
            _scatter(data, views, gather=True)
        try:
            completion = self._unit.execute(Command(cdb, direction, data, _TIMEOUT))
        except TransportError:
            return Completion(Status.CHECK_CONDITION, encode_sense(_FAILED), size), 0
        if len(views) > 1 and direction is Direction.IN and data is not None:
            _scatter(data, views, gather=False)
        return completion, size - completion.residual if direction is Direction.IN else 0


def _scatter(whole: memoryview, pieces: Sequence[memoryview], *, gather: bool) -> None:
    at = 0
    for piece in pieces:
        part = whole[at : at + len(piece)]
        if gather:
            part[:] = piece
        else:
            piece[:] = part
        at += len(piece)


class KernelTarget:
    """Units in the kernel's target core, under one name, of which there is one on a machine. Each is called `lu…`."""

    def __init__(self, name: str, units: Mapping[str, ScsiTransport], *, seconds: int) -> None:
        """Set everything up; `serve` makes the devices appear. Refused, with what is missing; nothing is left behind
        then. What a process that was killed has left of that name is removed first. `seconds`: after which the kernel
        gives up a command that was not answered: this process is gone, or works longer than that; 0 for never."""
        self._name = name
        self._seconds = seconds
        self._units = dict(units)
        self._rings: list[CommandRing] = []
        if os.geteuid() != 0:
            raise Refused(reason="the kernel gives devices only to root", hint="run it with sudo")
        if not TARGET.is_dir() or not (TARGET / "core").is_dir():
            hint = "modprobe -a target_core_user tcm_loop sg st ch; mount -t configfs configfs /sys/kernel/config"
            raise Refused(reason=f"this kernel has no target core at {TARGET}", hint=hint)
        number = sha256(name.encode()).hexdigest()[:8]
        self._backend = TARGET / "core" / f"user_{int(number[:6], 16)}"
        self._portal = TARGET / "loopback" / f"{_WWN}{number}" / "tpgt_1"
        self.close()
        try:
            for unit in self._units:
                self._create_backend(unit)
        except OSError as error:
            self.close()
            reason = f"the kernel has refused {error.filename}: {error.strerror}"
            raise Refused(reason=reason, hint="modprobe -a target_core_user tcm_loop") from None
        except BaseException:
            self.close()
            raise

    def _create_backend(self, unit: str) -> None:
        folder = self._backend / unit
        folder.mkdir(parents=True)
        config = f"dev_config=capstan/{self._name}/{unit},dev_size=1048576,hw_block_size=512,hw_max_sectors=32768"
        (folder / "control").write_text(f"{config},nl_reply_supported=-1,max_data_area_mb=64")
        (folder / "attrib/pgr_support").write_text("0")  # reservations are the unit's own business
        (folder / "enable").write_text("1")
        (folder / "attrib/cmd_time_out").write_text(str(self._seconds))
        suffix = f"/capstan/{self._name}/{unit}"
        uio = next(path for path in _UIO.iterdir() if (path / "name").read_text().strip().endswith(suffix))
        self._rings.append(CommandRing(uio, self._units[unit]))

    def serve(self, stop: int, ready: Callable[[], None]) -> None:
        """Show the units to the kernel and answer, until the file descriptor `stop` can be read; `ready` is called when
        the devices are there. OSError. Call `close` afterwards."""
        with select.epoll() as poll:
            by_fd = {ring.fd: ring for ring in self._rings}
            for fd in (stop, *by_fd):
                poll.register(fd, select.EPOLLIN)
            # The kernel asks each unit who it is while it comes and goes: another thread waits for that.
            with ThreadPoolExecutor(1, "tcmu") as others:
                linking = others.submit(self._link)
                while not linking.done():
                    _serve_once(poll, by_fd, 0.05)
                linking.result()
                ready()
                while _serve_once(poll, by_fd, None, stop):
                    pass
                unlinking = others.submit(self._unlink)
                while not unlinking.done():
                    _serve_once(poll, by_fd, 0.05)

    def close(self) -> None:
        """Take everything out of the kernel; harmless twice, and after a process that was killed."""
        self._unlink()
        while self._rings:
            self._rings.pop().close()
        for folder in (*self._backend.glob("lu*"), self._backend):
            with suppress(FileNotFoundError):
                folder.rmdir()

    def _link(self) -> None:
        self._portal.mkdir(parents=True)
        (self._portal / "nexus").write_text(self._portal.parent.name.replace(_WWN, _WWN_OF_HOST))
        for number, unit in enumerate(self._units):
            lun = self._portal / f"lun/lun_{number}"
            lun.mkdir()
            (lun / unit).symlink_to(self._backend / unit)

    def _unlink(self) -> None:
        for lun in self._portal.glob("lun/lun_*"):
            for link in lun.iterdir():
                if link.is_symlink():
                    link.unlink()
            lun.rmdir()
        for folder in (self._portal, self._portal.parent):
            with suppress(FileNotFoundError):
                folder.rmdir()


def _serve_once(poll: select.epoll, rings: Mapping[int, CommandRing], seconds: float | None, stop: int = -1) -> bool:
    """Answer what has come; False when `stop` can be read."""
    for fd, _ in poll.poll(seconds):
        if fd == stop:
            return False
        if fd in rings:
            rings[fd].serve()
    return True
