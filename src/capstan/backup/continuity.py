"""Whether a source is still what it was: for the set that builds on another, and for one that goes on in its middle."""

from __future__ import annotations

from collections.abc import Callable

from capstan.backup.source import BackupSource
from capstan.core.files import display_path, is_below, scan_key
from capstan.core.mounts import Mounted, MountTable
from capstan.errors import SourceError

_PASSING = ("overlay ", "ramfs ", "squashfs ", "tmpfs ")


def mounts_on_top_of(source: BackupSource, before: MountTable, holds: Callable[[bytes], bool]) -> MountTable:
    """The mounts of a new set on top of one with the mounts `before`: those of now, and what is absent of the others.
    `holds`: whether the state of that one has anything below a path. Raises SourceError."""
    now = source.mounts()
    absent = [item for item in before if _is_absent(source, item)]
    for item in now:
        was = before.locate(item.path)
        if was not in (None, item.location) and before.at(item.path) is None and holds(item.path):
            absent.append(Mounted(item.path, was))  # another file system lies over it
    return before.carried_on(now, absent)


def _is_absent(source: BackupSource, item: Mounted) -> bool:
    """Whether what was mounted there is not, and may come back: a file can be in its place for good."""
    try:
        return source.locate(item.path) != item.location and not _is_file(source, item.path)
    except OSError:
        return True


def _is_file(source: BackupSource, path: bytes) -> bool:
    return source.locate(path) is None and source.find_absence(path) is None


def check_same_source(source: BackupSource, mounts: MountTable, after: bytes) -> list[Mounted]:
    """Look again at what was mounted when a set with these `mounts` was begun, before it goes on behind `after`.

    Raises SourceError when a root is another directory now, or another file system is at a mount point, or none any
    more: the set would be called whole, and what it should hold of that would be missing. What was stored whole before
    does not matter any more. Returns mount points of which that is true, but which come and go by their nature, as
    those of containers do.
    """
    gone: list[Mounted] = []
    if not mounts:
        return gone  # the set was begun by a version that did not note them
    if mounts.roots != frozenset(source.roots):
        [first, *_] = sorted(mounts.roots ^ frozenset(source.roots))
        reason = "the sources lead elsewhere than when this backup began"
        raise SourceError(path="/" + display_path(first), reason=reason)
    for item in mounts:
        if item.absent or _is_done(item.path, after):
            continue
        try:
            same = source.locate(item.path) == item.location or _is_file(source, item.path)
        except OSError:
            same = False
        if not same and not item.is_root and item.location.file_system.startswith(_PASSING):
            gone.append(item)
        elif not same:
            reason = "the file system that was there when this backup began is not, or another one"
            raise SourceError(path="/" + display_path(item.path), reason=reason)
    return gone


def _is_done(path: bytes, after: bytes) -> bool:
    """Whether all that lies below a path comes before `after`, or at it."""
    inside = path.replace(b"/", b"\0")
    return scan_key(after)[0] > inside and not is_below(after, path)
