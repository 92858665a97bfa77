"""Logical block protection in a virtual drive: what stands behind records on their way is checked, and never stored."""

from __future__ import annotations

from capstan.scsi.block_protection import (
    BYTES,
    GUARD_CHECK_FAILED,
    PAGE,
    SUBPAGE,
    Protection,
    decode_page,
    encode_page,
    guard_of,
    is_whole,
)
from capstan.scsi.sense import Key, Sense
from capstan.scsi.virtual.target import CheckCondition, illegal


class BlockGuard:
    """As the drive was told by MODE SELECT; off after a reset."""

    def __init__(self) -> None:
        self._set = Protection()

    def page(self, page: int, subpage: int) -> bytes:
        """The mode page, b"" for another one."""
        return encode_page(self._set) if (page, subpage) == (PAGE, SUBPAGE) else b""

    def select(self, page: bytes) -> None:
        """Take the page of a MODE SELECT, if it is this one."""
        try:
            self._set = decode_page(page) or self._set
        except ValueError:
            raise illegal(0x26, 0x00) from None

    def receive(self, data: memoryview) -> memoryview:
        """A record that comes, without its guard. It is not to be written if that does not fit."""
        if not self._set.writes:
            return data
        if not is_whole(data):
            raise CheckCondition(Sense(Key.ABORTED_COMMAND, *GUARD_CHECK_FAILED))
        return data[:-BYTES]

    def send(self, buffer: memoryview, length: int) -> int:
        """Put the guard behind the record of `length` bytes in `buffer`, if there is room; the length of both."""
        if not self._set.reads:
            return length
        room = buffer[length : length + BYTES]
        if len(room) == BYTES:
            room[:] = guard_of(buffer[:length])
        return length + BYTES
