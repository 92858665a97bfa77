"""Writes the tables of one INDEX as Parquet, batch by batch: memory does not grow with the set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from capstan.core.files import FileEntry, FileType
from capstan.fileindex.schema import FILES, FRAMES, ROW_GROUP

# Digests are random: a dictionary or statistics of them would only cost.
_DICTIONARIES = ["directory", "type", "mode", "uid", "gid", "owner", "group", "device", "flags"]
_STATISTICS = ["directory", "name", "size", "mtime_ns", "tar_offset"]


class _TableWriter:
    """Collects rows in lists and writes a row group whenever there are enough of them."""

    def __init__(self, path: Path, schema: pa.Schema, dictionaries: list[str], statistics: list[str]) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            use_dictionary=dictionaries,
            write_statistics=statistics,
            store_schema=False,
        )
        self._rows: list[tuple[Any, ...]] = []

    def append(self, row: tuple[Any, ...]) -> None:
        self._rows.append(row)
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def finish(self) -> None:
        """Write the rest and the footer. The file is whole then, but not yet synced to disk."""
        if self._rows:
            self._flush()
        self._writer.close()

    def close(self) -> None:
        """Let go of the file, whole or not. Twice is harmless, also behind `finish`."""
        self._rows = []
        self._writer.close()

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows = []


class FileIndexBuilder:
    """Builds files.parquet. Rows come in the order of the stream; not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._table = _TableWriter(path, FILES, _DICTIONARIES, _STATISTICS)
        self._directory = b""
        self._directory_text = ""
        self._types = {kind: kind.value for kind in FileType}

    def add(self, entry: FileEntry, tar_offset: int, tar_bytes: int, sha256: bytes | None, flags: int) -> None:
        """Add one row. `sha256` is None where there is no content."""
        path = entry.path
        directory, _, name = path.rpartition(b"/")
        raw = None
        try:
            if directory != self._directory:
                self._directory_text = directory.decode()
                self._directory = directory
            directory_text, name_text = self._directory_text, name.decode()
        except UnicodeDecodeError:
            raw = path
            directory_text = directory.decode("utf-8", "backslashreplace")
            name_text = name.decode("utf-8", "backslashreplace")
        self._table.append(
            (
                directory_text,
                name_text,
                raw,
                self._types[entry.type],
                entry.mode,
                entry.uid,
                entry.gid,
                entry.owner,
                entry.group,
                entry.size,
                entry.mtime_ns,
                entry.ctime_ns,
                entry.device,
                entry.inode,
                entry.target or None,
                tar_offset,
                tar_bytes,
                sha256,
                int(flags),
            )
        )

    def finish(self) -> None:
        """Make the file whole."""
        self._table.finish()

    def close(self) -> None:
        """Let go of the file. Harmless behind `finish`."""
        self._table.close()


class FrameTableBuilder:
    """Builds frames.parquet."""

    def __init__(self, path: Path) -> None:
        self._table = _TableWriter(path, FRAMES, ["segment"], ["tar_offset"])

    def add(self, *, segment: int, tar_offset: int, tar_bytes: int, payload_offset: int, payload_bytes: int) -> None:
        """Add the place of one frame."""
        self._table.append((segment, tar_offset, tar_bytes, payload_offset, payload_bytes))

    def finish(self) -> None:
        """Make the file whole."""
        self._table.finish()

    def close(self) -> None:
        """Let go of the file. Harmless behind `finish`."""
        self._table.close()
