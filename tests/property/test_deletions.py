"""Any tree with any file systems in it, and any other one later: what an incremental set calls deleted is gone for
certain, what it keeps could come back, and the set after it sees the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from capstan.backup.changes import ChangedSource
from capstan.backup.continuity import mounts_on_top_of
from capstan.backup.source import Absence, Deletion, FirstName, OpenedFile, ScanItem
from capstan.core.files import FileEntry, FileType, is_below, scan_key
from capstan.core.mounts import Location, Mounted, MountTable
from capstan.fileindex.builder import FileIndexBuilder
from capstan.fileindex.chain import ChainSet
from capstan.fileindex.store import IndexPart

ROOT = b"r"
SECOND = 1_000_000_000


@dataclass
class Tree:
    """A source in memory: what it holds by path, and what is mounted in it."""

    entries: dict[bytes, FileEntry]
    table: MountTable

    @property
    def roots(self) -> list[bytes]:
        return [ROOT]

    def scan(self, after: bytes | None = None, links: Iterable[FirstName] | None = None) -> Iterator[ScanItem]:
        ordered = sorted(self.entries.values(), key=lambda entry: scan_key(entry.path))
        return (replace(item) for item in ordered if after is None or scan_key(item.path) > scan_key(after))

    def entry(self, path: bytes) -> FileEntry:
        if path not in self.entries:
            raise FileNotFoundError(path)
        return self.entries[path]

    def is_folder(self, path: bytes) -> bool:
        return not path or (path in self.entries and self.entries[path].type is FileType.DIRECTORY)

    def find_absence(self, path: bytes) -> Absence | None:
        if path in self.entries:
            return None
        above = path.rpartition(b"/")[0]
        while not self.is_folder(above):
            path, above = above, above.rpartition(b"/")[0]
        return Absence(above, self.table.locate(above) or Location("disk", above), path in self.entries)

    def locate(self, path: bytes) -> Location | None:
        return self.table.locate(path) if self.is_folder(path) else None

    def mounts(self) -> MountTable:
        return self.table

    def is_bare(self, path: bytes) -> bool:
        return not any(is_below(other, path) for other in self.entries)

    def open(self, entry: FileEntry) -> OpenedFile:
        raise AssertionError

    def descriptor(self, entry: FileEntry) -> int:
        raise AssertionError


names = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=3).map(b"/".join)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Below the root, files and directories of few names; some directories are mount points."""
    entries = {ROOT: entry(ROOT, FileType.DIRECTORY)}
    for name in sorted(draw(st.sets(names, max_size=8))):
        path = ROOT
        for part in name.split(b"/"):
            if entries[path].type is not FileType.DIRECTORY:
                break
            path += b"/" + part
            folder = draw(st.booleans()) or path != ROOT + b"/" + name
            entries.setdefault(path, entry(path, FileType.DIRECTORY if folder else FileType.REGULAR))
    folders = [path for path, item in entries.items() if item.type is FileType.DIRECTORY and path != ROOT]
    points = draw(st.sets(st.sampled_from(folders), max_size=2)) if folders else set()
    below = [Mounted(point, Location(draw(st.sampled_from(["one", "two"])), b"")) for point in sorted(points)]
    return Tree(entries, MountTable([Mounted(ROOT, Location("disk", ROOT), is_root=True), *below]))


def entry(path: bytes, kind: FileType) -> FileEntry:
    """All as old as each other: a path that is of the same kind in two trees did not change."""
    return FileEntry(path, kind, 0o755, 0, 0, 0, 7 * SECOND, 8 * SECOND, 1, 100)


def changes(folder: Path, before: dict[bytes, FileEntry], table: MountTable, now: Tree) -> dict[bytes, FileEntry]:
    """The state that an incremental set on top of `before` gives."""
    path = folder / "parent.parquet"
    builder = FileIndexBuilder(path)
    for number, item in enumerate(sorted(before.values(), key=lambda item: scan_key(item.path))):
        builder.add(item, number * 1024, 1024, None, 0)
    builder.finish()
    parent = ChainSet("p", 1_000 * SECOND, (IndexPart(1, "", path, path, path),))
    after = dict(before)
    for item in ChangedSource(now, [parent], before=table, started_ns=2_000 * SECOND).scan():
        if isinstance(item, Deletion):
            del after[item.path]
        elif isinstance(item, FileEntry):
            after[item.path] = item
    return after


def next_table(old: Tree, new: Tree) -> MountTable:
    return mounts_on_top_of(new, old.table, lambda path: any(is_below(other, path) for other in old.entries))


def is_gone(path: bytes, table: MountTable, now: Tree) -> bool:
    """Whether somebody who knows all would say that what was at `path` is gone: the place where it was is there, by the
    file system that it was in, and it is not; or a file is in the way of it ever coming back."""
    absence = now.find_absence(path)
    if absence is None:
        return False
    place = path if table.at(path) else path.rpartition(b"/")[0]
    there = absence.location.below(place[len(absence.above) :].lstrip(b"/"))
    return absence.replaced or there == table.locate(place)


@given(old=trees(), new=trees())
def test_only_what_is_gone_is_deleted(old: Tree, new: Tree) -> None:
    """The promise at the top of this file."""
    with tempfile.TemporaryDirectory() as folder:
        state = changes(Path(folder), old.entries, old.table, new)
        gone = {path for path in old.entries if path not in new.entries and is_gone(path, old.table, new)}
        assert old.entries.keys() - state.keys() <= gone
        assert new.entries.keys() <= state.keys()
        moved = any(new.locate(mount.path) != mount.location for mount in old.table)
        covered = any(old.table.locate(mount.path) != mount.location for mount in new.table)
        if not moved and not covered and not new.is_bare(ROOT):
            assert state.keys() == new.entries.keys()
        for path in state:
            above = path.rpartition(b"/")[0]
            while above:
                assert above not in state or state[above].type is FileType.DIRECTORY, f"{path!r} lies below a file"
                above = above.rpartition(b"/")[0]
        again = changes(Path(folder), state, next_table(old, new), new)
        assert again == state


@given(old=trees(), new=trees())
def test_what_comes_back_is_compared_again(old: Tree, new: Tree) -> None:
    """Everything is mounted again as it was, and untouched: the state is what it was, whatever was seen meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        state = changes(Path(folder), old.entries, old.table, new)
        state = changes(Path(folder), state, next_table(old, new), old)
        assert old.entries.keys() <= state.keys()
        left = {path for path in state if path not in old.entries}
        assert all(any(is_below(path, mount.path) or path == mount.path for mount in new.table) for path in left)
