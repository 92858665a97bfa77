"""The tables of one set, read as streams in the order of its tar stream.

Made of parts, one for each INDEX of the set: beside the catalog, or just read from a tape.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from capstan.core.backup import Commit, Segment
from capstan.core.files import FileEntry, FileFlag, FileType, display_path
from capstan.errors import HomeDamaged
from capstan.fileindex.store import FileIndexStore
from capstan.format.frames import Row
from capstan.format.reader import read_crcs
from capstan.recovery.plan import FramePlace
from capstan.recovery.select import Selector

_COLUMNS = (
    "directory",
    "name",
    "raw",
    "type",
    "mode",
    "uid",
    "gid",
    "owner",
    "group",
    "size",
    "mtime_ns",
    "target",
    "tar_offset",
    "tar_bytes",
    "sha256",
    "flags",
)
_FRAME_COLUMNS = ("segment", "tar_offset", "tar_bytes", "payload_offset", "payload_bytes")
_BATCH = 16_384  # rows; each is some kilobytes of Python objects at most
_TYPES = {kind.value: kind for kind in FileType}


@dataclass(frozen=True, slots=True)
class Part:
    """What one INDEX says: its two tables, its CRCs, and the segments they are about, in its manifest's order."""

    sequence: int
    files: Path
    frames: Path
    records: Path
    segments: tuple[Segment, ...]


def kept_parts(store: FileIndexStore, set_id: str, commits: Sequence[Commit]) -> list[Part]:
    """The parts of those commits that lie beside the catalog. Raises HomeDamaged when one is gone."""
    by_sequence = {commit.sequence: commit.segments for commit in commits}
    return [
        Part(part.sequence, part.files, part.frames, part.records, by_sequence[part.sequence])
        for part in store.parts(set_id, list(by_sequence))
    ]


class SetTable:
    """Reads the parts of one set. Each call of a stream begins a new pass; nothing large is kept between.

    Raises HomeDamaged when a table cannot be read.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = sorted(parts, key=lambda part: part.sequence)
        self.segments = {segment.number: segment for part in self._parts for segment in part.segments}
        self._crcs: tuple[int, array[int]] = (-1, array("I"))
        self._continued, self._superseded = self._replaced() if parts else (frozenset(), frozenset())

    def rows(self, selector: Selector) -> Iterator[Row]:
        """Selected rows by `tar_offset`, one for each path: the last good one (docs/design/tape-format.md, 3.5, 4.2).

        A row with flag CONTINUES comes only when no later INDEX has the whole row: that member never ended.
        """
        for batch in self._batches(_COLUMNS, _prefilter(selector)):
            for row in _rows(batch):
                if row.flags and self._is_replaced(row):
                    continue
                if selector.everything or selector.matches(row.entry.path):
                    yield row

    def extents(self, selector: Selector) -> Iterator[tuple[int, int]]:
        """Where the selected members lie in the stream, as (offset, end)."""
        return ((row.tar_offset, row.tar_offset + row.tar_bytes) for row in self.rows(selector))

    def frames(self) -> Iterator[FramePlace]:
        """Every frame that is known, by `tar_offset`."""
        for part in self._parts:
            for batch in _scan(part.frames, _FRAME_COLUMNS, None):
                yield from map(FramePlace._make, zip(*(column.to_pylist() for column in batch.columns), strict=True))

    def crcs(self, segment: Segment) -> array[int]:
        """The CRC-32C of each payload record of `segment`."""
        for position, part in enumerate(self._parts):
            first = 0
            for candidate in part.segments:
                if candidate.number == segment.number:
                    if self._crcs[0] != position:
                        self._crcs = (position, read_crcs(part.records))
                    return self._crcs[1][first : first + segment.records]
                first += candidate.records
        raise KeyError(segment.number)

    def hard_links(self, selector: Selector) -> Iterator[tuple[bytes, bytes]]:
        """Selected further names as (path, stored path of the first name), in order."""
        wanted = pc.field("type") == FileType.HARDLINK.value
        prefilter = _prefilter(selector)
        for batch in self._batches(_COLUMNS, wanted if prefilter is None else wanted & prefilter):
            for row in _rows(batch):
                if selector.matches(row.entry.path):
                    yield row.entry.path, row.entry.target

    def _batches(self, columns: Sequence[str], where: Any) -> Iterator[pa.RecordBatch]:
        for part in self._parts:
            yield from _scan(part.files, columns, where)

    def _is_replaced(self, row: Row) -> bool:
        if row.flags & FileFlag.CONTINUES:
            return row.tar_offset in self._continued
        return bool(row.flags & FileFlag.DAMAGED) and row.tar_offset in self._superseded

    def _replaced(self) -> tuple[frozenset[int], frozenset[int]]:
        """Offsets of provisional rows that have a whole one, and of damaged rows that have a good one."""
        provisional: set[int] = set()
        damaged: dict[bytes, list[int]] = {}
        for batch in self._batches(_COLUMNS, pc.field("flags") != 0):
            for row in _rows(batch):
                if row.flags & FileFlag.CONTINUES:
                    provisional.add(row.tar_offset)
                elif row.flags & FileFlag.DAMAGED:
                    damaged.setdefault(row.entry.path, []).append(row.tar_offset)
        continued: set[int] = set()
        superseded: set[int] = set()
        if provisional:
            # An entry that could not be read has no bytes, and shares its offset with the member behind it.
            for batch in self._batches(_COLUMNS, pc.field("tar_offset").isin(sorted(provisional))):
                continued.update(
                    row.tar_offset for row in _rows(batch) if row.tar_bytes and not row.flags & FileFlag.CONTINUES
                )
        if damaged:
            names = sorted({display_path(path.rpartition(b"/")[2]) for path in damaged})
            bad = FileFlag.DAMAGED | FileFlag.CONTINUES | FileFlag.UNREADABLE
            for batch in self._batches(_COLUMNS, pc.field("name").isin(names)):
                for row in _rows(batch):
                    if not row.flags & bad:
                        superseded.update(at for at in damaged.get(row.entry.path, ()) if at < row.tar_offset)
        return frozenset(continued), frozenset(superseded)


def _scan(path: Path, columns: Sequence[str], where: Any) -> Iterator[pa.RecordBatch]:
    """Batches in the order of the file; little is read ahead, so that memory does not grow with the set."""
    try:
        scanner = ds.dataset([str(path)], format="parquet").scanner(
            columns=list(columns), filter=where, batch_size=_BATCH, batch_readahead=2, fragment_readahead=1
        )
        yield from scanner.to_batches()
    except (pa.ArrowException, OSError) as error:
        raise HomeDamaged(path=path, reason=str(error).splitlines()[0]) from error


def _prefilter(selector: Selector) -> Any:
    """What Parquet's statistics can skip row groups by. It lets through more than is selected, never less."""
    where = None
    for path in selector.paths:
        directory, _, name = path.rpartition(b"/")
        below = display_path(path)
        term = (
            ((pc.field("directory") == display_path(directory)) & (pc.field("name") == display_path(name)))
            | (pc.field("directory") == below)
            | ((pc.field("directory") >= below + "/") & (pc.field("directory") < below + "0"))  # "0" follows "/"
        )
        where = term if where is None else where | term
    return where


def _rows(batch: pa.RecordBatch) -> Iterator[Row]:
    columns = [column.to_pylist() for column in batch.columns]
    for (
        directory, name, raw, kind, mode, uid, gid, owner, group, size, mtime_ns, target, offset, length, sha256, flags
    ) in zip(*columns, strict=True):  # fmt: skip
        path = raw if raw is not None else (f"{directory}/{name}" if directory else name).encode()
        yield Row(
            FileEntry(
                path=path,
                type=_TYPES[kind],
                mode=mode,
                uid=uid,
                gid=gid,
                size=size,
                mtime_ns=mtime_ns,
                owner=owner,
                group=group,
                target=target or b"",
            ),
            offset,
            length,
            sha256,
            flags,
        )
