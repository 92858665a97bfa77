"""The tables of one set, read as streams in the order of its tar stream.

Made of parts, one for each INDEX of the set: beside the catalog, or just read from a tape.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from capstan.core.backup import Commit, Segment
from capstan.core.files import FileEntry, FileFlag, FileType, Row, display_path
from capstan.core.history import history_of
from capstan.core.ordinals import OrdinalSet
from capstan.errors import HomeDamaged
from capstan.fileindex.reading import at_or_below, read_rows, scan_columns
from capstan.fileindex.store import FileIndexStore
from capstan.format.reader import read_crcs
from capstan.recovery.plan import FramePlace
from capstan.recovery.select import Selector

_FRAME_COLUMNS = ("segment", "tar_offset", "tar_bytes", "payload_offset", "payload_bytes")


@dataclass(frozen=True, slots=True)
class Records:
    """The CRCs of the records of some segments on one cartridge, in the order of their INDEX's manifest."""

    path: Path
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """What one INDEX says: its two tables, its CRCs, and the segments they are about, in its manifest's order.
    `copies`: the same of other copies of that interval."""

    sequence: int
    files: Path
    frames: Path
    records: Path
    segments: tuple[Segment, ...]
    copies: tuple[Records, ...] = ()

    @property
    def places(self) -> tuple[Records, ...]:
        """Wherever segments of the interval are."""
        return (Records(self.records, self.segments), *self.copies)


def kept_parts(store: FileIndexStore, set_id: str, commits: Sequence[Commit]) -> list[Part]:
    """The parts of those commits that lie beside the catalog, each interval once, with all its copies. Raises
    HomeDamaged when a table is gone, or when the CRCs of all copies of an interval are."""
    readable = [commit for commit in commits if not commit.locked]
    by_sequence: dict[int, list[Records]] = {}
    for commit in sorted(readable, key=lambda commit: commit.copy):
        by_sequence.setdefault(commit.sequence, []).append(Records(store.records(commit), commit.segments))
    parts = []
    for part in store.parts(set_id, history_of(readable)):
        known = by_sequence[part.sequence]
        there = [records for records in known if records.path.exists()]
        if not there:
            raise HomeDamaged(path=known[0].path, reason="the file is gone")
        first, *others = there
        parts.append(Part(part.sequence, part.files, part.frames, first.path, first.segments, tuple(others)))
    return parts


class SetTable:
    """Reads the parts of one set. Each call of a stream begins a new pass; nothing large is kept between.

    `places` has each segment wherever it lies, the original first; `segments` has one of those for each number.
    Raises HomeDamaged when a table cannot be read.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = sorted(parts, key=lambda part: part.sequence)
        self.places: dict[int, list[Segment]] = {}
        for segment in (s for part in self._parts for records in part.places for s in records.segments):
            self.places.setdefault(segment.number, []).append(segment)
        for found in self.places.values():
            found.sort(key=lambda segment: segment.copy)
        self.segments = {number: found[0] for number, found in sorted(self.places.items())}
        self._crcs: tuple[Path, array[int]] = (Path(), array("I"))
        self._continued, self._superseded = self._replaced() if parts else (frozenset(), frozenset())

    def rows(self, selector: Selector, chosen: OrdinalSet | None = None) -> Iterator[Row]:
        """Selected rows by `tar_offset`, one for each path: the last good one (docs/design/tape-format.md, 3.5, 4.2).

        A row with flag CONTINUES comes only when no later INDEX has the whole row: that member never ended. `chosen`:
        the ordinals of the rows to give, counted as `fileindex.chain` does under this selector's `prefilter`.
        """
        for ordinal, row in enumerate(self._rows(prefilter(selector))):
            if chosen is not None:
                if ordinal in chosen:
                    yield row
                continue
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
            for batch in scan_columns(part.frames, _FRAME_COLUMNS):
                yield from map(FramePlace._make, zip(*(column.to_pylist() for column in batch.columns), strict=True))

    def crcs(self, segment: Segment) -> array[int]:
        """The CRC-32C of each payload record of `segment`."""
        wanted = (segment.number, segment.cartridge)
        for records in (records for part in self._parts for records in part.places):
            first = 0
            for candidate in records.segments:
                if (candidate.number, candidate.cartridge) == wanted:
                    if self._crcs[0] != records.path:
                        self._crcs = (records.path, read_crcs(records.path))
                    return self._crcs[1][first : first + segment.records]
                first += candidate.records
        raise KeyError(segment.number)

    def hard_links(self, selector: Selector) -> Iterator[FileEntry]:
        """Selected further names, in order."""
        wanted = pc.field("type") == FileType.HARDLINK.value
        where = prefilter(selector)
        for row in self._rows(wanted if where is None else wanted & where):
            if selector.matches(row.entry.path):
                yield row.entry

    def _rows(self, where: Any) -> Iterator[Row]:
        for part in self._parts:
            yield from read_rows(part.files, where)

    def _is_replaced(self, row: Row) -> bool:
        if row.flags & FileFlag.CONTINUES:
            return row.tar_offset in self._continued
        return bool(row.flags & FileFlag.DAMAGED) and row.tar_offset in self._superseded

    def _replaced(self) -> tuple[frozenset[int], frozenset[int]]:
        """Offsets of provisional rows that have a whole one, and of damaged rows that have a good one."""
        provisional: set[int] = set()
        damaged: dict[bytes, list[int]] = {}
        for row in self._rows(pc.field("flags") != 0):
            if row.flags & FileFlag.CONTINUES:
                provisional.add(row.tar_offset)
            elif row.flags & FileFlag.DAMAGED:
                damaged.setdefault(row.entry.path, []).append(row.tar_offset)
        continued: set[int] = set()
        superseded: set[int] = set()
        if provisional:
            # An entry that could not be read has no bytes, and shares its offset with the member behind it.
            continued.update(
                row.tar_offset
                for row in self._rows(pc.field("tar_offset").isin(sorted(provisional)))
                if row.tar_bytes and not row.flags & FileFlag.CONTINUES
            )
        if damaged:
            names = sorted({display_path(path.rpartition(b"/")[2]) for path in damaged})
            bad = FileFlag.DAMAGED | FileFlag.CONTINUES | FileFlag.UNREADABLE
            for row in self._rows(pc.field("name").isin(names)):
                if not row.flags & bad:
                    superseded.update(at for at in damaged.get(row.entry.path, ()) if at < row.tar_offset)
        return frozenset(continued), frozenset(superseded)


def prefilter(selector: Selector) -> Any:
    """What Parquet's statistics can skip row groups by. It lets through more than is selected, never less."""
    return at_or_below([display_path(path) for path in selector.paths])
