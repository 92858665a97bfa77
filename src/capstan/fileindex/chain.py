"""The state that a chain of sets describes: a full set, and the incremental ones on top of it.

Each set's rows, and the paths that it found gone, stand in the order of the source (`core.files.scan_key`). So the
state is a merge of sorted streams, in memory that does not grow with the sets. This is the one place that says which
row of a path counts; comparing, restoring and listing all ask here.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain as concatenated
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from capstan.core.files import FileFlag, FileType, Row, display_path, is_below, scan_key
from capstan.core.ordinals import OrdinalSet
from capstan.errors import HomeDamaged
from capstan.fileindex.reading import at_or_below, read_rows, read_rows_backwards
from capstan.fileindex.store import IndexPart

Key = tuple[bytes, bytes]

_BAD = FileFlag.CONTINUES | FileFlag.DAMAGED | FileFlag.UNREADABLE
_PIECE = 1 << 20  # of a list of deleted paths, read at once


@dataclass(frozen=True, slots=True)
class ChainSet:
    """The file index of one set. `started_ns`: when its scan began, in nanoseconds since the epoch."""

    set_id: str
    started_ns: int
    parts: tuple[IndexPart, ...]


class StateRow(NamedTuple):
    """The row that counts of one path. `place`: which set of the chain holds it; `ordinal`: which row of that set,
    counted as they are read. `again`: what is stored may not be what was there, or a later set could not read it."""

    key: Key
    row: Row
    place: int
    ordinal: int
    again: bool


class _Event(NamedTuple):
    """What one set says of one path; `row` None: it is gone."""

    key: Key
    place: int
    row: Row | None
    ordinal: int


def state_rows(sets: Sequence[ChainSet], where: Any = None) -> Iterator[StateRow]:
    """The row that counts of every path of a chain, oldest set first in `sets`, in scan order.

    The last good row counts; behind a deletion nothing before it does. A row that is damaged, unfinished or was
    unreadable counts only where no good one is left. `where` is an expression of Arrow's that lets rows through; it
    must depend on the path alone. HomeDamaged when a table cannot be read or is not in order.
    """
    streams: list[Iterator[_Event]] = []
    for place, item in enumerate(sets):
        if any(part.deleted for part in item.parts):
            streams.append(_ascending(_deletions(item, place), item))  # before the rows: what is there again is there
        streams.append(_ascending(_rows(item, place, where), item))
    merged = streams[0] if len(streams) == 1 else heapq.merge(*streams, key=itemgetter(0))
    for key, events in groupby(merged, key=itemgetter(0)):
        found = _resolve(key, events)
        if found is not None:
            yield found


def holds_below(sets: Sequence[ChainSet], path: bytes) -> bool:
    """Whether the state has anything below a stored path."""
    return any(is_below(found.row.entry.path, path) for found in state_rows(sets, at_or_below([display_path(path)])))


def rows_that_count(sets: Sequence[ChainSet], where: Any = None) -> list[OrdinalSet]:
    """For each set of the chain, the ordinals of its rows that are part of the state."""
    marks = [OrdinalSet() for _ in sets]
    for found in state_rows(sets, where):
        marks[found.place].add(found.ordinal)
    return marks


def _resolve(key: Key, events: Iterator[_Event]) -> StateRow | None:
    best: _Event | None = None
    good = again = False
    for event in events:
        row = event.row
        if row is None:
            best, good, again = None, False, False
        elif row.flags & _BAD and good:
            again = True
        else:
            best, good, again = event, not row.flags & _BAD, bool(row.flags & (_BAD | FileFlag.CHANGED))
    if best is None or best.row is None:
        return None
    return StateRow(key, best.row, best.place, best.ordinal, again)


def _rows(item: ChainSet, place: int, where: Any) -> Iterator[_Event]:
    rows = concatenated.from_iterable(read_rows(part.files, where) for part in item.parts)
    for ordinal, row in enumerate(rows):
        # A directory whose names could not be listed has such a row beside its own, where that was found.
        if row.flags & FileFlag.UNREADABLE and row.entry.type is FileType.DIRECTORY:
            continue
        yield _Event(scan_key(row.entry.path), place, row, ordinal)


def _deletions(item: ChainSet, place: int) -> Iterator[_Event]:
    for part in item.parts:
        if part.deleted is not None:
            for path in read_deleted(part.deleted):
                yield _Event(scan_key(path), place, None, 0)


def _ascending(events: Iterator[_Event], item: ChainSet) -> Iterator[_Event]:
    """A table that is not in scan order would silently give a wrong state."""
    last: Key = (b"", b"")
    for event in events:
        if event.key < last:
            path = item.parts[0].files.parent
            raise HomeDamaged(path=path, reason="its rows are not in the order of a set")
        last = event.key
        yield event


def last_path(item: ChainSet, *, unfinished: bool = False) -> bytes | None:
    """Up to which path, in scan order, a set says what there is; None when it says nothing. A file that it has begun
    and not finished lies behind, unless `unfinished` ones count. HomeDamaged when a table cannot be read."""
    for part in reversed(item.parts):
        rows = (
            row.entry.path
            for row in read_rows_backwards(part.files)
            if (unfinished or not row.flags & FileFlag.CONTINUES)
            # A directory that could not be listed has its row where its entries would stand.
            and not (row.flags & FileFlag.UNREADABLE and row.entry.type is FileType.DIRECTORY)
        )
        deleted = deque(read_deleted(part.deleted) if part.deleted else (), maxlen=1)
        paths = [*islice(rows, 1), *deleted]
        if paths:
            return max(paths, key=scan_key)
    return None


def read_deleted(path: Path) -> Iterator[bytes]:
    """The stored paths in a list of deleted ones. HomeDamaged when it cannot be read."""
    rest = b""
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                *paths, rest = (rest + piece).split(b"\0")
                yield from paths
    except OSError as error:
        raise HomeDamaged(path=path, reason=error.strerror or str(error)) from error
    if rest:
        raise HomeDamaged(path=path, reason="it is cut off")
