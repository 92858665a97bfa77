"""How virtual cartridges reach the disk: the three calls that make a commit durable, in one place to be watched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class Storage(Protocol):
    """What a synchronous filemark asks of the operating system."""

    def sync_file(self, descriptor: int, path: Path) -> None:
        """All that was written to `descriptor` is on the disk when it returns. `path` is for those who watch."""
        ...

    def sync_folder(self, path: Path) -> None:
        """Names created or replaced in `path` are on the disk when it returns."""
        ...


class DiskStorage:
    """fsync. On Windows folders cannot be synced and need not be."""

    def sync_file(self, descriptor: int, path: Path) -> None:
        os.fsync(descriptor)

    def sync_folder(self, path: Path) -> None:
        if os.name == "posix":
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def replace_file(storage: Storage, path: Path, data: bytes) -> None:
    """Give `path` the content `data`, whole or not at all, durable when it returns."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        left = memoryview(data)
        while left:  # a disk that fills up takes a part, and refuses only what comes next
            left = left[os.write(descriptor, left) :]
        storage.sync_file(descriptor, temporary)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)  # noqa: PTH105
    storage.sync_folder(path.parent)
