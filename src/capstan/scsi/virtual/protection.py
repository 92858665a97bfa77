"""Logical block protection in a virtual drive: guards are compared and made at its door, and never on the medium."""

from __future__ import annotations

from capstan.scsi import protection
from capstan.scsi.protection import GUARD_BYTES, OFF, ON, ProtectionMode, guard_of
from capstan.scsi.sense import Key, Sense
from capstan.scsi.virtual.target import INVALID_FIELD, CheckCondition, illegal


class BlockProtection:
    """The control data protection mode page of one drive, and what it does to blocks."""

    def __init__(self) -> None:
        self._mode = OFF

    def forget(self) -> None:
        """As when the drive is reset: the mode page is not saved."""
        self._mode = OFF

    @property
    def page(self) -> bytes:
        """The mode page, current values."""
        return protection.encode_mode_page(self._mode)

    def set(self, page: bytes) -> None:
        """ILLEGAL REQUEST unless it asks for CRC-32C or no protection at all; then nothing has changed."""
        asked = protection.decode_mode_page(page)
        if asked is None or (asked.method, asked.guard_bytes) not in ((0, 0), (ON.method, ON.guard_bytes)):
            raise illegal(0x26)
        protects = asked.method != 0
        self._mode = ProtectionMode(
            asked.method, asked.guard_bytes, asked.writes and protects, asked.reads and protects
        )

    def checked(self, data: memoryview) -> memoryview:
        """The block that a WRITE has sent, without its guard. ABORTED COMMAND when the guard is another's."""
        if not self._mode.writes:
            return data
        if len(data) <= GUARD_BYTES:
            raise illegal(*INVALID_FIELD)
        block = data[:-GUARD_BYTES]
        if bytes(data[-GUARD_BYTES:]) != guard_of(block):
            raise CheckCondition(Sense(Key.ABORTED_COMMAND, 0x10, 0x01))
        return block

    def guarded(self, buffer: memoryview, length: int) -> int:
        """Put the guard behind the block in `buffer`, as far as there is room; return the length with it."""
        if not self._mode.reads:
            return length
        if length < len(buffer):
            room = min(GUARD_BYTES, len(buffer) - length)
            buffer[length : length + room] = guard_of(buffer[:length])[:room]
        return length + GUARD_BYTES
