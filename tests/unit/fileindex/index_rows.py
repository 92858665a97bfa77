"""Rows and parts for tests of the file index."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from capstan.core.files import FileEntry, FileFlag, FileType
from capstan.fileindex.builder import FileIndexBuilder
from capstan.fileindex.chain import ChainSet
from capstan.fileindex.store import IndexPart

NOW_NS = 1_767_323_045_678_901_234


class IndexRow(NamedTuple):
    """What `FileIndexBuilder.add` takes."""

    entry: FileEntry
    tar_offset: int
    tar_bytes: int
    sha256: bytes | None
    flags: int


def row(
    path: bytes, tar_offset: int = 0, *, content: bytes | None = b"", flags: int = FileFlag.NONE, **more: Any
) -> IndexRow:
    """A row of a file with this content, or of a directory when there is none."""
    facts: dict[str, Any] = {
        "type": FileType.REGULAR if content is not None else FileType.DIRECTORY,
        "mode": 0o644,
        "uid": 1000,
        "gid": 1000,
        "size": len(content or b""),
        "mtime_ns": NOW_NS,
        "owner": "user",
        "group": "group",
    }
    digest = None if content is None else hashlib.sha256(content).digest()
    return IndexRow(FileEntry(path, **facts | more), tar_offset, 1024, digest, int(flags))


def write_part(path: Path, rows: Sequence[IndexRow]) -> Path:
    """Build files.parquet of these rows at `path`."""
    builder = FileIndexBuilder(path)
    for item in rows:
        builder.add(*item)
    builder.finish()
    return path


def read_paths(files: Sequence[Path]) -> list[bytes]:
    """The paths of all rows, as bytes, read by another reader than ours."""
    import pyarrow.parquet as pq

    paths = []
    for file in files:
        for found in pq.read_table(file, columns=["directory", "name", "raw"]).to_pylist():
            text = f"{found['directory']}/{found['name']}" if found["directory"] else found["name"]
            paths.append(found["raw"] if found["raw"] is not None else text.encode())
    return paths


def alone(files: Sequence[Path], set_id: str = "s") -> list[ChainSet]:
    """A set that builds on no other, with these files.parquet."""
    parts = [IndexPart(number, "", path, path, path) for number, path in enumerate(files, 1)]
    return [ChainSet(set_id, 0, tuple(parts))]
