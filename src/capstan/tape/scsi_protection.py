"""Logical block protection from the host's end: turned on in the drive, added to what goes out, compared on the way in.

With it, a bit that flips in a cable, an adapter or a buffer between here and the drive is found at once, where it can
still be put right. The guards are of the wire only: callers, and what is read later without protection, see none of it.
"""

from __future__ import annotations

from capstan.scsi import cdb, protection
from capstan.scsi.protection import GUARD_BYTES, OFF, ON, ProtectionMode, guard_of
from capstan.tape.discovery import find_protection
from capstan.tape.scsi_commands import ATTENTIONS, DriveCommands

# Variable block mode, buffered, with a block descriptor (SSC-5, 8.3.2): what every drive gets.
_PLAIN = bytes((0, 0, 0x10, 8)) + bytes(8)


class ScsiBlockProtection:
    """The mode of one drive, and one buffer, in which a block and its guard lie while they are on their way.

    `supported` until the drive refuses it; `on` while the drive is set to it.
    """

    def __init__(self, commands: DriveCommands, *, supported: bool) -> None:
        self._commands = commands
        self.supported = supported
        self.on = False
        self._asked = False  # the drive may be set to it, whether that is known or not
        self._buffer = memoryview(bytearray())

    def turn_on(self) -> None:
        """Set the drive to variable, buffered blocks, and to protected ones if it can. DeviceError."""
        self.on, self._asked = False, self.supported
        for _ in range(ATTENTIONS):
            losses = self._commands.losses
            self.on = self.supported and self._select(ON)
            if self.on or losses == self._commands.losses:
                break
        if not self.on:
            self.supported = False
            if find_protection(self._commands.query) not in (None, OFF):
                self._select(OFF)  # the drive has done a half of it, or somebody has left it so
            self._commands.send_parameters("MODE SELECT", cdb.mode_select(len(_PLAIN)), memoryview(_PLAIN))

    def turn_off(self) -> None:
        """Leave the drive to others as they know it: without guards. DeviceError, TransportError."""
        if self._asked:
            self.on = self._asked = False
            self._select(OFF)

    def _select(self, mode: ProtectionMode) -> bool:
        """Whether the drive is in that mode now: it is asked, for guards that it takes for data would be written."""
        parameters = _PLAIN + protection.encode_mode_page(mode)
        command = cdb.mode_select(len(parameters))
        if not self._commands.send_parameters("MODE SELECT", command, memoryview(parameters), optional=True):
            return False
        return find_protection(self._commands.query) == mode

    def room(self, size: int, limit: int) -> memoryview:
        """Space for a block of up to `size` bytes, but not more than `limit`, and its guard."""
        return self._space(min(size, limit) + GUARD_BYTES)

    def guarded(self, block: memoryview) -> memoryview:
        """The block with its guard behind it, until the next call."""
        data = self._space(len(block) + GUARD_BYTES)
        data[: len(block)] = block
        data[len(block) :] = guard_of(block)
        return data

    def checked(self, data: memoryview, into: memoryview) -> int | None:
        """Move the block in `data`, which ends with its guard, into `into`; return its length. None, and `into` as it
        was, when the guard is another's."""
        length = len(data) - GUARD_BYTES
        if length < 1 or bytes(data[length:]) != guard_of(data[:length]):
            return None
        into[:length] = data[:length]
        return length

    def _space(self, size: int) -> memoryview:
        if len(self._buffer) < size:
            self._buffer = memoryview(bytearray(size))
        return self._buffer[:size]
