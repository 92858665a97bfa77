"""Which names of a scan are further names of a file that came before."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from capstan.backup.source import FirstName
from capstan.core.files import FileEntry, FileType, scan_key

_HEAD = struct.Struct("<qQ")  # ctime in ns, names still to come; the first name follows


class HardLinks:
    """The first names of files that have more to come. A tree may have millions, so each is one bytes object.

    A file whose ctime is no longer that of its first name has changed since, or another one took its inode number:
    what is stored is not its content, and the name becomes a first name itself.
    """

    def __init__(self, known: Iterable[FirstName] = ()) -> None:
        self._devices: dict[int, dict[int, bytes]] = {}
        for first in known:
            if first.left > 0:
                inodes = self._devices.setdefault(first.device, {})
                inodes[first.inode] = _HEAD.pack(first.ctime_ns, first.left) + first.path

    def meet(self, entry: FileEntry) -> None:
        """Make `entry`, one of several names of its file, a HARDLINK if the first came before; else it is the first."""
        inodes = self._devices.setdefault(entry.device, {})
        known = inodes.pop(entry.inode, None)
        ctime_ns, left, path = entry.ctime_ns, entry.links, entry.path
        if known is not None:
            ctime_ns, left = _HEAD.unpack_from(known)
            path = known[_HEAD.size :]
            if ctime_ns == entry.ctime_ns and path != entry.path:
                entry.type, entry.target, entry.size = FileType.HARDLINK, path, 0
            else:
                ctime_ns, left, path = entry.ctime_ns, entry.links, entry.path
        if left > 1:
            inodes[entry.inode] = _HEAD.pack(ctime_ns, left - 1) + path

    def forget_behind(self, after: bytes | None) -> None:
        """Keep only first names that are not behind the stored path `after`: others will be met again, or are gone."""
        start = None if after is None else scan_key(after)
        for inodes in self._devices.values():
            for inode in [
                inode for inode, known in inodes.items() if start is None or scan_key(known[_HEAD.size :]) > start
            ]:
                del inodes[inode]
