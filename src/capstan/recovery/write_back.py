"""What was written reaches the disk behind the writer's back, and may fail there: only who asks hears of it."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable

from capstan import file_system
from capstan.file_system import calls

_Sync = Callable[[int], int]


class FileSystems:
    """The file systems that something is written to. An error that occurs between `add` and `sync` is reported by
    `sync`, so each must be added before the first write to it. So are an older one that nobody has heard of, and one of
    another writer: they are not told apart. Owns its descriptors.

    Linux tells such errors from 5.8 on. Where there is no `syncfs` (macOS), `sync` has everything written that the
    system can be asked for as a whole, and hears of no error. Windows writes a volume for administrators only.
    """

    def __init__(self) -> None:
        self._descriptors: dict[int, int] = {}  # by device

    def add(self, descriptor: int) -> None:
        """Take in the file system of an open directory, which stays the caller's. Again changes nothing."""
        device = calls.fstat(descriptor).st_dev
        if device not in self._descriptors:
            self._descriptors[device] = calls.dup(descriptor)

    def sync(self) -> None:
        """Wait until all is on disk. All are synced, then the OSError of the first that failed is raised: of what was
        written since `add` any part may be lost, and another call would not say so again."""
        failed: OSError | None = None
        if file_system.sync_file_system is not None:
            for descriptor in self._descriptors.values():
                file_system.sync_file_system(descriptor)
            return
        sync = _find_syncfs()
        for descriptor in self._descriptors.values():
            if sync is None or sync(descriptor) == 0:
                continue
            code = ctypes.get_errno()
            if code == errno.ENOSYS:
                sync = None
            else:
                failed = failed or OSError(code, os.strerror(code))
        if sync is None and hasattr(os, "sync"):
            os.sync()
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Twice is harmless."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


def _find_syncfs() -> _Sync | None:
    try:
        found: _Sync = ctypes.CDLL(None, use_errno=True).syncfs
    except (AttributeError, TypeError, OSError):
        return None
    return found
