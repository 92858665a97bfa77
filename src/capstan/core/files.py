"""One entry of a file system, from source to tape to target.

Paths are bytes. A *stored path* is what a tar member is called: the absolute path without its leading slash
(`srv/data/report`), components divided by b"/" on every system.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag, StrEnum
from typing import NamedTuple


class FileType(StrEnum):
    """Kinds of entries; the value is what the file index holds."""

    REGULAR = "file"
    DIRECTORY = "dir"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"  # a further name of a file stored earlier in the same set
    FIFO = "fifo"
    CHARACTER = "char"
    BLOCK = "block"


class FileFlag(IntFlag):
    """What is special about a row of the file index. Values are written on tape: never renumber."""

    NONE = 0
    CHANGED = 1  # changed while it was read: what is stored may mix two states; taken again next time
    DAMAGED = 2  # the rest was filled with zeros; a whole copy follows later in the set
    CONTINUES = 4  # the member was not finished when this index was written; a later index has the whole row
    UNREADABLE = 8  # nothing is stored: it was there and could not be read; never to be taken for deleted
    SPARSE = 16  # stored without its holes: a map, then the data (docs/design/tape-format.md, 3.6)


@dataclass(slots=True)
class FileEntry:
    """Metadata of one entry. Sizes in bytes, times in nanoseconds since the epoch, `mode` the 12 permission bits."""

    path: bytes
    type: FileType
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int = 0
    device: int = 0
    inode: int = 0
    links: int = 1
    owner: str = ""
    group: str = ""
    target: bytes = b""  # of a symlink: its text; of a hard link: the stored path of the first name
    rdev_major: int = 0
    rdev_minor: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    stored_bytes: int = -1  # of content in the stream, where that is not `size`: it is stored without its holes


class Row(NamedTuple):
    """One row of the file index: a member of the stream. `flags` are `FileFlag`; `sha256` is None where there is no
    content (or the member has not ended)."""

    entry: FileEntry
    tar_offset: int
    tar_bytes: int
    sha256: bytes | None
    flags: int = 0


def display_path(path: bytes) -> str:
    """The form for people, JSON and the file index: UTF-8, with each byte that is not as `\\xNN`."""
    return path.decode("utf-8", "backslashreplace")


def scan_key(path: bytes) -> tuple[bytes, bytes]:
    """The order in which a source is scanned, a set is written and a file index is sorted.

    All entries of a directory stand together, by name; then each of its subdirectories follows, depth first.
    Python's tuple order of this key is that order for the *directories*; compare keys, never paths.
    """
    directory, _, name = path.rpartition(b"/")
    return directory.replace(b"/", b"\0"), name


def is_below(path: bytes, above: bytes) -> bool:
    """Whether a stored path lies below another, in whatever depth."""
    return path.startswith(above + b"/") or (not above and bool(path))
