"""Where a set that was begun goes on: derived from its commit points and the rows of its file index.

Nothing is kept for it besides what the tape holds too. So a failed cartridge, a lost answer, a killed process and a
cancelled job are one case: what lies before the last commit point counts, and everything else is made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow.compute as pc
import pyarrow.dataset as ds

from capstan.backup.source import FirstName, Inode
from capstan.core.backup import BackupSet, Commit
from capstan.core.files import FileFlag, FileType, scan_key
from capstan.core.history import history_of
from capstan.errors import Refused
from capstan.fileindex.chain import ChainSet, last_path, state_rows
from capstan.fileindex.reading import read_rows, read_rows_backwards
from capstan.fileindex.store import FileIndexStore, IndexPart
from capstan.format.frames import OpenMember, ResumePoint, Totals
from capstan.format.manifest import CommitLink
from capstan.format.tar import padded
from capstan.format.writer import SetChain

# A row that a later set replaced by one without further names comes too; the source knows it by its ctime.
_LINKED = (ds.field("links") > 1) & (ds.field("type") != FileType.DIRECTORY.value)
_UNLISTED = (
    (ds.field("flags") >= int(FileFlag.UNREADABLE))  # lets statistics skip whole row groups
    & (pc.bit_wise_and(ds.field("flags"), int(FileFlag.UNREADABLE)) != 0)
    & (ds.field("type") == FileType.DIRECTORY.value)
)
_NOT_STORED = FileFlag.DAMAGED | FileFlag.UNREADABLE


@dataclass(frozen=True, slots=True)
class Committed:
    """How far a set is committed, and all that going on there takes. `final`: it is whole.

    `links`: stored files with names still to come, `stored_firsts` those of them that this set holds, not its parents.
    `open_parts`: how many segments hold content of the member that is open at the resume point.
    `unlisted`: directories that could not be looked into so far: what was in them before must not be taken for deleted.
    """

    chain: SetChain = field(default_factory=SetChain)
    resume: ResumePoint = field(default_factory=ResumePoint)
    links: tuple[FirstName, ...] = ()
    stored_firsts: frozenset[bytes] = frozenset()
    unlisted: tuple[bytes, ...] = ()
    open_parts: int = 0
    final: bool = False


def read_committed(
    backup_set: BackupSet, commits: Sequence[Commit], store: FileIndexStore, parent: Sequence[ChainSet] = ()
) -> Committed:
    """Derive the state at the last of `commits`, which are all that the catalog knows of the set, in order. `parent`:
    the chain that the set builds on.

    Memory is bounded by the files whose further names are still to come, as it is for the source itself. Refused when a
    commit point in the middle is gone; HomeDamaged when the file index is.
    """
    if not commits:
        return Committed()
    if [commit.sequence for commit in commits] != list(range(1, len(commits) + 1)):
        reason = f"set {backup_set.id} cannot go on: not all of its commit points are in the catalog"
        raise Refused(reason=reason, hint="run `capstan rebuild` if their cartridges are there; else a new backup")
    parts = store.parts(backup_set.id, history_of(commits))
    last = commits[-1]
    own = ChainSet(backup_set.id, backup_set.started_ns, tuple(parts))
    after = last_path(own, unfinished=True)
    state = (*parent, own)
    open_member = _open_member(parts[-1])
    first_names = {} if after is None else _first_names(state, after)
    return Committed(
        chain=_chain(commits),
        resume=ResumePoint(
            tar_offset=last.tar_end,
            after=after,
            open_member=open_member,
            totals=Totals(last.files, last.bytes, backup_set.warning_count),
        ),
        links=tuple(first for first, _ in first_names.values()),
        stored_firsts=frozenset(first.path for first, place in first_names.values() if place == len(parent)),
        unlisted=tuple(row.entry.path for part in parts for row in read_rows(part.files, _UNLISTED)),
        open_parts=_parts(open_member, commits),
        final=last.final,
    )


def _first_names(sets: Sequence[ChainSet], after: bytes) -> dict[Inode, tuple[FirstName, int]]:
    """The files that are stored up to the path `after` and have names still to come, each by the first name that has
    its content, and which set holds it. The source looks whether they are still the same (`BackupSource.scan`)."""
    found: dict[Inode, tuple[FirstName, int]] = {}
    end = scan_key(after)
    for key, row, place, *_ in state_rows(sets, _LINKED):
        if key > end:
            break
        entry = row.entry
        inode = (entry.device, entry.inode)
        if row.flags & _NOT_STORED:
            continue
        if entry.type is not FileType.HARDLINK:
            found[inode] = FirstName(entry.device, entry.inode, entry.ctime_ns, entry.links - 1, entry.path), place
        elif inode in found:
            first, held_by = found.pop(inode)
            if first.left > 1:
                found[inode] = first._replace(left=first.left - 1), held_by
    return found


def _chain(commits: Sequence[Commit]) -> SetChain:
    segments = [segment for commit in commits for segment in commit.segments]
    last = commits[-1]
    return SetChain(
        sequence=last.sequence,
        next_segment=max((segment.number + 1 for segment in segments), default=0),
        tar_end=last.tar_end,
        stored_bytes=sum(segment.payload_bytes for segment in segments),
        previous_sha256=last.header_sha256,
        commits=tuple(
            CommitLink(item.sequence, item.cartridge, item.barcode, item.tape_file, item.block, item.header_sha256)
            for item in commits
        ),
    )


def _parts(member: OpenMember | None, commits: Sequence[Commit]) -> int:
    if member is None:
        return 0
    # Of a sparse one the headers' size is not known, and is not needed: its map stands in one segment with them.
    begin = member.row.tar_offset + max(member.header_bytes, 0)
    ends = [segment.tar_offset + segment.tar_bytes for commit in commits for segment in commit.segments]
    return sum(end > begin for end in ends)


def _open_member(part: IndexPart) -> OpenMember | None:
    """The member that goes on behind the part's commit point: the writer puts its provisional row last.

    Of a sparse one the packer finds map and headers again.
    """
    row = next(read_rows_backwards(part.files), None)
    if row is None or not row.flags & FileFlag.CONTINUES:
        return None
    row = row._replace(flags=int(row.flags & ~FileFlag.CONTINUES))
    return OpenMember(row, header_bytes=row.tar_bytes - padded(row.entry.size))
