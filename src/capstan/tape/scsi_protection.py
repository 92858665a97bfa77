"""Records on their way to a drive and back, each with a CRC behind it where the drive can check it (SSC-5, 4.2.29)."""

from __future__ import annotations

from capstan.scsi import cdb
from capstan.scsi.block_protection import BYTES, PAGE, SUBPAGE, Protection, encode_page, guard_of, is_whole
from capstan.tape.discovery import Query
from capstan.tape.scsi_encryption import SendOut

_USUAL = 1 << 20  # bytes: the largest record of the format
_ON = Protection(writes=True, reads=True)


class BlockProtection:
    """For one drive. `on`: the drive was told, and both sides do it. A drive that was reset must be told again."""

    def __init__(self, send: SendOut) -> None:
        self.on = False
        self._send = send
        self._offered = False
        self._max_block = 0
        self._buffer = memoryview(b"")

    def is_offered(self, query: Query, max_block: int) -> bool:
        """Ask the drive. `max_block`: what it takes at most, the guard included."""
        answer = query(cdb.mode_sense(PAGE, SUBPAGE, length=64, block_descriptor=False), 64, optional=True)
        self._offered, self._max_block = len(answer) > 4, max_block
        return self._offered

    def turn(self, *, on: bool) -> None:
        """Tell the drive; nothing is sent to one that does not offer it."""
        if self._offered:
            parameters = memoryview(bytearray(bytes((0, 0, 0x10, 0)) + encode_page(_ON if on else Protection())))
            self._send("MODE SELECT", cdb.mode_select(len(parameters)), parameters)
            self.on = on

    def sent(self, record: memoryview) -> memoryview:
        """What goes to the drive for a record; valid until the next call."""
        if not self.on:
            return record
        buffer = self.room(len(record))
        buffer[: len(record)] = record
        buffer[len(record) :] = guard_of(record)
        return buffer

    def room(self, length: int) -> memoryview:
        """A buffer for a record of `length` bytes and what stands behind it."""
        if len(self._buffer) < length + BYTES:
            self._buffer = memoryview(bytearray(max(length, min(self._max_block, _USUAL)) + BYTES))
        return self._buffer[: length + BYTES]

    def received(self, length: int, into: memoryview) -> int | None:
        """Put the record that lies in the last `room`, with its guard in `length` bytes, into `into`; its length. None:
        it was changed on its way."""
        guarded = self._buffer[:length]
        if not is_whole(guarded):
            return None
        into[: length - BYTES] = guarded[:-BYTES]
        return length - BYTES
