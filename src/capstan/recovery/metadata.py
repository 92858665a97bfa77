"""Puts owner, attributes, mode and times on what was restored; what cannot be put is told, by code."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from capstan import file_system
from capstan.core.files import FileEntry, FileType
from capstan.file_system import calls
from capstan.recovery.target import Tell

# What a system or a file system answers when it cannot or must not take something; anything else is a failure.
_REFUSED = frozenset(
    {
        *(errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS),
        *(errno.E2BIG, errno.ERANGE, errno.ENOSPC, errno.ENODATA),  # of an attribute: no room for its value
    }
)
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")


def apply_to_descriptor(descriptor: int, entry: FileEntry, tell: Tell) -> None:
    """Put everything on an open file or directory that this process has made, or may change.

    The order matters. A change of owner clears setuid and capabilities. Attributes can only be set while the file may
    be written, and the mode is to be that of the entry whatever an access control list made of it. Times come last.
    """
    mode = apply_owner_and_attributes(descriptor, entry, tell)
    _mode_and_times(descriptor, mode, entry, tell)


def apply_owner_and_attributes(descriptor: int, entry: FileEntry, tell: Tell) -> int:
    """Put what does not change with what is made in a directory; returns the mode that goes with the owner it has."""
    mode = _owned(lambda uid, gid: calls.fchown(descriptor, uid, gid), lambda: calls.fstat(descriptor), entry, tell)
    _attributes(descriptor, entry, tell)
    return mode


def apply_mode_and_times(descriptor: int, entry: FileEntry, tell: Tell) -> None:
    """Put the rest on a directory whose owner and attributes are there."""
    _mode_and_times(descriptor, _mode_of(calls.fstat(descriptor), entry), entry, tell)


def _mode_and_times(descriptor: int, mode: int, entry: FileEntry, tell: Tell) -> None:
    with _Refusal("mode", "the mode", entry, tell):
        calls.fchmod(descriptor, mode)
    with _Refusal("times", "the time", entry, tell):
        calls.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))


def apply_to_name(directory: int, name: bytes, entry: FileEntry, tell: Tell, *, link: bool) -> None:
    """The same for what is not opened: symbolic links (which have no mode), FIFOs and devices."""
    mode = _owned(
        lambda uid, gid: calls.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False),
        lambda: calls.stat(name, dir_fd=directory, follow_symlinks=False),
        entry,
        tell,
    )
    # There is no call that takes a directory's descriptor and a name for attributes.
    _attributes(file_system.by_descriptor(directory, name), entry, tell)
    if not link:
        with _Refusal("mode", "the mode", entry, tell):
            calls.chmod(name, mode, dir_fd=directory)
    with _Refusal("times", "the time", entry, tell):
        calls.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=directory, follow_symlinks=False)


def _owned(
    chown: Callable[[int, int], None], status: Callable[[], os.stat_result], entry: FileEntry, tell: Tell
) -> int:
    """Set the owner, or the group alone; returns the mode that goes with the owner there is.

    Setuid and setgid would give away the rights of somebody who never had this file: they go with the right owner only.
    """
    try:
        chown(entry.uid, entry.gid)
        return entry.mode
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        reason = error.strerror
    with suppress(OSError):
        chown(-1, entry.gid)
    found = status()
    mode = _mode_of(found, entry)
    if (found.st_uid, found.st_gid) != (entry.uid, entry.gid):
        tell("owner", entry.path, f"owner {entry.uid}:{entry.gid} was not restored: {reason}")
    if mode != entry.mode and entry.type is not FileType.SYMLINK:
        tell("mode", entry.path, "setuid and setgid were not restored: the owner is another")
    return mode


def _mode_of(found: os.stat_result, entry: FileEntry) -> int:
    """The mode of the entry, as far as it may be given to whom the file belongs now."""
    mode = entry.mode
    if found.st_uid != entry.uid:
        mode &= ~stat.S_ISUID
    if found.st_gid != entry.gid:
        mode &= ~stat.S_ISGID
    return mode


def _attributes(file: int | bytes, entry: FileEntry, tell: Tell) -> None:
    if not hasattr(calls, "setxattr"):
        for name, _ in entry.xattrs:
            tell("xattr", entry.path, f"attribute {_shown(name)} was not restored: this system has none")
        return
    follow = isinstance(file, int)  # a descriptor is what it is
    names = {name for name, _ in entry.xattrs}
    for acl in _ACLS[: 2 if entry.type is FileType.DIRECTORY else 1]:
        if follow and acl not in names:
            with suppress(OSError):  # what was inherited from a directory of the target is not the file's own
                calls.removexattr(file, acl)
    # Access control lists come last: with one, the file may be no longer writable.
    for name, value in sorted(entry.xattrs, key=lambda attribute: attribute[0] in _ACLS):
        with _Refusal("xattr", f"attribute {_shown(name)}", entry, tell):
            calls.setxattr(file, name, value, follow_symlinks=follow)


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


class _Refusal:
    """Makes a warning of what the target refuses in its block; other errors go on."""

    def __init__(self, code: str, what: str, entry: FileEntry, tell: Tell) -> None:
        self._code = code
        self._what = what
        self._entry = entry
        self._tell = tell

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, OSError) or error.errno not in _REFUSED:
            return False
        self._tell(self._code, self._entry.path, f"{self._what} was not restored: {error.strerror}")
        return True
