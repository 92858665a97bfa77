"""Which file systems a parent set lay in, by the devices of its directories, and which numbers these have now."""

from __future__ import annotations

from capstan.core.files import FileEntry, FileType


class FileSystems:
    """Learns from the rows of the parent's state, which come in scan order. Memory grows with mount points only.

    Directories say where something lies: a file in an overlay may have the device of a layer. A device's number may be
    another after each mount, the inode number of a directory stays.
    """

    def __init__(self) -> None:
        self._mounts: dict[bytes, int] = {}  # directories that lie in another file system than the one around them
        self._now: dict[int, int] = {}
        self._last: tuple[bytes, int | None] = (b"", None)

    def note(self, entry: FileEntry) -> None:
        """Take in a row of the parent."""
        if entry.type is FileType.DIRECTORY and entry.device != self._around(entry.path):
            self._mounts[entry.path] = entry.device

    def is_top(self, path: bytes) -> bool:
        """Whether a stored path was a directory where a file system began."""
        return path in self._mounts

    def recognise(self, old: FileEntry, now: FileEntry) -> None:
        """Compare a directory of the parent with what is there now. What was learned of a device first is kept."""
        if old.type is now.type is FileType.DIRECTORY and old.inode == now.inode:
            self._now.setdefault(old.device, now.device)

    def device_of(self, entry: FileEntry) -> int:
        """The number that the file system of a row of the parent should have now."""
        device = entry.device if entry.type is FileType.DIRECTORY else self._around(entry.path)
        device = entry.device if device is None else device
        return self._now.get(device, device)

    def _around(self, path: bytes) -> int | None:
        """The device of the directory that a stored path lies in, then."""
        directory = above = path.rpartition(b"/")[0]
        if self._last[0] != directory or self._last[1] is None:
            while above and above not in self._mounts:
                above = above.rpartition(b"/")[0]
            self._last = directory, self._mounts.get(above)
        return self._last[1]


def is_elsewhere(now: FileEntry, old: FileEntry) -> bool:
    """Whether a directory lies in another file system than it did: something was mounted there, or is not any more.

    A file system that is mounted again may have another device number, but its directories keep their inodes.
    """
    return now.type is old.type is FileType.DIRECTORY and now.device != old.device and now.inode != old.inode
