"""A lock between processes that dies with its owner.

POSIX record locks (`lockf`) are used, not `flock`: a child made by `fork` does not inherit them, so a helper
process that outlives its parent cannot keep a library locked. Their trap is that closing *any* descriptor of the
file in the same process drops the lock; hence lock files are never opened except here, and a second
`acquire` of the same path in one process is refused by a table of our own.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

from capstan import positional_io
from capstan.errors import InUse, StorageFailed

_held: set[str] = set()
_guard = threading.Lock()


class ProcessLock:
    """Owns the lock on `path` from `acquire` to `release`. Not re-entrant. `what` names it in errors."""

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._what = what
        self._key = str(path.resolve())
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock or raise InUse(what, pid) at once; StorageFailed. On failure nothing is held."""
        with _guard:
            if self._key in _held:
                raise InUse(what=self._what, pid=os.getpid())
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            except OSError as error:
                raise StorageFailed(path=self._path, reason=error.strerror or str(error)) from error
            try:
                _lock(descriptor)
            except OSError:
                owner = positional_io.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                os.close(descriptor)
                raise InUse(what=self._what, pid=owner or "unknown") from None
            if not _is_at(self._path, descriptor):  # its last owner removed the file while we opened it
                os.close(descriptor)
                raise InUse(what=self._what, pid="unknown")
            with suppress(OSError):  # who owns it is told as well as it can be; the lock holds without
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.write(descriptor, f"{os.getpid()}\n".encode())
            self._descriptor = descriptor
            _held.add(self._key)

    def release(self) -> None:
        """Give the lock back. Twice is harmless. The file stays: removing it would race with a new owner."""
        with _guard:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
                _held.discard(self._key)

    def remove(self) -> None:
        """Give the lock back and remove its file. Whoever has opened the file meanwhile sees that it is gone. Windows
        removes no file that is open: there the lock goes first, and the file stays if somebody else has it by then."""
        if sys.platform != "win32":
            self._path.unlink(missing_ok=True)
        self.release()
        if sys.platform == "win32":
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def __enter__(self) -> ProcessLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_locked(path: Path) -> bool:
    """Whether some process, this one included, holds the lock on `path` now."""
    if str(path.resolve()) in _held:
        return True
    if not path.exists():
        return False
    probe = ProcessLock(path, str(path))
    try:
        probe.acquire()
    except InUse:
        return True
    probe.release()
    return False


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file is the one that has this name: a lock on another one would keep nobody out."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        # The byte lies far behind the content, so that the pid in it stays readable while it is locked.
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
