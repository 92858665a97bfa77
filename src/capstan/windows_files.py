r"""The calls of POSIX on files and directories, as far as Windows has something like them, with the signatures of `os`.

A path is a stored path with a `/` before it, or a name relative to `dir_fd`, a descriptor that `open` or `dup` gave; or
text, which is a path of Windows. A directory that is open here cannot be renamed or replaced, nor can those above it,
so that a path through it leads nowhere else. Links and junctions are never followed, and are always opened themselves.
Errors are OSErrors of Windows, with its text.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat as modes
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from capstan import win32
from capstan.windows_paths import native_path, stored_path

_HANDLE, _DWORD, _TEXT, _POINTER, _BOOL = (
    *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_wchar_p, ctypes.c_void_p, ctypes.c_int),
)
_READ_ATTRIBUTES, _LIST, _SYNCHRONIZE = 0x80, 0x1, 0x10_0000
_GENERIC_READ, _GENERIC_WRITE = 0x8000_0000, 0x4000_0000
_SHARE_ALL, _SHARE_DATA = 7, 3  # with the latter, nobody renames or removes it meanwhile
_CREATE_NEW, _OPEN_EXISTING = 1, 3
_BACKUP_SEMANTICS, _OPEN_REPARSE_POINT, _SEQUENTIAL = 0x0200_0000, 0x0020_0000, 0x0800_0000
_EPOCH = 116_444_736_000_000_000  # 1970-01-01 in units of 100 ns since 1601 (FILETIME)
READONLY, _DIRECTORY, _REPARSE = 0x1, 0x10, 0x400
_TAG_LINK, _TAG_JUNCTION = 0xA000_000C, 0xA000_0003

O_DIRECTORY = 1 << 30  # a flag that Windows does not have

Path = bytes | str
# What each descriptor was opened by: a path of Windows, or the stored path of what lies above the drives. The system
# does not always tell (Wine knows no more than 260 characters). An entry counts until its number is given out again.
_paths: dict[int, str | bytes] = {}


@dataclass(frozen=True, slots=True)
class WindowsStat:
    """What `os.stat_result` says, of Windows' own knowledge: `st_ctime_ns` is the time of change, as on POSIX, and
    `created_ns` that of creation. `attributes` as Windows has them; `tag` of a reparse point."""

    st_mode: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_dev: int
    st_ino: int
    st_nlink: int
    attributes: int = 0
    created_ns: int = 0
    tag: int = 0
    st_uid: int = 0
    st_gid: int = 0
    st_rdev: int = 0

    @property
    def st_blocks(self) -> int:
        """As if there were no holes: nobody looks for them here."""
        return -(-self.st_size // 512)


_TOP = WindowsStat(modes.S_IFDIR | 0o755, 0, 0, 0, 0, 1, 1)


# ── paths ─────────────────────────────────────────────────────────────────────────────────────────────


def locate(path: Path, dir_fd: int | None = None) -> str | None:
    """The path of Windows; None for what lies above the drives. OSError."""
    if isinstance(path, str):
        return path
    if dir_fd is None:
        return native_path(path.strip(b"/"))
    above = _paths[dir_fd]
    if isinstance(above, bytes):
        return native_path(b"/".join(filter(None, (above, path.strip(b"/")))))
    if path in (b".", b""):
        return above
    native_path(b"C/" + path)  # refuses what can be no name
    return above.rstrip("\\") + "\\" + path.decode("utf-8", "surrogatepass").replace("/", "\\")


def path_of(descriptor: int) -> str:
    """The path of an open file or directory. PermissionError for what lies above the drives."""
    path = _paths[descriptor]
    return must(path if isinstance(path, str) else None)


def dup(descriptor: int) -> int:
    """Another descriptor of the same."""
    copy = os.dup(descriptor)
    _paths[copy] = _paths[descriptor]
    return copy


def real_path(name: bytes) -> bytes:
    """The stored path of what was named, relative to the current directory perhaps: links above it resolved, names as
    they are spelled on the disk. OSError, ValueError."""
    text = os.path.abspath(os.fsdecode(name))  # noqa: PTH100 (text)
    above, last = os.path.split(text)
    if not last:
        return stored_path(os.path.realpath(text))
    return stored_path(os.path.join(os.path.realpath(above), spelled(text) or last))  # noqa: PTH118 (text)


def spelled(path: Path, dir_fd: int | None = None) -> str:
    """The last name of a path as it is spelled on the disk; "" when nothing is there."""
    native = locate(path, dir_fd)
    find = win32.function("kernel32", "FindFirstFileW", _HANDLE, _TEXT, _POINTER)
    data = ctypes.create_string_buffer(592)  # WIN32_FIND_DATAW
    handle = find(native, data) if native else None
    if handle in (None, win32.INVALID_HANDLE):
        return ""
    win32.function("kernel32", "FindClose", _BOOL, _HANDLE)(handle)
    return data.raw[44 : 44 + 520].decode("utf-16-le", "surrogatepass").partition("\0")[0]


def is_virtual(descriptor: int) -> bool:
    """Whether it is of what lies above the drives."""
    return isinstance(_paths.get(descriptor), bytes)


# ── looking ───────────────────────────────────────────────────────────────────────────────────────────


def stat(path: Path, *, dir_fd: int | None = None, follow_symlinks: bool = False) -> WindowsStat:
    native = locate(path, dir_fd)
    if native is None:
        return _TOP
    with opened(native, _READ_ATTRIBUTES) as handle:
        return _status(handle, native)


def fstat(descriptor: int) -> WindowsStat:
    if is_virtual(descriptor):
        return _TOP
    return _status(_handle(descriptor), f"descriptor {descriptor}")


@contextlib.contextmanager
def scandir(descriptor: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """The names in an open directory. What lies above the drives has none: nobody can name all shares."""
    if is_virtual(descriptor):
        yield iter(())
        return
    with os.scandir(path_of(descriptor)) as found:
        yield found


def readlink(path: Path, *, dir_fd: int | None = None) -> bytes:
    """The text of a link or junction, with `/` between names."""
    text = os.readlink(must(locate(path, dir_fd)))  # noqa: PTH115 (text)
    return text.removeprefix("\\\\?\\").replace("\\", "/").encode("utf-8", "surrogatepass")


# ── opening ───────────────────────────────────────────────────────────────────────────────────────────


def open(path: Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """A descriptor of a directory with O_DIRECTORY, else of a file; it follows no link."""
    return _open_directory(path, dir_fd) if flags & O_DIRECTORY else _open_file(path, flags, dir_fd)


def _open_directory(path: Path, dir_fd: int | None) -> int:
    """A descriptor of a directory; NotADirectoryError for a link or junction to one."""
    native = locate(path, dir_fd)
    if native is None:
        assert isinstance(path, bytes)
        above = b"" if dir_fd is None else _paths[dir_fd]
        assert isinstance(above, bytes)
        descriptor = os.open(os.devnull, os.O_RDONLY)
        _paths[descriptor] = b"/".join(filter(None, (above, path.strip(b"/"))))
        return descriptor
    access = _LIST | _READ_ATTRIBUTES | _SYNCHRONIZE
    descriptor = _open(native, access, _OPEN_EXISTING, _OPEN_REPARSE_POINT, _SHARE_DATA)
    if not modes.S_ISDIR(fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotADirectoryError(errno.ENOTDIR, "it is not a directory", native)
    return descriptor


def _open_file(path: Path, flags: int, dir_fd: int | None) -> int:
    """A descriptor of a regular file: with O_CREAT a new one, to be written; else one that is read from its beginning
    to its end. Others may read, write, rename and remove it meanwhile."""
    native = must(locate(path, dir_fd))
    if flags & os.O_CREAT:
        return _open(native, _GENERIC_READ | _GENERIC_WRITE, _CREATE_NEW, 0)
    with opened(native, _READ_ATTRIBUTES) as handle:
        if modes.S_ISLNK(_status(handle, native).st_mode):
            raise OSError(errno.ELOOP, "it is a link", native)
    return _open(native, _GENERIC_READ, _OPEN_EXISTING, _SEQUENTIAL)


# ── how ───────────────────────────────────────────────────────────────────────────────────────────────


def must(native: str | None) -> str:
    if native is None:
        raise PermissionError(errno.EACCES, "it lies above the drives")
    return native


def _handle(descriptor: int) -> int:
    import msvcrt

    get: Any = vars(msvcrt)["get_osfhandle"]
    return get(descriptor)  # type: ignore[no-any-return]


def _open(native: str, access: int, how: int, flags: int, share: int = _SHARE_ALL) -> int:
    import msvcrt

    handle = _create(native, access, how, flags, share)
    take: Any = vars(msvcrt)["open_osfhandle"]
    descriptor: int = take(handle, os.O_RDONLY if access == _GENERIC_READ else os.O_RDWR)
    _paths[descriptor] = native
    return descriptor


def _create(native: str, access: int, how: int, flags: int, share: int) -> int:
    create = win32.function(
        "kernel32", "CreateFileW", _HANDLE, _TEXT, _DWORD, _DWORD, _POINTER, _DWORD, _DWORD, _HANDLE
    )
    handle = create(native, access, share, None, how, flags | _BACKUP_SEMANTICS, None)
    if handle in (None, win32.INVALID_HANDLE):
        raise win32.os_error(native)
    return handle  # type: ignore[no-any-return]


@contextlib.contextmanager
def opened(native: str, access: int) -> Iterator[int]:
    handle = _create(native, access, _OPEN_EXISTING, _OPEN_REPARSE_POINT, _SHARE_ALL)
    try:
        yield handle
    finally:
        win32.function("kernel32", "CloseHandle", _BOOL, _HANDLE)(handle)


def _status(handle: int, path: str) -> WindowsStat:
    known = ctypes.create_string_buffer(52)  # BY_HANDLE_FILE_INFORMATION
    if not win32.function("kernel32", "GetFileInformationByHandle", _BOOL, _HANDLE, _POINTER)(handle, known):
        raise win32.os_error(path)
    attributes, volume = struct.unpack_from("<I24xI", known.raw)
    high, low, links, index_high, index_low = struct.unpack_from("<5I", known.raw, 32)
    more = win32.function("kernel32", "GetFileInformationByHandleEx", _BOOL, _HANDLE, ctypes.c_int, _POINTER, _DWORD)
    basic = ctypes.create_string_buffer(40)  # FILE_BASIC_INFO
    if not more(handle, 0, basic, 40):
        raise win32.os_error(path)
    created, _, modified, changed = struct.unpack_from("<4q", basic.raw)
    tag = 0
    if attributes & _REPARSE:
        tagged = ctypes.create_string_buffer(8)  # FILE_ATTRIBUTE_TAG_INFO
        if more(handle, 9, tagged, 8):
            tag = struct.unpack_from("<4xI", tagged.raw)[0]
    if tag in (_TAG_LINK, _TAG_JUNCTION):
        mode = modes.S_IFLNK | 0o777
    else:
        mode = modes.S_IFDIR | 0o755 if attributes & _DIRECTORY else modes.S_IFREG | 0o644
        if attributes & READONLY and not attributes & _DIRECTORY:
            mode &= ~0o222
    return WindowsStat(
        st_mode=mode,
        st_size=high << 32 | low,
        st_mtime_ns=(modified - _EPOCH) * 100,
        st_ctime_ns=((changed or modified) - _EPOCH) * 100,
        st_dev=volume,
        st_ino=index_high << 32 | index_low,
        st_nlink=links,
        attributes=attributes,
        created_ns=(created - _EPOCH) * 100,
        tag=tag,
    )
