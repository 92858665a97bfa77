"""A virtual tape: a file in the SIMH tape image format, and a map of where its objects begin.

SIMH (magtape image format, M. Burnett and R. Supnik): a record is its length in 4 bytes little-endian, the data padded
to an even number, and the length again; a filemark is four zero bytes. Other programs read it. The four highest bits
of both length words are the record's class: 0 is plain data; 1, of those left for private use, is a record that the
drive has encrypted (`scsi.virtual.encryption` says what is in it). So the mark is part of the framing: it is there
with the record, or the record does not count.

The map has 8 bytes for each logical object (record or filemark): file offset times two, plus one for a filemark. It
makes LOCATE a look-up, and keeps later records readable when the framing of one is damaged. It is an index: lost or
behind, it is made again from the image.
"""

from __future__ import annotations

import errno
import os
from array import array
from bisect import bisect_left
from contextlib import suppress
from pathlib import Path

from capstan import positional_io
from capstan.scsi.virtual.storage import Storage

_FRAME = 8  # bytes of framing around a record
_MARK = bytes(4)
_MAX_RECORD = (1 << 24) - 1
_ENCRYPTED = 1 << 28  # class 1 of the length word
_CHUNK = 1 << 16  # map entries read at once


class BadRecord(Exception):
    """The framing of a record is damaged, or its data cannot be read."""


class TapeImage:
    """The objects of one virtual tape. Numbers are logical: object 0 is the first record or filemark.

    Written data is in the operating system's cache at once (it survives the death of this process), and on disk
    after `sync`. A record that was only half written when the process died is not there after opening.
    """

    def __init__(self, path: Path, storage: Storage) -> None:
        """Open or create the image and its map (`path` with `.map`). OSError goes up."""
        self.path = path
        self._map_path = path.with_suffix(".map")
        self._storage = storage
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        self._file = os.open(path, flags, 0o600)
        try:
            self._map_file = os.open(self._map_path, flags, 0o600)
        except OSError:
            os.close(self._file)
            raise
        self._map = array("Q")
        self._mapped = 0  # entries of the map that are in its file
        self._filemarks: list[int] = []
        self._dirty = False
        self._load()

    @property
    def count(self) -> int:
        """Number of objects: the logical number of the end of data."""
        return len(self._map)

    @property
    def end_offset(self) -> int:
        """Bytes of the image that count: what the tape has been filled with."""
        return self._end

    @property
    def filemarks(self) -> list[int]:
        """Object numbers of all filemarks, ascending. Read only."""
        return self._filemarks

    def offset_of(self, number: int) -> int:
        """Image bytes before object `number`."""
        return self._map[number] >> 1 if number < len(self._map) else self._end

    def is_filemark(self, number: int) -> bool:
        return bool(self._map[number] & 1)

    def check_filemark(self, number: int) -> None:
        """BadRecord when the bytes of a filemark are no longer those of one."""
        if positional_io.pread(self._file, len(_MARK), self._map[number] >> 1) != _MARK:
            raise BadRecord(f"filemark {number} is damaged")

    def is_encrypted(self, number: int) -> bool:
        """Whether a record, which must not be a filemark, is marked as encrypted by the drive."""
        return self._word(self._map[number] >> 1) & _ENCRYPTED != 0

    def record_length(self, number: int) -> int:
        """Length of a record, checked at both of its ends. BadRecord when they do not agree with the map."""
        offset = self._map[number] >> 1
        stop = self._map[number + 1] >> 1 if number + 1 < len(self._map) else self._end
        head, trailer = self._word(offset), self._word(stop - 4)
        if _size(head) != stop - offset or trailer != head:
            raise BadRecord(f"record {number} has length words {head:X} and {trailer:X} in {stop - offset} bytes")
        return head & _MAX_RECORD

    def read(self, number: int, into: memoryview) -> int:
        """Fill `into` with the record's data from its beginning; return the record's whole length."""
        length = self.record_length(number)
        wanted = into[: min(length, len(into))]
        try:
            got = positional_io.preadv(self._file, [wanted], (self._map[number] >> 1) + 4) if wanted else 0
        except OSError as error:
            raise BadRecord(f"record {number}: {error}") from error
        if got != len(wanted):
            raise BadRecord(f"record {number} is cut off")
        return length

    def write(self, number: int, data: memoryview, *, encrypted: bool = False) -> None:
        """Write a record as object `number`; everything from there on is gone. OSError leaves the end at `number`.
        `encrypted`: mark it as encrypted."""
        self._cut(number)
        frame = (len(data) | (_ENCRYPTED if encrypted else 0)).to_bytes(4, "little")
        parts: list[bytes | memoryview] = [frame, data, b"\0" + frame if len(data) & 1 else frame]
        size = len(data) + (len(data) & 1) + _FRAME
        self._put(parts, size)
        self._map.append(self._end << 1)
        self._end += size

    def write_filemark(self, number: int) -> None:
        """Write a filemark as object `number`; everything from there on is gone."""
        self._cut(number)
        self._put([_MARK], len(_MARK))
        self._filemarks.append(number)
        self._map.append(self._end << 1 | 1)
        self._end += len(_MARK)

    def erase_from(self, number: int) -> None:
        """Make `number` the end of data."""
        self._cut(number)
        self._dirty = True

    def file_number(self, number: int) -> int:
        """How many filemarks lie before object `number`."""
        return bisect_left(self._filemarks, number)

    def sync(self) -> None:
        """Everything written is on disk when it returns: image, map, and the folder's names for them."""
        self._write_map()
        self._storage.sync_file(self._file, self.path)
        self._storage.sync_file(self._map_file, self._map_path)
        self._storage.sync_folder(self.path.parent)
        self._dirty = False

    def close(self) -> None:
        """Write the map and close. Twice is harmless. A map that cannot be written is made again next time."""
        if self._file >= 0:
            if self._dirty:
                with suppress(OSError):
                    self._write_map()
            os.close(self._file)
            os.close(self._map_file)
            self._file = self._map_file = -1

    def _put(self, parts: list[bytes | memoryview], size: int) -> None:
        self._dirty = True
        written = positional_io.pwritev(self._file, parts, self._end)
        if written != size:
            os.ftruncate(self._file, self._end)
            raise OSError(errno.ENOSPC, "the disk under the virtual cartridge is full", str(self.path))

    def _cut(self, number: int) -> None:
        if number >= len(self._map):
            return
        self._end = self._map[number] >> 1
        # The map is cut before the image: a map that ends early is made whole from the image, never the reverse.
        if self._mapped > number:
            os.ftruncate(self._map_file, number * 8)
            self._mapped = number
        os.ftruncate(self._file, self._end)
        del self._map[number:]
        del self._filemarks[bisect_left(self._filemarks, number) :]
        self._dirty = True

    def _write_map(self) -> None:
        if self._mapped < len(self._map):
            missing = self._map[self._mapped :].tobytes()
            written = positional_io.pwrite(self._map_file, missing, self._mapped * 8)
            self._mapped += written // 8
            if written != len(missing):
                raise OSError(errno.ENOSPC, "the disk under the virtual cartridge is full", str(self._map_path))

    def _load(self) -> None:
        """Take the map as far as it agrees with the image, then walk the rest of the image."""
        size = os.fstat(self._file).st_size
        while chunk := positional_io.pread(self._map_file, _CHUNK * 8, len(self._map) * 8):
            self._map.frombytes(chunk[: len(chunk) // 8 * 8])
            if len(chunk) < _CHUNK * 8:
                break
        previous = -1
        for number, entry in enumerate(self._map):
            if entry >> 1 <= previous or (number == 0 and entry >> 1):
                del self._map[number:]  # no map of this image from here on
                break
            previous = entry >> 1
        while self._map and not self._ends_within(len(self._map) - 1, size):
            self._map.pop()
        self._mapped = len(self._map)
        self._filemarks = [number for number, entry in enumerate(self._map) if entry & 1]
        self._end = self._end_of_last()
        self._walk(size)

    def _end_of_last(self) -> int:
        """Where the last mapped object ends, by its own framing."""
        if not self._map:
            return 0
        offset = self._map[-1] >> 1
        if self._map[-1] & 1:
            return offset + len(_MARK)
        return offset + _size(self._word(offset))

    def _ends_within(self, number: int, size: int) -> bool:
        """Whether the last mapped object is whole within the image."""
        offset, mark = self._map[number] >> 1, self._map[number] & 1
        if offset >= size:
            return False
        if mark:
            return offset + len(_MARK) <= size and positional_io.pread(self._file, 4, offset) == _MARK
        head = self._word(offset)
        stop = offset + _size(head)
        return _is_record(head) and stop <= size and self._word(stop - 4) == head

    def _walk(self, size: int) -> None:
        """Add the objects behind the map that are whole; what is behind the last of them does not count."""
        while self._end + 4 <= size:
            head = self._word(self._end)
            if head == 0:
                self._filemarks.append(len(self._map))
                self._map.append(self._end << 1 | 1)
                self._end += len(_MARK)
                continue
            stop = self._end + _size(head)
            if not _is_record(head) or stop > size or self._word(stop - 4) != head:
                break
            self._map.append(self._end << 1)
            self._end = stop

    def _word(self, offset: int) -> int:
        return int.from_bytes(positional_io.pread(self._file, 4, offset), "little")


def _size(word: int) -> int:
    """Bytes of a record in the image, by its length word."""
    length = word & _MAX_RECORD
    return length + (length & 1) + _FRAME


def _is_record(word: int) -> bool:
    """Whether a length word is one that a drive of ours writes: plain or encrypted, and not empty."""
    return 0 < word & ~_ENCRYPTED <= _MAX_RECORD
