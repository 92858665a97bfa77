"""What an earlier run of a restore has left: how the next one knows its own files and directories again.

Nothing is written down for each file. A whole file has its own name, the size and the time of its entry, and a time of
change behind the beginning of the restore: that is proof enough while the machine runs on. After a restart it is not,
because nothing may have reached the disk: then all files of the restore are written again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from capstan.errors import StorageFailed

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """What tells this run of the machine from others; "" where nobody knows."""
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
        """Whether something in the target was put there since: then it is the restore's own."""
        return found.st_ctime_ns >= self.started_ns


class Made(Enum):
    """What became of a directory: it was made on the way to its content, described, or found and left as it is."""

    ON_THE_WAY = b"w"
    DESCRIBED = b"d"
    KEPT = b"k"


@dataclass(slots=True)
class DirectoryJournal:
    """The directories that a restore has met, with what became of each: their times of change say nothing, for what is
    made in a directory moves them. Each is a letter, the stripped path and a NUL, appended as it happens.

    `path` None: nothing is kept. The file goes with `remove`, when the restore has ended well.
    """

    path: Path | None = None
    known: dict[bytes, Made] = field(default_factory=dict)  # of earlier runs
    _file: int = -1

    @classmethod
    def read(cls, path: Path) -> DirectoryJournal:
        """With what earlier runs have written; a torn end is dropped."""
        journal = cls(path)
        content = path.read_bytes() if path.exists() else b""
        for record in content.split(b"\0")[:-1]:
            journal.known[record[1:]] = Made(record[:1])
        return journal

    def note(self, directory: bytes, made: Made) -> None:
        """StorageFailed when it cannot be written."""
        if self.path is None:
            return
        try:
            if self._file < 0:
                self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(self._file, made.value + directory + b"\0")
        except OSError as error:
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
