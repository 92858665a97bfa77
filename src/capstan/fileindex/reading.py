"""The rows of a file index as Python values, in the order of the file: memory does not grow with the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from capstan.core.files import FileEntry, FileType, Row
from capstan.errors import HomeDamaged
from capstan.fileindex.schema import FILES

_BATCH = 16_384  # rows; each is some kilobytes of Python objects at most
_TERMS = 100  # of one expression; some thousands overflow Arrow's stack
_TYPES = {kind.value: kind for kind in FileType}
_COLUMNS: list[str] = FILES.names


def scan_columns(path: Path, columns: Sequence[str], where: Any = None) -> Iterator[pa.RecordBatch]:
    """Batches in the order of the file; one row group is held at a time. HomeDamaged when the table cannot be read."""
    try:
        if where is None:
            # A scanner reads many row groups ahead, whatever it is told: half a gigabyte for a million rows.
            with pq.ParquetFile(path, pre_buffer=False) as file:
                yield from file.iter_batches(_BATCH, columns=list(columns), use_threads=False)
            return
        scanner = ds.dataset([str(path)], format="parquet").scanner(
            columns=list(columns), filter=where, batch_size=_BATCH, batch_readahead=2, fragment_readahead=1
        )
        yield from scanner.to_batches()
    except (pa.ArrowException, OSError) as error:
        raise HomeDamaged(path=path, reason=str(error).splitlines()[0]) from error


def read_rows(path: Path, where: Any = None) -> Iterator[Row]:
    """The rows of one files.parquet that `where`, an expression of Arrow's, lets through. Errors as of `scan_columns`.

    Entries lack what only the tar member holds: extended attributes and device numbers.
    """
    for batch in scan_columns(path, _COLUMNS, where):
        yield from rows_of(batch)


def at_or_below(paths: Sequence[str]) -> Any:
    """The expression for rows at and below any of these stored paths, in the display form; None for no paths: all.

    Names that are not UTF-8 may let through a path that only looks the same. So many paths that asking for each costs
    more than reading everything let through all.
    """
    if len(paths) > _TERMS:
        return None
    where = None
    for path in paths:
        directory, _, name = path.rpartition("/")
        term = (
            ((pc.field("directory") == directory) & (pc.field("name") == name))
            | (pc.field("directory") == path)
            | ((pc.field("directory") >= path + "/") & (pc.field("directory") < path + "0"))  # "0" follows "/"
        )
        where = term if where is None else where | term
    return where


def read_rows_backwards(path: Path) -> Iterator[Row]:
    """The rows of one files.parquet from the last to the first; one row group is held at a time. Errors as of
    `scan_columns`."""
    try:
        with pq.ParquetFile(path) as file:
            for group in reversed(range(file.num_row_groups)):
                for batch in reversed(file.read_row_group(group, columns=_COLUMNS).to_batches(max_chunksize=_BATCH)):
                    yield from reversed(list(rows_of(batch)))
    except (pa.ArrowException, OSError) as error:
        raise HomeDamaged(path=path, reason=str(error).splitlines()[0]) from error


def rows_of(batch: pa.RecordBatch) -> Iterator[Row]:
    """The rows of one batch that has all columns of `schema.FILES`, in their order."""
    columns = [column.to_pylist() for column in batch.columns]
    for (
        directory, name, raw, kind, mode, uid, gid, owner, group, size, mtime_ns, ctime_ns, device, inode, links,
        target, offset, length, sha256, flags,
    ) in zip(*columns, strict=True):  # fmt: skip
        path = raw if raw is not None else (f"{directory}/{name}" if directory else name).encode()
        entry = FileEntry(
            path,
            _TYPES[kind],
            mode,
            uid,
            gid,
            size,
            mtime_ns,
            ctime_ns,
            device,
            inode,
            links,
            owner,
            group,
            target or b"",
        )
        yield Row(entry, offset, length, sha256, flags)
