r"""What a file of Windows has beyond POSIX, as if they were extended attributes; their names are those of the records
in the tar (docs/design/tape-format.md, 3.9): `attributes`, `created`, `link`, `sddl`.

Owner, group and access list go with the descriptor; the audit list needs a right of its own, and is left out. So are
alternate streams: `find_streams` names them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat as modes
from functools import cache
from typing import Any

from capstan import win32
from capstan.windows_changes import set_attributes, set_times, unlink
from capstan.windows_files import locate, path_of, readlink, stat

PREFIX = b"CAPSTAN.win."
_KEPT = 0x7B27  # read-only, hidden, system, archive, temporary, sparse, compressed, offline, not-indexed, encrypted
_PARTS = 7  # owner, group, access list (OWNER_SECURITY_INFORMATION and the next two)
_ACCESS_LIST = 4
_UNPRIVILEGED = {5, 1307, 1314}  # access denied, this may not be the owner, a privilege is not held
_TAG_JUNCTION = 0xA000_0003
_DIRECTORY = 0x10
_HANDLE, _DWORD, _TEXT, _POINTER, _BOOL = (
    *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_wchar_p, ctypes.c_void_p, ctypes.c_int),
)
_PRIVILEGES = ("SeBackupPrivilege", "SeRestorePrivilege")


def listxattr(file: bytes | int, *, follow_symlinks: bool = False) -> list[bytes]:
    """Names of what this file has. OSError."""
    native = _native(file)
    if native is None:
        return []
    link = modes.S_ISLNK(stat(native).st_mode)
    return [PREFIX + name for name in (b"attributes", b"created", *((b"link",) if link else ()), b"sddl")]


def getxattr(file: bytes | int, name: bytes, *, follow_symlinks: bool = False) -> bytes:
    """The value, as text. OSError."""
    native = _native(file)
    assert native is not None
    found = stat(native)
    if name == PREFIX + b"attributes":
        return b"0x%x" % (found.attributes & _KEPT)
    if name == PREFIX + b"created":
        return b"%d.%09d" % divmod(found.created_ns, 1_000_000_000)
    if name == PREFIX + b"link":
        if found.tag == _TAG_JUNCTION:
            return b"junction"
        return b"directory" if found.attributes & _DIRECTORY else b"file"
    return _sddl(native)


def setxattr(file: bytes | int, name: bytes, value: bytes, *, follow_symlinks: bool = False) -> None:
    """Put one on a file. OSError: ENOTSUP for what is of another system, EINVAL for what is no such value."""
    native = _native(file)
    if native is None or not name.startswith(PREFIX):
        raise OSError(errno.ENOTSUP, "Windows has no such attribute", native)
    try:
        if name == PREFIX + b"attributes":
            now = stat(native).attributes
            set_attributes(native, now & ~_KEPT | int(value, 16) & _KEPT)
        elif name == PREFIX + b"created":
            seconds, _, fraction = value.partition(b".")
            set_times(native, created_ns=int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0")))
        elif name == PREFIX + b"link":
            _set_link(native, value)
        elif name == PREFIX + b"sddl":
            _set_sddl(native, value.decode())
        else:
            raise OSError(errno.ENOTSUP, "this version knows no such attribute", native)
    except ValueError:
        raise OSError(errno.EINVAL, "the value is none that Capstan writes", native) from None


def removexattr(file: bytes | int, name: bytes) -> None:
    """Nothing is inherited that would have to go."""


def find_streams(file: bytes | int) -> list[str]:
    """The names of alternate streams, which are not stored."""
    native = _native(file)
    if native is None:
        return []
    first = win32.function("kernel32", "FindFirstStreamW", _HANDLE, _TEXT, ctypes.c_int, _POINTER, _DWORD)
    following = win32.function("kernel32", "FindNextStreamW", _BOOL, _HANDLE, _POINTER)
    data = ctypes.create_string_buffer(8 + 296 * 2)  # WIN32_FIND_STREAM_DATA
    handle = first(native, 0, data, 0)
    if handle in (None, win32.INVALID_HANDLE):
        return []
    found = []
    try:
        more = True
        while more:
            name = data.raw[8:].decode("utf-16-le", "replace").partition("\0")[0]
            if name != "::$DATA":
                found.append(f"stream {name.removesuffix(':$DATA')}")
            more = bool(following(handle, data))
    finally:
        win32.function("kernel32", "FindClose", _BOOL, _HANDLE)(handle)
    return found


@cache
def take_privileges() -> None:
    """Use the rights to read and to write whatever the access lists say, where this account has them."""
    token = ctypes.c_void_p()
    me = win32.function("kernel32", "GetCurrentProcess", _HANDLE)()
    if not win32.function("advapi32", "OpenProcessToken", _BOOL, _HANDLE, _DWORD, _POINTER)(
        me, 0x28, ctypes.byref(token)
    ):
        return
    for name in _PRIVILEGES:
        wanted = _TokenPrivileges(1, 0, 0, 2)
        look_up = win32.function("advapi32", "LookupPrivilegeValueW", _BOOL, _TEXT, _TEXT, _POINTER)
        if look_up(None, name, ctypes.byref(wanted, _TokenPrivileges.low.offset)):
            adjust = win32.function(
                "advapi32", "AdjustTokenPrivileges", _BOOL, _HANDLE, _BOOL, _POINTER, _DWORD, _POINTER, _POINTER
            )
            adjust(token, 0, ctypes.byref(wanted), 0, None, None)
    win32.function("kernel32", "CloseHandle", _BOOL, _HANDLE)(token)


class _TokenPrivileges(ctypes.Structure):
    _fields_ = (
        ("count", ctypes.c_uint32),
        ("low", ctypes.c_uint32),
        ("high", ctypes.c_uint32),
        ("attributes", ctypes.c_uint32),
    )


def _native(file: bytes | int) -> str | None:
    return path_of(file) if isinstance(file, int) else locate(file)


def _sddl(native: str) -> bytes:
    get = win32.function("advapi32", "GetFileSecurityW", _BOOL, _TEXT, _DWORD, _POINTER, _DWORD, _POINTER)
    size = ctypes.c_uint32()
    get(native, _PARTS, None, 0, ctypes.byref(size))
    descriptor = ctypes.create_string_buffer(max(size.value, 1))
    if not get(native, _PARTS, descriptor, len(descriptor), ctypes.byref(size)):
        raise win32.os_error(native)
    convert = win32.function(
        "advapi32",
        "ConvertSecurityDescriptorToStringSecurityDescriptorW",
        _BOOL,
        _POINTER,
        _DWORD,
        _DWORD,
        _POINTER,
        _POINTER,
    )
    text = ctypes.c_void_p()
    if not convert(descriptor, 1, _PARTS, ctypes.byref(text), None):
        raise win32.os_error(native)
    try:
        return ctypes.wstring_at(text.value or 0).encode()
    finally:
        _free(text)


def _set_sddl(native: str, text: str) -> None:
    convert = win32.function(
        "advapi32", "ConvertStringSecurityDescriptorToSecurityDescriptorW", _BOOL, _TEXT, _DWORD, _POINTER, _POINTER
    )
    descriptor = ctypes.c_void_p()
    if not convert(text, 1, ctypes.byref(descriptor), None):
        raise win32.os_error(native)
    put = win32.function("advapi32", "SetFileSecurityW", _BOOL, _TEXT, _DWORD, _POINTER)
    try:
        parts = sum(bit for bit, word in ((1, "O:"), (2, "G:"), (_ACCESS_LIST, "D:")) if word in text)
        if put(native, parts, descriptor):
            return
        error = win32.last_error()
        if error in _UNPRIVILEGED:
            put(native, _ACCESS_LIST, descriptor)  # who may not give it away may still say who may use it
        raise win32.os_error(native, error)
    finally:
        _free(descriptor)


def _set_link(native: str, kind: bytes) -> None:
    """Make it again as what it was. A link was made as one to a file where nothing was there to be looked at."""
    if kind not in (b"file", b"directory", b"junction"):
        raise ValueError(kind)
    if getxattr(_stored(native), PREFIX + b"link") == kind:
        return
    found, target = stat(native), readlink(native)
    unlink(native)
    if kind == b"junction":
        import _winapi

        create: Any = vars(_winapi)["CreateJunction"]
        create(target.decode("utf-8", "surrogatepass").replace("/", "\\"), native)
    else:
        text = target.decode("utf-8", "surrogatepass").replace("/", "\\")
        os.symlink(text, native, target_is_directory=kind == b"directory")  # noqa: PTH211 (text)
    set_times(native, created_ns=found.created_ns)


def _stored(native: str) -> bytes:
    from capstan.windows_paths import stored_path

    return b"/" + stored_path(native)


def _free(pointer: ctypes.c_void_p) -> None:
    win32.function("kernel32", "LocalFree", _HANDLE, _HANDLE)(pointer)
