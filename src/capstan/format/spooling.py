"""What the disk under the spool refuses is never taken for damage on a tape, nor for a surprise of the program."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from capstan.core.sizes import format_size
from capstan.errors import StorageFailed


@contextmanager
def spooling(folder: Path) -> Iterator[None]:
    """Raise what the operating system says of our files in `folder` as StorageFailed.

    A decompressor's complaint of its input may be an OSError too, which has no number; it goes through.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise StorageFailed(path=error.filename or folder, reason=error.strerror or str(error)) from error


def free_bytes(folder: Path) -> int:
    """How much a file in `folder` can grow."""
    with spooling(folder):
        return shutil.disk_usage(folder).free


def check_room(folder: Path, wanted: int, what: str) -> None:
    """Raises StorageFailed when `folder` cannot take `wanted` bytes, for `what`."""
    free = free_bytes(folder)
    if free < wanted:
        reason = f"{what} needs {format_size(wanted)} there, and {format_size(free)} are free"
        raise StorageFailed(path=folder, reason=reason)
