"""Writes the tables of one INDEX as Parquet, batch by batch: memory does not grow with the set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from capstan.core.files import FileEntry, FileType
from capstan.errors import StorageFailed
from capstan.fileindex.schema import FILES, FRAMES, ROW_GROUP

# Digests are random: a dictionary or statistics of them would only cost.
_DICTIONARIES = ["directory", "type", "mode", "uid", "gid", "owner", "group", "device", "links", "flags"]
_STATISTICS = ["directory", "name", "size", "mtime_ns", "links", "tar_offset", "flags"]

# Rows that are kept as Python objects (about 700 bytes each) before they become a batch of Arrow's.
_BATCH = 8192

# What a file system or a user database says: it may be anything, and must not end a backup.
_FOREIGN = frozenset({"mode", "uid", "gid", "owner", "group", "mtime_ns", "ctime_ns", "device", "inode", "links"})


_BUFFER = 1 << 16  # bytes


class _TableWriter:
    """Collects rows and writes a row group whenever there are enough of them. StorageFailed names the file."""

    def __init__(self, path: Path, schema: pa.Schema, dictionaries: list[str], statistics: list[str]) -> None:
        self._path = path
        self._schema = schema
        self._rows: list[tuple[Any, ...]] = []
        self._batches: list[pa.RecordBatch] = []
        self._batched = 0
        with self._storage(), ExitStack() as on_failure:
            file = on_failure.enter_context(pa.OSFile(str(path), "wb"))
            # Arrow writes each length and each page header by itself, some hundred of them.
            self._file = pa.BufferedOutputStream(file, _BUFFER)
            self._writer = pq.ParquetWriter(
                self._file,
                schema,
                compression="zstd",
                use_dictionary=dictionaries,
                write_statistics=statistics,
                store_schema=False,
            )
            on_failure.pop_all()

    def append(self, row: tuple[Any, ...]) -> None:
        self._rows.append(row)
        if len(self._rows) >= _BATCH:
            self._batch()

    def finish(self) -> None:
        """Write the rest and the footer. The file is whole then, but not yet synced to disk."""
        if self._rows:
            self._batch()
        with self._storage():
            if self._batches:
                self._write_group()
            self._writer.close()
            self._file.close()

    def close(self) -> None:
        """Let go of the file, whole or not. Twice is harmless, also behind `finish`."""
        self._rows, self._batches = [], []
        for resource in (self._writer, self._file):
            with suppress(OSError, pa.ArrowException):  # who closes early throws the file away
                resource.close()

    def _batch(self) -> None:
        columns = zip(*self._rows, strict=True)
        arrays = [_array(column, field) for column, field in zip(columns, self._schema, strict=True)]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._batched += len(self._rows)
        self._rows = []
        if self._batched >= ROW_GROUP:
            with self._storage():
                self._write_group()

    def _write_group(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._batches), row_group_size=ROW_GROUP)
        self._batches, self._batched = [], 0

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageFailed(path=self._path, reason=error.strerror or str(error)) from error


def _array(values: Sequence[Any], field: pa.Field) -> pa.Array:
    try:
        return pa.array(values, field.type)
    except (OverflowError, UnicodeEncodeError, pa.ArrowInvalid):
        if field.name not in _FOREIGN:
            raise
        return pa.array([_fitted(value, field.type) for value in values], field.type)


def _fitted(value: Any, kind: pa.DataType) -> Any:
    """The value as near as the column can hold it: a time at its end, an identifier's low bits, a name's escape."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if pa.types.is_unsigned_integer(kind):
        return value & ((1 << kind.bit_width) - 1)
    limit = 1 << (kind.bit_width - 1)
    return max(-limit, min(value, limit - 1))


class FileIndexBuilder:
    """Builds files.parquet. Rows come in the order of the stream; not thread-safe.

    Raises StorageFailed when the file cannot be written; then it is worthless, and `close` lets go of it.
    """

    def __init__(self, path: Path) -> None:
        self._table = _TableWriter(path, FILES, _DICTIONARIES, _STATISTICS)
        self._directory = b""
        self._directory_text = ""
        self._types = {kind: kind.value for kind in FileType}

    def add(self, entry: FileEntry, tar_offset: int, tar_bytes: int, sha256: bytes | None, flags: int) -> None:
        """Add one row. `sha256` is None where there is no content.

        What the file system says and no column can hold (a time in the year 3000, an owner's name that is not text)
        is kept as near as possible: the tar member has it exactly.
        """
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
                entry.links,
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
    """Builds frames.parquet. Errors as of `FileIndexBuilder`."""

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
