"""How virtual libraries reach the disk and come back: the three calls that make a commit durable, in one place to be
watched, and their small files of JSON."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from capstan.errors import HomeDamaged, StorageFailed

T = TypeVar("T")


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


def load_json(kind: type[T], path: Path, *, hint: str) -> T:
    """The dataclass `kind` from a file of JSON, its types checked. HomeDamaged, with `hint`; StorageFailed without
    the right to read it; FileNotFoundError."""
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise HomeDamaged(path=path, reason=f"{place}: {first['msg']}" if place else first["msg"], hint=hint) from None
    except PermissionError as error:
        raise StorageFailed(path=path, reason=error.strerror) from None
    except OSError as error:
        raise HomeDamaged(path=path, reason=error.strerror or str(error), hint=hint) from None


def replace_file(storage: Storage, path: Path, data: bytes) -> None:
    """Give `path` the content `data`, whole or not at all, durable when it returns."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
    try:
        left = memoryview(data)
        while left:  # a disk that fills up takes a part, and refuses only what comes next
            left = left[os.write(descriptor, left) :]
        storage.sync_file(descriptor, temporary)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)  # noqa: PTH105
    storage.sync_folder(path.parent)
