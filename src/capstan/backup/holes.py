"""Finds the holes of an open file, where the system can tell of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace

from capstan.backup.source import OpenedFile
from capstan.file_system import calls
from capstan.format.frames import OpenMember
from capstan.format.sparse import SparseMap
from capstan.format.tar import member_headers, padded

_SEEK_DATA: int | None = getattr(os, "SEEK_DATA", None)
_SEEK_HOLE: int | None = getattr(os, "SEEK_HOLE", None)


def has_holes(descriptor: int, size: int) -> bool:
    """Whether a file of `size` bytes has one. False where the file system cannot tell; moves the file's position."""
    if _SEEK_HOLE is None:
        return False
    try:
        return os.lseek(descriptor, 0, _SEEK_HOLE) < size
    except OSError:
        return False


def find_map(descriptor: int, size: int) -> SparseMap | None:
    """The map of a file that takes less space than its `size`; None when it has no holes, or nobody can tell.

    A file that is changed meanwhile gives a map that fits it at no time: the caller has to look for that behind it.
    """
    now = calls.fstat(descriptor)
    if now.st_size != size or now.st_blocks * 512 >= size or not has_holes(descriptor, size):
        return None
    try:
        found = SparseMap(size, _extents(descriptor, size))
    except OSError:
        return None
    return found if found.has_holes else None


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    assert _SEEK_DATA is not None and _SEEK_HOLE is not None
    end = 0
    while end < size:
        try:
            begin = os.lseek(descriptor, end, _SEEK_DATA)
            end = os.lseek(descriptor, begin, _SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data behind `end`
                return
            raise
        if begin < min(end, size):
            yield begin, min(end, size) - begin


def map_again(member: OpenMember, opened: OpenedFile) -> OpenMember | None:
    """`member`, of which only its row is known, with the map of its file made again; None if it has another by now."""
    entry, sparse = opened.entry, find_map(opened.descriptor, opened.entry.size)
    if sparse is None:
        return None
    entry = replace(entry, stored_bytes=sparse.stored_bytes)
    header_bytes = len(member_headers(entry))
    if header_bytes + padded(sparse.stored_bytes) != member.row.tar_bytes:
        return None
    return replace(member, row=member.row._replace(entry=entry), header_bytes=header_bytes, sparse=sparse)
