"""Where a set goes on, case by case."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from committed_set import SET, commit, committed, part_of

from capstan.backup.resume import read_committed
from capstan.backup.source import FirstName
from capstan.core.files import FileEntry, FileFlag, FileType, Row
from capstan.errors import Refused
from capstan.fileindex.chain import ChainSet
from capstan.fileindex.store import FileIndexStore
from capstan.format.frames import Frame, OpenMember, ResumePoint, Totals

REGULAR, DIRECTORY, HARDLINK = FileType.REGULAR, FileType.DIRECTORY, FileType.HARDLINK


def entry(path: bytes, kind: FileType = REGULAR, *, size: int = 10, inode: int = 1, links: int = 1) -> FileEntry:
    return FileEntry(path, kind, 0o644, 0, 0, size, 5, 6, 7, inode, links)


def row(made_of: FileEntry, at: int = 0, *, tar_bytes: int = 1024, flags: FileFlag = FileFlag.NONE) -> Row:
    digest = bytes(32) if made_of.type is REGULAR and not flags & FileFlag.UNREADABLE else None
    return Row(made_of, at, 0 if flags & FileFlag.UNREADABLE else tar_bytes, digest, int(flags))


def frame(rows: list[Row], *, member: OpenMember | None = None, deleted: tuple[bytes, ...] = ()) -> Frame:
    return Frame(0, 4096, b"", rows, ResumePoint(4096, None, member, Totals(3, 30, 2)), deleted=list(deleted))


def test_without_a_commit_point_it_starts_over(tmp_path: Path) -> None:
    """Nothing is assumed."""
    state = committed(tmp_path, [], [])
    assert state.resume == ResumePoint()
    assert not state.chain.commits
    assert not state.links


def test_the_last_path_in_scan_order_counts(tmp_path: Path) -> None:
    """A directory that could not be listed is told of far behind its own place, and what was found to be deleted was
    looked at as well; a part that says nothing of paths leaves it to the one before."""
    unlisted = row(entry(b"s/a", DIRECTORY), flags=FileFlag.UNREADABLE)
    frames = [frame([row(entry(b"s/a", DIRECTORY)), row(entry(b"s/b"))]), frame([unlisted])]
    state = committed(tmp_path, frames, [0, 1])
    assert (state.resume.after, state.unlisted) == (b"s/b", (b"s/a",))
    frames = [frame([row(entry(b"s/a/x"))], deleted=(b"s/a/w", b"s/a/y", b"s/a/z"))]
    assert committed(tmp_path, frames, [0]).resume.after == b"s/a/z"
    frames = [frame([row(entry(b"s/b")), row(entry(b"s/a/c"), flags=FileFlag.UNREADABLE)], deleted=(b"s/c",))]
    assert committed(tmp_path, frames, [0]).resume.after == b"s/a/c"


def test_totals_are_those_of_the_last_commit_point(tmp_path: Path) -> None:
    """Files, bytes and warnings go on where they were."""
    assert committed(tmp_path, [frame([])], [0]).resume.totals == Totals(3, 30, 2)


def test_a_member_that_was_given_up_stays_open(tmp_path: Path) -> None:
    """Its damaged row is whole, and still the copy that shall follow it is missing: the provisional row says so."""
    damaged = row(entry(b"s/f"), flags=FileFlag.DAMAGED)
    state = committed(tmp_path, [frame([damaged], member=OpenMember(damaged, 1024 - 512))], [0])
    member = state.resume.open_member
    assert member is not None
    assert member.row.flags == FileFlag.DAMAGED
    assert member.header_bytes == 512


def test_a_gap_in_the_commit_points_is_refused(tmp_path: Path) -> None:
    """What is in between is not there, so nothing can be put behind it."""
    store = FileIndexStore(tmp_path / "indexes")
    store.add_part(SET.id, part_of(tmp_path, 2, [frame([])]))
    with pytest.raises(Refused):
        read_committed(SET, [commit(2, frame([]), frame([]))], store)


def test_hard_links_go_on(tmp_path: Path) -> None:
    """A first name is known while further names are to come, and if its content is in the set."""
    kept, done = (entry(b"s/%d" % number, inode=number, links=3) for number in (1, 2))
    bad, directory = entry(b"s/4", inode=4, links=2), entry(b"s/6", DIRECTORY)
    rows = [
        row(kept),
        row(done),
        row(bad, flags=FileFlag.DAMAGED),
        row(replace(directory, inode=6, links=9)),
        *(row(entry(name, HARDLINK, inode=2, links=3)) for name in (b"s/7", b"s/8")),
        row(entry(b"s/9", HARDLINK, inode=1, links=3)),
    ]
    state = committed(tmp_path, [frame(rows)], [0])
    assert state.links == (FirstName(7, 1, 6, 1, b"s/1"),)
    assert state.stored_firsts == {b"s/1"}


def test_hard_links_of_the_parent_go_on(tmp_path: Path) -> None:
    """A first name that did not change is in the parent; one behind the resume point is still to be met."""
    parent = part_of(tmp_path, 9, [frame([row(entry(b"s/1", links=2)), row(entry(b"s/5", inode=5, links=2))])])
    store = FileIndexStore(tmp_path / "indexes")
    store.add_part(SET.id, part_of(tmp_path, 1, [frame([row(entry(b"s/2", inode=2))])]))
    commits = [commit(1, frame([]), frame([]))]
    state = read_committed(SET, commits, store, [ChainSet("p", 0, (replace(parent, deleted=None),))])
    assert state.links == (FirstName(7, 1, 6, 1, b"s/1"),)
    assert not state.stored_firsts
