"""Reaching paths of any length: the kernel takes no more than 4096 bytes at once, a tree may be deeper."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from capstan.file_system import calls

# Bytes of a path that go into one call: PATH_MAX less what `/proc/self/fd/N/` needs in front.
LONGEST = 4000

_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_NO_ATIME = getattr(os, "O_NOATIME", 0)
_FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | _CLOEXEC
_FILE |= getattr(os, "O_BINARY", 0)
_DIRECTORY = os.O_RDONLY | getattr(calls, "O_DIRECTORY", 0) | _CLOEXEC
_LISTED = _DIRECTORY | getattr(os, "O_NOFOLLOW", 0)
# Searching needs less than reading: a directory above a root may be closed to everybody but its owner's eyes.
_SEARCHED = _LISTED | getattr(os, "O_PATH", 0)


@contextmanager
def within_reach(path: bytes) -> Iterator[tuple[int | None, bytes]]:
    """A stored path as (directory descriptor, path relative to it) that one system call takes; (None, absolute path)
    where it is short enough. The descriptor is closed at the end. Raises OSError."""
    rest = b"/" + path
    if len(rest) <= LONGEST:
        yield None, rest
        return
    at = calls.open(b"/", _SEARCHED)
    try:
        rest = rest[1:]
        while len(rest) > LONGEST:
            cut = rest.rfind(b"/", 0, LONGEST)
            if cut < 0:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            inner = calls.open(rest[:cut], _SEARCHED, dir_fd=at)
            os.close(at)
            at, rest = inner, rest[cut + 1 :]
        yield at, rest
    finally:
        os.close(at)


def open_file(path: bytes) -> int:
    """Open a stored path for reading without following a link or waiting for a FIFO's writer. Raises OSError."""
    return _open(path, _FILE)


def open_listed(path: bytes) -> int:
    """Open the directory at a stored path for listing. Raises OSError, also for a link to one."""
    return _open(path, _LISTED)


def open_searched(path: bytes) -> int:
    """Open the directory at a stored path for reaching what is in it; the right to list it is not needed."""
    with within_reach(path) as (at, rest):
        return calls.open(rest, _SEARCHED, dir_fd=at)


@contextmanager
def innermost_directory(path: bytes) -> Iterator[tuple[int, bytes, bool, bool]]:
    """The innermost directory on the way to a stored path: (descriptor, its path, whether nothing is under the path,
    whether the next name on the way is there and no directory). What is not in a directory, as it is open, is not
    there. No link is followed; the descriptor is closed at the end. Raises OSError where it cannot be searched."""
    *above, last = path.split(b"/")
    at = calls.open(b"/", _SEARCHED)
    try:
        for depth, name in enumerate(above):
            try:
                inner = calls.open(name, _SEARCHED, dir_fd=at)
            except (FileNotFoundError, NotADirectoryError) as error:  # a link is no directory either
                yield at, b"/".join(above[:depth]), True, isinstance(error, NotADirectoryError)
                return
            os.close(at)
            at = inner
        try:
            calls.stat(last, dir_fd=at, follow_symlinks=False)
        except FileNotFoundError:
            yield at, b"/".join(above), True, False
        else:
            yield at, b"/".join(above), False, False
    finally:
        os.close(at)


def _open(path: bytes, flags: int) -> int:
    if len(path) < LONGEST:
        return _open_unseen(b"/" + path, flags, None)
    with within_reach(path) as (at, rest):
        return _open_unseen(rest, flags, at)


def _open_unseen(path: bytes, flags: int, at: int | None) -> int:
    """Open without touching the access time, where we may (it takes the owner or root)."""
    if _NO_ATIME:
        try:
            return calls.open(path, flags | _NO_ATIME, dir_fd=at)
        except PermissionError:
            pass
    return calls.open(path, flags, dir_fd=at)
