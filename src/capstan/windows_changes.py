r"""What changes files and directories on Windows, with the signatures of `os`: as `windows_files`, which looks at them.

A file that may only be read gives way to whoever may write its directory, as on POSIX.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat as modes

from capstan import win32
from capstan.windows_files import READONLY, Path, is_virtual, locate, must, opened, path_of, stat

_HANDLE, _DWORD, _TEXT, _POINTER, _BOOL = (
    *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_wchar_p, ctypes.c_void_p, ctypes.c_int),
)
_WRITE_ATTRIBUTES, _GENERIC_WRITE, _SHARE_ALL, _OPEN_EXISTING = 0x100, 0x4000_0000, 7, 3
_EPOCH = 116_444_736_000_000_000  # 1970-01-01 in units of 100 ns since 1601 (FILETIME)
_DIRECTORY = 0x10
_NOT_FLUSHED = {1, 5, 6}  # of this kind of volume nothing can be flushed, or not by this account


def makedirs(path: bytes, *, exist_ok: bool = True) -> None:
    native = locate(path)
    if native is not None:
        os.makedirs(native, exist_ok=True)  # noqa: PTH103 (text)


def mkdir(path: Path, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
    os.mkdir(must(locate(path, dir_fd)))  # noqa: PTH102 (text)


def rmdir(path: Path, *, dir_fd: int | None = None) -> None:
    native = must(locate(path, dir_fd))
    _writable(native)
    os.rmdir(native)  # noqa: PTH106 (text)


def unlink(path: Path, *, dir_fd: int | None = None) -> None:
    """Of a file, a link, or a junction."""
    native = must(locate(path, dir_fd))
    found = stat(native)
    _writable(native)
    if found.attributes & _DIRECTORY and modes.S_ISLNK(found.st_mode):
        os.rmdir(native)  # noqa: PTH106 (text)
    else:
        os.unlink(native)  # noqa: PTH108 (text)


def rename(old: Path, new: Path, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
    """In place of what has the new name, as on POSIX; a file that may only be read gives way too."""
    native = must(locate(new, dst_dir_fd))
    try:
        found = stat(native)
    except FileNotFoundError:
        found = None
    if found is not None:
        _writable(native)
        if found.attributes & _DIRECTORY and modes.S_ISLNK(found.st_mode):
            os.rmdir(native)  # noqa: PTH106 (text)
    os.replace(must(locate(old, src_dir_fd)), native)  # noqa: PTH105 (text)


def symlink(target: bytes, path: Path, *, dir_fd: int | None = None) -> None:
    """A link; to a directory, if that is one now. `windows_attributes` has junctions made of them."""
    native = must(locate(path, dir_fd))
    text = target.decode("utf-8", "surrogatepass").replace("/", "\\")
    above = native.rpartition("\\")[0]
    os.symlink(text, native, target_is_directory=os.path.isdir(os.path.join(above, text)))  # noqa: PTH112, PTH118, PTH211


def link(
    old: Path,
    new: Path,
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
    follow_symlinks: bool = False,
) -> None:
    os.link(must(locate(old, src_dir_fd)), must(locate(new, dst_dir_fd)))


def mknod(path: Path, mode: int = 0, device: int = 0, *, dir_fd: int | None = None) -> None:
    raise OSError(errno.ENOSYS, "Windows has no FIFOs and device nodes", os.fspath(path))


def chown(path: Path, uid: int, gid: int, *, dir_fd: int | None = None, follow_symlinks: bool = False) -> None:
    """Owners are in the security descriptor; numbers of POSIX mean nothing here, and are not told of either."""


def fchown(descriptor: int, uid: int, gid: int) -> None:
    """As `chown`."""


def fchmod(descriptor: int, mode: int) -> None:
    if not is_virtual(descriptor):
        chmod(path_of(descriptor), mode)


def chmod(path: Path, mode: int, *, dir_fd: int | None = None) -> None:
    """A file that nobody may write may only be read. There is no more of a mode here."""
    native = must(locate(path, dir_fd))
    found = stat(native)
    if not found.attributes & _DIRECTORY:
        set_attributes(native, found.attributes & ~READONLY | (0 if mode & 0o222 else READONLY))


def utime(path: Path | int, *, ns: tuple[int, int], dir_fd: int | None = None, follow_symlinks: bool = False) -> None:
    """The time of modification, to 100 ns."""
    native = path_of(path) if isinstance(path, int) else must(locate(path, dir_fd))
    set_times(native, modified_ns=ns[1])


def set_times(native: str, *, modified_ns: int = -1, created_ns: int = -1) -> None:
    """Set those of the times that are given. OSError."""
    call = win32.function("kernel32", "SetFileTime", _BOOL, _HANDLE, _POINTER, _POINTER, _POINTER)
    times = [
        None if ns == -1 else ctypes.byref(ctypes.c_uint64(ns // 100 + _EPOCH)) for ns in (created_ns, modified_ns)
    ]
    with opened(native, _WRITE_ATTRIBUTES) as handle:
        if not call(handle, times[0], None, times[1]):
            raise win32.os_error(native)


def set_attributes(native: str, attributes: int) -> None:
    """Set the attributes of a path. OSError."""
    settable = attributes & 0x31A7  # those that SetFileAttributesW takes
    if not win32.function("kernel32", "SetFileAttributesW", _BOOL, _TEXT, _DWORD)(native, settable or 0x80):
        raise win32.os_error(native)


def sync_file_system(descriptor: int) -> None:
    """Write what is in memory of the volume that a file is on. Without the right to do that, which only administrators
    have, Windows does it when it likes. OSError."""
    if is_virtual(descriptor):
        return
    drive = os.path.splitdrive(path_of(descriptor))[0].removeprefix("\\\\?\\")
    create = win32.function(
        "kernel32", "CreateFileW", _HANDLE, _TEXT, _DWORD, _DWORD, _POINTER, _DWORD, _DWORD, _HANDLE
    )
    handle = create(f"\\\\.\\{drive}", _GENERIC_WRITE, _SHARE_ALL, None, _OPEN_EXISTING, 0, None)
    if handle in (None, win32.INVALID_HANDLE):
        return
    try:
        flushed = win32.function("kernel32", "FlushFileBuffers", _BOOL, _HANDLE)(handle)
        if not flushed and win32.last_error() not in _NOT_FLUSHED:
            raise win32.os_error(drive)
    finally:
        win32.function("kernel32", "CloseHandle", _BOOL, _HANDLE)(handle)


def _writable(native: str) -> None:
    """Take away what keeps even its owner from removing it."""
    with contextlib.suppress(OSError):
        found = stat(native)
        if found.attributes & READONLY:
            set_attributes(native, found.attributes & ~READONLY)
