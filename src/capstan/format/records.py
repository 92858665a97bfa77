"""One tape file being written: its header record, its payload cut into records, its filemark."""

from __future__ import annotations

import hashlib

from crc32c import crc32c

from capstan.crypto.identities import DriveKey
from capstan.errors import Refused
from capstan.tape.drive import Room, TapeDrive, find_encrypting


class TapeFileWriter:
    """Writes one tape file after another at the drive's position, which nobody else may move meanwhile.

    `block` and `tape_file` are those of the next record or file. `early_warning` stays set once the drive has said
    that the end is near. After an error from the drive the object is of no further use: go back to a commit point.
    """

    def __init__(
        self, drive: TapeDrive, *, record_bytes: int, block: int, tape_file: int, key: DriveKey | None = None
    ) -> None:
        """`key`: the drive encrypts payloads with it. Refused for a drive that cannot; without one, what a drive was
        told before is taken back."""
        self._cipher = find_encrypting(drive)
        if self._cipher is not None and key is None:
            self._cipher.clear_key()
        elif self._cipher is None and key is not None:
            raise Refused(reason=f"drive {drive.address} does not encrypt", hint="use another drive, or another pool")
        self._drive = drive
        self._key = key
        self._buffer = memoryview(bytearray(record_bytes))
        self._record_bytes = record_bytes
        self._filled = 0
        self._payload = hashlib.sha256()
        self._began = block
        self.block = block
        self.tape_file = tape_file
        self.records = 0
        self.payload_bytes = 0
        self.checksums = bytearray()
        self.early_warning = False

    def begin(self, header: bytes) -> None:
        """Write the header record of the next tape file, always in clear."""
        if self._key is not None:
            self._encrypt(False)
        self._payload = hashlib.sha256()
        self.records = self.payload_bytes = self._filled = 0
        self.checksums = bytearray()
        self._began = self.block
        self._note(self._drive.write_block(memoryview(header)))
        self.block += 1
        if self._key is not None:
            self._encrypt(True)

    def write(self, data: bytes | memoryview) -> None:
        """Add payload. `data` may be reused when this returns."""
        view = memoryview(data)
        self.payload_bytes += len(view)
        at = 0
        if self._filled:
            at = min(len(view), self._record_bytes - self._filled)
            self._buffer[self._filled : self._filled + at] = view[:at]
            self._filled += at
            if self._filled < self._record_bytes:
                return
            self._put(self._buffer)
        while len(view) - at >= self._record_bytes:
            self._put(view[at : at + self._record_bytes])
            at += self._record_bytes
        self._filled = len(view) - at
        self._buffer[: self._filled] = view[at:]

    def abandon(self) -> None:
        """Go back to where the tape file in hand began: the next one is written over it, and has its number."""
        self._drive.locate(self._began)
        self.block = self._began
        self.records = self.payload_bytes = self._filled = 0

    def end(self, *, synchronous: bool) -> str:
        """Write the rest and the filemark; return the payload's SHA-256. Synchronous: all is on the medium then."""
        if self._filled:
            self._put(self._buffer[: self._filled])
            self._filled = 0
        self._note(self._drive.write_filemarks(1, immediate=not synchronous))
        self.block += 1
        self.tape_file += 1
        return self._payload.hexdigest()

    def _encrypt(self, on: bool) -> None:
        assert self._key is not None and self._cipher is not None
        self._cipher.set_key(self._key.secret, self._key.key_id, encrypt=on)

    def tear(self) -> None:
        """End a tape file that is not whole, and that no INDEX may claim."""
        self._filled = 0
        self._note(self._drive.write_filemarks(1, immediate=True))
        self.block += 1
        self.tape_file += 1

    def _put(self, record: memoryview) -> None:
        self.checksums += crc32c(record).to_bytes(4, "little")
        self._payload.update(record)
        self._note(self._drive.write_block(record))
        self.block += 1
        self.records += 1

    def _note(self, room: Room) -> None:
        if room is Room.EARLY_WARNING:
            self.early_warning = True
