"""The port to what is backed up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from capstan.core.files import FileEntry


@dataclass(frozen=True, slots=True)
class SourceWarning:
    """Trouble with one entry: the backup goes on. `code` is stable (`unreadable`, `vanished`, `changed`, `socket`,
    `other-filesystem`, `xattr`, …). `stored`: something of it is on tape. `path` is a stored path."""

    code: str
    path: bytes
    detail: str = ""


@dataclass(slots=True)
class OpenedFile:
    """A regular file, open for reading. `entry` was made from fstat of `descriptor` before the first byte is read.
    The receiver owns the descriptor and closes it."""

    descriptor: int
    entry: FileEntry


class BackupSource(Protocol):
    """Yields entries in a stable order: the order of `core.files.scan_key`, depth first; a directory's own entry
    comes with its parent's entries. The same tree gives the same order every time."""

    def scan(self, after: bytes | None = None) -> Iterator[FileEntry | SourceWarning]:
        """Walk the source; memory is bounded by the largest directory, not by the tree.

        `after`: start behind this stored path, without reading what lies before it (resume). Hard links: the first
        name met is REGULAR, further ones are HARDLINK with `target` = the first name's stored path. The extended
        attributes of REGULAR entries come with `open` or `descriptor`.
        Raises SourceError only when a root as a whole cannot be read; all else is a warning.
        """
        ...

    def open(self, entry: FileEntry) -> OpenedFile:
        """Open a REGULAR entry without following links. Raises OSError (the caller makes a warning of it)."""
        ...

    def descriptor(self, entry: FileEntry) -> int:
        """Open a REGULAR entry of a scan as `open` does, without looking whether it is still the same: that is for the
        caller to find with one fstat behind its last read. Fills in `entry.xattrs`. The descriptor is the caller's.
        Raises OSError."""
        ...

    def entry(self, path: bytes) -> FileEntry:
        """The present metadata of one stored path. Raises OSError."""
        ...
