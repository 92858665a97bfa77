"""Puts owner, mode, attributes and times on what was restored; what cannot be put is told, by code."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from capstan.core.files import FileEntry

Tell = Callable[[str, bytes, str], None]  # code, stored path, detail


def apply_to_descriptor(descriptor: int, entry: FileEntry, tell: Tell) -> None:
    """Owner first (a change of owner clears setuid and capabilities), then mode, attributes, and last the times."""
    try:
        os.fchown(descriptor, entry.uid, entry.gid)
    except PermissionError:
        found = os.fstat(descriptor)
        if (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
            tell("owner", entry.path, f"owner {entry.uid}:{entry.gid} was not restored: not permitted")
    os.fchmod(descriptor, entry.mode)
    for name, value in entry.xattrs:
        _attribute(descriptor, name, value, entry, tell)
    os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))


def apply_to_name(directory: int, name: bytes, entry: FileEntry, tell: Tell, *, link: bool) -> None:
    """The same for what is not opened: symbolic links (which have no mode), FIFOs and devices."""
    try:
        os.chown(name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
    except PermissionError:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
            tell("owner", entry.path, f"owner {entry.uid}:{entry.gid} was not restored: not permitted")
    if not link:
        os.chmod(name, entry.mode, dir_fd=directory)
    os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=directory, follow_symlinks=False)


def _attribute(descriptor: int, name: bytes, value: bytes, entry: FileEntry, tell: Tell) -> None:
    try:
        os.setxattr(descriptor, name, value)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL):
            shown = name.decode("utf-8", "backslashreplace")
            tell("xattr", entry.path, f"attribute {shown} was not restored: {error.strerror}")
        else:
            raise
