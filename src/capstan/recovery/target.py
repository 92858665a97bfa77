"""The port to where files are restored to."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from capstan.core.files import FileEntry


class Placement(Enum):
    """What became of one entry."""

    WRITTEN = "written"
    SKIPPED = "skipped"  # something is there, and the conflicts policy keeps it


# How a target says what it could not take: code (`owner`, `mode`, `xattr`, `times`, `device`, `directory`), stored
# path, detail. There may be millions: whoever hears them counts, and keeps some.
Tell = Callable[[str, bytes, str], None]


class FileSink(Protocol):
    """One regular file being written under a temporary name. Exactly one of `commit` and `abort` ends it."""

    def write(self, data: memoryview) -> None: ...

    def hole(self, length: int) -> None:
        """`length` bytes of zeros that need no space."""
        ...

    def commit(self) -> None:
        """Apply the metadata and give it its own name. On TargetError nothing is left under that name."""
        ...

    def abort(self) -> None:
        """Remove the temporary file. Harmless twice, and after `commit`."""
        ...


class RecoveryTarget(Protocol):
    """Takes entries in any order. A directory that comes behind its content was made on the way, and is described then.

    Never writes outside its root, whatever paths, links or `..` it is given: such an entry raises TargetError.
    Metadata that cannot be applied is told (`Tell`) and never an error. That of directories is applied by `finish`.
    """

    def restored(self, entry: FileEntry) -> bool:
        """Whether an earlier run of this very restore has put this entry there, whole; then it is not given again.

        Never for what was there before that run, nor for what somebody has changed since. Without an earlier run:
        never. A directory that it has described gets its mode and times once more from `finish`. What that run was
        writing in the directory of the entry when it died is removed.
        """
        ...

    def directory(self, entry: FileEntry) -> Placement: ...

    def symlink(self, entry: FileEntry) -> Placement: ...

    def special(self, entry: FileEntry) -> Placement:
        """FIFO, character or block device."""
        ...

    def hardlink(self, entry: FileEntry, first: bytes) -> Placement:
        """Make `entry.path` a further name of the stored path `first`, which was written in this restore."""
        ...

    def whole_file(self, entry: FileEntry, data: memoryview) -> Placement:
        """A small regular file whose digest is already verified, in one call."""
        ...

    def open_file(self, entry: FileEntry) -> FileSink | None:
        """A sink for a large regular file; None when the conflicts policy keeps what is there."""
        ...

    def finish(self, *, whole: bool = True) -> None:
        """Apply what was deferred, and sync everything. `whole` False: something is missing that a later run may
        restore, so what is kept for that one stays.

        TargetError when something may not have reached the disk: what is kept for a later run stays, and that one must
        not trust anything that this one has written."""
        ...

    def close(self) -> None:
        """Release descriptors; remove temporary files. Twice is harmless."""
        ...
