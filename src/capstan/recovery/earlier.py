"""What an earlier run of a restore has left: how the next one knows its own files and directories again.

Nothing is written down for each file. A whole file has its own name, the size and the time of its entry, and a time of
change behind the beginning of the restore: that is proof enough while the machine runs on, and what differs was changed
by somebody since. After a restart it is none, because nothing may have reached the disk: then all that was made since
the beginning is written again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from capstan.core.files import FileEntry, FileType
from capstan.errors import StorageFailed

_FORMATS = {
    FileType.REGULAR: stat.S_IFREG,
    FileType.SYMLINK: stat.S_IFLNK,
    FileType.FIFO: stat.S_IFIFO,
    FileType.CHARACTER: stat.S_IFCHR,
    FileType.BLOCK: stat.S_IFBLK,
}
_COARSEST_NS = 2_000_000_000  # the steps in which FAT keeps times; it cuts off the rest

_PIECE = 1 << 20  # of a journal, read at once

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """What tells this run of the machine from others; "" where nobody knows."""
    if os.name != "posix":
        return ""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """`started_ns`: when the restore began, by the wall clock. `trusted`: the machine has run ever since."""

    started_ns: int
    trusted: bool

    def made(self, found: os.stat_result) -> bool:
        """Whether something in the target was made or changed since."""
        return found.st_ctime_ns >= self.started_ns

    def wrote(self, found: os.stat_result, entry: FileEntry) -> bool:
        """Whether what is found in the place of an entry that is no directory is the restore's own, whole if `trusted`.

        After a restart it may be torn, so what it looks like says nothing.
        """
        if stat.S_ISDIR(found.st_mode) or not self.made(found):
            return False
        return not self.trusted or _is_like(found, entry)


def _is_like(found: os.stat_result, entry: FileEntry) -> bool:
    """Type, time and size; a hard link is of any type, and its size stands with its first name."""
    if not 0 <= entry.mtime_ns - found.st_mtime_ns < _COARSEST_NS:
        return False
    if entry.type is FileType.HARDLINK:
        return True
    if stat.S_IFMT(found.st_mode) != _FORMATS[entry.type]:
        return False
    return entry.type is not FileType.REGULAR or found.st_size == entry.size


class Made(Enum):
    """What became of a directory: it was made on the way to its content, described, or found and left as it is. Of
    files only those are KEPT that others are linked to: a link moves their time of change."""

    ON_THE_WAY = b"w"
    DESCRIBED = b"d"
    KEPT = b"k"


_LETTERS = frozenset(made.value for made in Made)


@dataclass(slots=True)
class DirectoryJournal:
    """The directories that a restore has met, with what became of each: their times of change say nothing, for what is
    made in a directory moves them. Each is a letter, the stripped path and a NUL, appended as it happens.

    `path` None: nothing is kept. The file goes with `remove`, when the restore has ended well. It is not synced: a
    death of the process costs nothing of it, a restart of the machine perhaps its end.
    """

    path: Path | None = None
    known: dict[bytes, Made] = field(default_factory=dict)  # of earlier runs
    _size: int = 0  # of the file, up to the end of its last record
    _file: int = -1

    @classmethod
    def read(cls, path: Path) -> DirectoryJournal:
        """With what earlier runs have written; from the first record that is none on, it is dropped. StorageFailed when
        it cannot be read."""
        journal = cls(path)
        try:
            with path.open("rb") as file:
                for record in _records(file):
                    if len(record) < 2 or record[:1] not in _LETTERS:
                        break  # a file system may fill what did not reach the disk with zeros
                    journal.known[record[1:]] = Made(record[:1])
                    journal._size += len(record) + 1
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StorageFailed(path=path, reason=error.strerror or str(error)) from error
        return journal

    def note(self, directory: bytes, made: Made) -> None:
        """StorageFailed when it cannot be written; then it ends where it ended."""
        if self.path is None:
            return
        record = made.value + directory + b"\0"
        try:
            if self._file < 0:
                self._file = os.open(
                    self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600
                )
                os.ftruncate(self._file, self._size)
            if os.write(self._file, record) != len(record):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size += len(record)
        except OSError as error:
            self.close()  # what was written of the record is cut off when the file is opened again
            raise StorageFailed(path=self.path, reason=error.strerror or str(error)) from error

    def close(self) -> None:
        """Twice is harmless."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        """It is of no use any more."""
        self.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _records(file: BinaryIO) -> Iterator[bytes]:
    """All that are ended by a NUL."""
    rest = b""
    while piece := file.read(_PIECE):
        *records, rest = (rest + piece).split(b"\0")
        yield from records
