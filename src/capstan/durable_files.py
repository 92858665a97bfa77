"""Files that are whole or not there, whenever the power goes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from capstan.errors import StorageFailed


def write_durably(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Replace the file at `path` by `content`. `mode`: permissions of a new file, less the umask. Behind a return it is
    on the disk; behind StorageFailed it is what it was."""
    temporary = path.with_name(f"{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageFailed(path=path, reason=error.strerror or str(error)) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can. Raises OSError."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
