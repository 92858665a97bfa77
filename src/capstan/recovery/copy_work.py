"""What a copy of a set lacks: derived from the catalog each time, so that going on is nothing but looking again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from capstan.catalog.catalog import Repositories
from capstan.catalog.copies import CopyFacts, copies_of
from capstan.core.backup import BackupSet, Commit, Segment
from capstan.core.history import history_of
from capstan.core.media import Cartridge
from capstan.errors import HomeDamaged
from capstan.fileindex.store import FileIndexStore
from capstan.format.copy_writer import Interval, link_of
from capstan.format.manifest import CommitLink
from capstan.recovery.rows import Part, kept_parts


@dataclass(frozen=True, slots=True)
class IntervalWork:
    """One interval of the set, of which the copy lacks `segments`, or (`without_index`) any INDEX. `known` are the
    INDEXes of it that the copy has, by the uuid of their cartridge."""

    interval: Interval
    segments: tuple[Segment, ...]
    without_index: bool
    known: dict[str, Commit]


@dataclass(frozen=True, slots=True)
class CopyWork:
    """`copy` is the number that the copy has, or gets. `avoid`: barcodes that hold something of other copies of the
    set. `links`: the INDEXes of the copy, in the order written. `intervals`: those of which something is lacking.
    `parts` and `cartridges`: of all copies."""

    backup_set: BackupSet
    copy: int
    avoid: frozenset[str]
    links: tuple[CommitLink, ...]
    intervals: tuple[IntervalWork, ...]
    parts: tuple[Part, ...]
    cartridges: tuple[Cartridge, ...]

    @property
    def lacking(self) -> list[Segment]:
        """All segments that are not there yet, in the order of the stream."""
        return [segment for interval in self.intervals for segment in interval.segments]

    @property
    def lacking_bytes(self) -> int:
        return sum(segment.payload_bytes for segment in self.lacking)


async def look_for_work(catalog: Repositories, store: FileIndexStore, backup_set: BackupSet, pool: str) -> CopyWork:
    """What the copy in `pool` lacks of a set, whose commit points are all known, in some copy. HomeDamaged."""
    copies = await copies_of(catalog, backup_set)
    mine = next((copy for copy in copies if copy.is_in(pool)), None)
    number = mine.copy if mine else max((copy.copy for copy in copies), default=0) + 1
    others = [copy for copy in copies if copy.copy != number]
    commits = [commit for copy in copies for commit in copy.commits]
    intervals = _intervals(store, backup_set, commits, mine)
    return CopyWork(
        backup_set=backup_set,
        copy=number,
        avoid=frozenset(item.barcode for copy in others for item in copy.cartridges),
        links=tuple(link_of(commit) for commit in sorted(mine.commits, key=_written)) if mine else (),
        intervals=tuple(item for item in intervals if item.segments or item.without_index),
        parts=tuple(kept_parts(store, backup_set.id, commits)),
        cartridges=tuple({item.barcode: item for copy in copies for item in copy.cartridges}.values()),
    )


def _written(commit: Commit) -> tuple[object, ...]:
    return (commit.committed_at, commit.sequence)


def _intervals(
    store: FileIndexStore, backup_set: BackupSet, commits: Sequence[Commit], mine: CopyFacts | None
) -> list[IntervalWork]:
    by_sequence: dict[int, list[Commit]] = {}
    for commit in commits:
        if not commit.locked:
            by_sequence.setdefault(commit.sequence, []).append(commit)
    history = history_of(commit for known in by_sequence.values() for commit in known)
    tables = {part.sequence: part for part in store.parts(backup_set.id, history)}
    found: list[IntervalWork] = []
    stored = 0
    for sequence, known in sorted(by_sequence.items()):
        part = tables[sequence]
        originals = tuple(history[earlier] for earlier in range(1, sequence + 1))
        segments = {segment.number: segment for commit in reversed(known) for segment in commit.segments}
        stored += sum(segment.payload_bytes for segment in segments.values())
        own = [commit for commit in mine.good if commit.sequence == sequence] if mine else []
        have = {segment.number for commit in own for segment in commit.segments}
        found.append(
            IntervalWork(
                Interval(known[0], originals, stored, backup_set.warning_count, part.files, part.frames, part.deleted),
                tuple(segments[number] for number in sorted(segments.keys() - have)),
                not own,
                {commit.cartridge: commit for commit in own},
            )
        )
    return found


def kept_checksums(store: FileIndexStore, commit: Commit) -> bytes:
    """The CRCs of the records that an INDEX of a copy names. HomeDamaged when they are gone."""
    path: Path = store.records(commit)
    try:
        return path.read_bytes()[: 4 * sum(segment.records for segment in commit.segments)]
    except OSError as error:
        raise HomeDamaged(path=path, reason=error.strerror or str(error)) from None
