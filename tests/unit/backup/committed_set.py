"""A set that was committed at some frames of a pipeline, as catalog and file index have it then."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from capstan.backup.resume import Committed, read_committed
from capstan.core.backup import BackupSet, Commit, Segment, SetState, SetType
from capstan.core.files import FileFlag
from capstan.fileindex.builder import FileIndexBuilder
from capstan.fileindex.store import FileIndexStore, IndexPart
from capstan.format.frames import Frame

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SET = BackupSet("5b0c9f5e-0000-4000-8000-000000000003", 1, "t", SetType.FULL, SetState.INCOMPLETE, NOW)


def part_of(folder: Path, sequence: int, frames: Sequence[Frame]) -> IndexPart:
    """The tables of an INDEX behind the last of `frames`, which came since the one before."""
    part = IndexPart(
        sequence,
        f"{sequence:064}",
        *(folder / f"{sequence}.{name}" for name in ("files", "frames", "records", "deleted")),
    )
    builder = FileIndexBuilder(part.files)
    for frame in frames:
        for row in frame.rows:
            builder.add(*row)
    member = frames[-1].resume.open_member
    if member is not None:
        row = member.row
        builder.add(row.entry, row.tar_offset, row.tar_bytes, None, row.flags | FileFlag.CONTINUES)
    builder.finish()
    for path in (part.frames, part.records):
        path.touch()
    assert part.deleted is not None
    part.deleted.write_bytes(b"".join(path + b"\0" for frame in frames for path in frame.deleted))
    return part


def committed(folder: Path, frames: Sequence[Frame], cuts: Sequence[int]) -> Committed:
    """What is derived when there is a commit point behind each of the frames numbered `cuts`, in order."""
    store = FileIndexStore(folder / "indexes")
    commits = []
    for sequence, (begin, end) in enumerate(zip([0, *(cut + 1 for cut in cuts)], cuts, strict=False), 1):
        store.add_part(SET.id, part_of(folder, sequence, frames[begin : end + 1]))
        commits.append(commit(sequence, frames[begin], frames[end]))
    SET.warning_count = frames[cuts[-1]].resume.totals.warnings if cuts else 0
    return read_committed(SET, commits, store)


def commit(sequence: int, first: Frame, last: Frame) -> Commit:
    """A commit point with one segment."""
    totals = last.resume.totals
    end = last.resume.tar_offset
    segment = Segment(
        SET.id, sequence - 1, "u", "B", 2 * sequence, 0, 1, 65536, 100, "", first.tar_offset, end - first.tar_offset
    )
    return Commit(
        set_id=SET.id,
        sequence=sequence,
        cartridge="u",
        barcode="B",
        tape_file=2 * sequence + 1,
        block=10 * sequence,
        end_block=10 * sequence + 3,
        header_sha256=f"{sequence:064}",
        payload_bytes=1,
        payload_sha256="",
        final=last.last,
        files=totals.files,
        bytes=totals.bytes,
        tar_end=end,
        committed_at=NOW,
        segments=(segment,),
    )
