"""Directories whose mode and times are put on at the end: what is made in one changes them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from capstan.core.files import FileEntry, FileType

_HEAD = struct.Struct("<HIIq")  # mode, uid, gid, mtime in ns; the stored path follows where it is another


class DeferredDirectories:
    """By their stripped paths. A restore may meet millions, so what is kept of each is one bytes object."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def __contains__(self, path: bytes) -> bool:
        return path in self._known

    def add(self, path: bytes, entry: FileEntry) -> None:
        """The entry of `path` from now on."""
        head = _HEAD.pack(entry.mode, entry.uid, entry.gid, entry.mtime_ns)
        if entry.path == path:
            self._known[entry.path] = head  # the key is the path that others keep too
        else:
            self._known[path] = head + entry.path

    def take(self) -> Iterator[tuple[bytes, FileEntry]]:
        """All of them with owner, mode and time, each behind those in it; then there are none."""
        for path in sorted(self._known, reverse=True):
            known = self._known[path]
            mode, uid, gid, mtime_ns = _HEAD.unpack_from(known)
            yield path, FileEntry(known[_HEAD.size :] or path, FileType.DIRECTORY, mode, uid, gid, 0, mtime_ns)
        self._known.clear()
