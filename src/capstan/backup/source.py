"""The port to what is backed up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from capstan.core.files import FileEntry
from capstan.core.mounts import Location, MountTable

Inode = tuple[int, int]  # device, inode


@dataclass(frozen=True, slots=True)
class SourceWarning:
    """Trouble with one entry: the backup goes on. `path` is a stored path.

    `code` is stable: `vanished` is certainly not there any more; `unreadable` is there, as far as anybody knows (for a
    directory: with everything that was ever in it); `changed`, `socket`, `unmounted`, `empty`, `xattr`.
    `entry`: what an earlier set knew of it; it goes into the index as unreadable.
    """

    code: str
    path: bytes
    detail: str = ""
    entry: FileEntry | None = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """A stored path that the parent set has and the source has no more. Only a source that compares yields it."""

    path: bytes


@dataclass(frozen=True, slots=True)
class DirectoryAgain:
    """A directory that is as the parent set has it, behind something in it that is stored. It gets no row: it is there
    for stock tar, which would else leave the time of the unpacking on it. Only a source that compares yields it."""

    entry: FileEntry

    @property
    def path(self) -> bytes:
        return self.entry.path


ScanItem = FileEntry | SourceWarning | Deletion | DirectoryAgain


@dataclass(slots=True)
class OpenedFile:
    """A regular file, open for reading. `entry` was made from fstat of `descriptor` before the first byte is read.
    The receiver owns the descriptor and closes it."""

    descriptor: int
    entry: FileEntry


class FirstName(NamedTuple):
    """A file that is stored under `path` already and has more names: `left` of them (its links less those that are
    stored). `ctime_ns` is that of the stored row."""

    device: int
    inode: int
    ctime_ns: int
    left: int
    path: bytes


class Absence(NamedTuple):
    """That something is not there: `above` is the innermost directory towards it that is, and `location` where that is.
    `replaced`: something else than a directory has the name of the next one."""

    above: bytes
    location: Location
    replaced: bool


class BackupSource(Protocol):
    """Yields entries in a stable order: the order of `core.files.scan_key`, depth first; a directory's own entry
    comes with its parent's entries. The same tree gives the same order every time."""

    @property
    def roots(self) -> Sequence[bytes]:
        """Stored paths of what was named to be backed up."""
        ...

    def scan(self, after: bytes | None = None, links: Iterable[FirstName] | None = None) -> Iterator[ScanItem]:
        """Walk the source; memory depends neither on the tree nor on its largest directory, but on the number of files
        with further names.

        The keys of all that is yielded are strictly ascending over all roots together: each path comes once, as an
        entry or as a warning about it. One exception: that the names in a directory could not be read is told where
        its content would stand, behind its own entry, and none of the content is yielded. (Warnings `xattr` come behind
        an entry that is stored all the same, once it was described or opened.)
        `after`: exactly what a whole scan yields behind the entry of this stored path (resume); what lies before is
        not read. It need not be there any more.

        Hard links: the first name met is REGULAR, further ones are HARDLINK with `target` = the first name's stored
        path. `links`: the first names that lie before `after` and whose content is stored, from the set's file index;
        they are read once, at the beginning. Without them a source knows those that its own earlier scans met up to
        `after`, so that a new process stores the content again, which is a waste and never a loss. A file whose ctime
        is not that of its first name is no link to it: it changed since, or has the inode number of one that is gone.
        The extended attributes of REGULAR entries come with `open` or `descriptor`.

        Raises SourceError only when a root as a whole cannot be read: before anything is yielded, unless the root was
        lost later. All else about the source is a warning. StorageFailed when the scan has no room of its own.
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

    def find_absence(self, path: bytes) -> Absence | None:
        """Proves that nothing is under a stored path any more, having looked into the innermost directory on the way to
        it that is there. No link is followed. None where something is under the path. Raises OSError where that cannot
        be looked at.
        """
        ...

    def mounts(self) -> MountTable:
        """The roots, and the mount points below them whose content a scan yields, as they are now. Nothing for what is
        no directory. Raises SourceError when a root cannot be looked at."""
        ...

    def locate(self, path: bytes) -> Location | None:
        """Where the directory at a stored path is; None if there is none. Raises OSError."""
        ...

    def is_bare(self, path: bytes) -> bool:
        """Whether a stored path is a directory with nothing at all in it, excluded names included. Raises OSError."""
        ...
