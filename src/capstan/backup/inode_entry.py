"""What the kernel says about an inode, as an entry."""

from __future__ import annotations

import errno
import os
import stat
from functools import lru_cache

from capstan import file_system
from capstan.core.files import FileEntry, FileType
from capstan.file_system import calls

if os.name == "posix":
    import grp
    import pwd

Xattrs = tuple[tuple[bytes, bytes], ...]

_TYPES = {
    stat.S_IFREG: FileType.REGULAR,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFLNK: FileType.SYMLINK,
    stat.S_IFIFO: FileType.FIFO,
    stat.S_IFCHR: FileType.CHARACTER,
    stat.S_IFBLK: FileType.BLOCK,
}


def entry_of(path: bytes, found: os.stat_result) -> FileEntry | None:
    """The entry of a stat result; None for what is never stored (sockets). Link text and attributes are not in it."""
    mode = found.st_mode
    kind = _TYPES.get(stat.S_IFMT(mode))
    if kind is None:
        return None
    device = kind in (FileType.CHARACTER, FileType.BLOCK)
    return FileEntry(
        path,
        kind,
        stat.S_IMODE(mode),
        found.st_uid,
        found.st_gid,
        found.st_size if kind is FileType.REGULAR else 0,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_dev,
        found.st_ino,
        found.st_nlink,
        _owner(found.st_uid),
        _group(found.st_gid),
        b"",
        os.major(found.st_rdev) if device else 0,
        os.minor(found.st_rdev) if device else 0,
    )


def read_xattrs(file: bytes | int, unread: list[str]) -> Xattrs:
    """Extended attributes of a path or descriptor, ACLs and capabilities among them, sorted by name; () where there
    are none. By descriptor it costs a third. What cannot be read is appended to `unread`, with the reason."""
    if file_system.find_streams is not None:
        unread += file_system.find_streams(file)
    if not hasattr(calls, "listxattr"):
        return ()
    follow = isinstance(file, int)  # a descriptor is what it is
    try:
        names = calls.listxattr(file, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOENT):  # there are none; it is gone, which others will see
            unread.append(f"all attributes ({error.strerror})")
        return ()
    if not names:
        return ()
    found = []
    for name in sorted(os.fsencode(name) for name in names):
        try:
            found.append((name, calls.getxattr(file, name, follow_symlinks=follow)))
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOENT):  # it was taken away just now
                unread.append(f"{name.decode('utf-8', 'backslashreplace')} ({error.strerror})")
    return tuple(found)


@lru_cache(maxsize=4096)
def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, NameError):
        return ""


@lru_cache(maxsize=4096)
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, NameError):
        return ""
