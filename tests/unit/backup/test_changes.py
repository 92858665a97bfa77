"""What an incremental set stores and calls deleted, and what it must never call deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from capstan.backup.changes import ChangedSource
from capstan.backup.source import Absence, Deletion, DirectoryAgain, OpenedFile, ScanItem, SourceWarning
from capstan.core.files import FileEntry, FileFlag, FileType, scan_key
from capstan.core.mounts import Location, Mounted, MountTable
from capstan.errors import SourceError
from capstan.fileindex.builder import FileIndexBuilder
from capstan.fileindex.chain import ChainSet
from capstan.fileindex.store import IndexPart

SECOND = 1_000_000_000
STARTED = 1_000 * SECOND  # the parent
NOW = 2_000 * SECOND


def file(path: str, **facts: object) -> FileEntry:
    entry = FileEntry(path.encode(), FileType.REGULAR, 0o644, 0, 0, 5, 7 * SECOND, 8 * SECOND, 1, 100)
    return replace(entry, **facts)  # type: ignore[arg-type]


def folder(path: str, **facts: object) -> FileEntry:
    return file(path, type=FileType.DIRECTORY, size=0, **facts)


class ListedSource:
    """A source that gives what it was given. `there`: what is found there beside the items when it is looked for; all
    else is gone. `mounts`: what is mounted where, beside "disk"; in "shut" nothing can be looked for."""

    def __init__(
        self,
        items: Sequence[ScanItem],
        roots: Sequence[bytes] = (b"r",),
        *,
        there: Sequence[FileEntry] = (),
        mounts: dict[bytes, str] | None = None,
    ) -> None:
        self.roots = roots
        self._items = items
        self._there = {item.path: item for item in (*items, *there) if isinstance(item, FileEntry)}
        self._mounts = table(mounts or {}, roots)

    def scan(self, after: bytes | None = None, links: object = None) -> Iterator[ScanItem]:
        return (item for item in self._items if after is None or scan_key(item.path) > scan_key(after))

    def open(self, entry: FileEntry) -> OpenedFile:
        raise AssertionError

    def descriptor(self, entry: FileEntry) -> int:
        raise AssertionError

    def entry(self, path: bytes) -> FileEntry:
        if path not in self._there:
            raise FileNotFoundError(path)
        return self._there[path]

    def find_absence(self, path: bytes) -> Absence | None:
        above = path.rpartition(b"/")[0]
        location = self.locate(above) or Location("disk", b"")
        if location.file_system == "shut":
            raise PermissionError(13, "Permission denied")
        found = self._there.get(above)
        return None if path in self._there else Absence(above, location, found is not None and not is_folder(found))

    def mounts(self) -> MountTable:
        return self._mounts

    def locate(self, path: bytes) -> Location | None:
        return self._mounts.locate(path)

    def is_bare(self, path: bytes) -> bool:
        return not any(there.startswith(path + b"/") for there in self._there)


def is_folder(entry: FileEntry) -> bool:
    return entry.type is FileType.DIRECTORY


def table(mounts: dict[bytes, str], roots: Sequence[bytes] = (b"r",)) -> MountTable:
    """Roots on "disk", and what is mounted below them."""
    below = [Mounted(path, Location(name, b"")) for path, name in mounts.items()]
    return MountTable([*(Mounted(root, Location("disk", root), is_root=True) for root in roots), *below])


TREE = [folder("r"), file("r/a"), folder("r/d"), file("r/z"), file("r/d/1"), file("r/d/2")]


def parent(tmp_path: Path, entries: Sequence[FileEntry], flags: dict[str, int] | None = None) -> ChainSet:
    path = tmp_path / "parent.parquet"
    builder = FileIndexBuilder(path)
    for number, entry in enumerate(sorted(entries, key=lambda entry: scan_key(entry.path))):
        builder.add(entry, number * 1024, 1024, None, (flags or {}).get(entry.path.decode(), 0))
    builder.finish()
    return ChainSet("p", STARTED, (IndexPart(1, "", path, path, path),))


def changes(
    tmp_path: Path,
    now: Sequence[ScanItem],
    before: Sequence[FileEntry] = TREE,
    *,
    flags: dict[str, int] | None = None,
    after: bytes | None = None,
    kept: Sequence[bytes] = (),
    there: Sequence[FileEntry] = (),
    had: dict[bytes, str] | None = None,
    has: dict[bytes, str] | None = None,
) -> list[str]:
    """What is yielded: `+path` stored, `-path` deleted, `code:path` warned about. What was mounted, and what is now."""
    listed = ListedSource(now, there=there, mounts=has)
    source = changed(listed, parent(tmp_path, before, flags), had=had, kept=kept)
    return [told(item) for item in source.scan(after) if not isinstance(item, DirectoryAgain)]


def changed(
    source: ListedSource, parent: ChainSet, *, had: dict[bytes, str] | None = None, kept: Sequence[bytes] = ()
) -> ChangedSource:
    return ChangedSource(source, [parent], before=table(had or {}, source.roots), started_ns=NOW, kept=kept)


def told(item: ScanItem) -> str:
    if isinstance(item, FileEntry):
        return "+" + item.path.decode()
    return ("-" if isinstance(item, Deletion) else item.code + ":") + item.path.decode()


def without(*paths: str) -> list[FileEntry]:
    return [entry for entry in TREE if entry.path.decode() not in paths]


def test_nothing_changed_is_nothing_stored(tmp_path: Path) -> None:
    """Neither files nor directories."""
    assert changes(tmp_path, TREE) == []


@pytest.mark.parametrize(
    "facts",
    [
        {"size": 6},
        {"mtime_ns": 9 * SECOND},
        {"mtime_ns": 7 * SECOND + 1},
        {"ctime_ns": 9 * SECOND},
        {"inode": 101},
        {"mode": 0o600},
        {"uid": 1},
        {"gid": 1},
        {"type": FileType.FIFO, "size": 5},
    ],
)
def test_whatever_changed_is_stored(tmp_path: Path, facts: dict[str, object]) -> None:
    """Each of the things that are compared, alone (extended attributes change the ctime)."""
    assert changes(tmp_path, [replace(e, **facts) if e.path == b"r/a" else e for e in TREE]) == ["+r/a"]  # type: ignore[arg-type]


def test_another_device_number_is_no_change(tmp_path: Path) -> None:
    """After a restart a file system may have another one."""
    assert changes(tmp_path, [replace(entry, device=9) for entry in TREE]) == []


def test_new_and_gone(tmp_path: Path) -> None:
    """A directory that is gone takes its content along, path by path."""
    now = [*without("r/d", "r/d/1", "r/d/2"), file("r/zz")]
    assert changes(tmp_path, now) == ["-r/d", "+r/zz", "-r/d/1", "-r/d/2"]


@pytest.mark.parametrize("flag", [FileFlag.CHANGED, FileFlag.DAMAGED, FileFlag.UNREADABLE])
def test_a_mark_means_again(tmp_path: Path, flag: FileFlag) -> None:
    """What changed while it was read, or failed, is stored again whatever its times."""
    assert changes(tmp_path, TREE, flags={"r/z": flag}) == ["+r/z"]


@pytest.mark.parametrize("late", [STARTED - 2 * SECOND, STARTED, STARTED + 5 * SECOND])
def test_times_near_the_scan_prove_nothing(tmp_path: Path, late: int) -> None:
    """Within two seconds before the parent's scan, or behind it; a moment earlier is old enough."""
    racy = [replace(entry, mtime_ns=late) if entry.path == b"r/a" else entry for entry in TREE]
    assert changes(tmp_path, racy, racy) == ["+r/a"]
    settled = [replace(e, ctime_ns=STARTED - 2 * SECOND - 1) if e.path == b"r/a" else e for e in TREE]
    assert changes(tmp_path, settled, settled) == []


def test_a_time_that_is_still_to_come_is_no_reason_to_store_again(tmp_path: Path) -> None:
    """Somebody set it, or a camera's clock is wrong; what the kernel says counts."""
    ahead = [replace(entry, mtime_ns=9 * NOW) if entry.path == b"r/a" else entry for entry in TREE]
    assert changes(tmp_path, ahead, ahead) == []
    racy = [replace(entry, ctime_ns=STARTED) if entry.path == b"r/a" else entry for entry in ahead]
    assert changes(tmp_path, racy, racy) == ["+r/a"]


def test_a_directory_that_cannot_be_listed_keeps_its_content(tmp_path: Path) -> None:
    """Nothing below it is called deleted; what is elsewhere is."""
    now = [*without("r/a", "r/d/1", "r/d/2"), SourceWarning("unreadable", b"r/d")]
    assert changes(tmp_path, now) == ["-r/a", "unreadable:r/d"]


def test_a_directory_that_cannot_be_looked_at_keeps_its_content(tmp_path: Path) -> None:
    """It goes into the index as unreadable, so that a scan that begins behind it knows."""
    now = [folder("r"), file("r/a"), SourceWarning("unreadable", b"r/d"), file("r/z")]
    assert changes(tmp_path, now) == ["unreadable:r/d"]
    source = changed(ListedSource(now), parent(tmp_path, TREE))
    [warning] = source.scan()
    assert isinstance(warning, SourceWarning)
    assert warning.entry == folder("r/d")
    assert changes(tmp_path, [file("r/z")], after=b"r/d", kept=[b"r/d"]) == []


def test_what_vanished_under_the_scan_stays_until_the_next(tmp_path: Path) -> None:
    """It may only have been renamed to where the scan had been already."""
    now = [*TREE[:3], SourceWarning("vanished", b"r/z"), *TREE[4:]]
    assert changes(tmp_path, now) == ["vanished:r/z"]


def test_a_socket_takes_the_place_of_a_file(tmp_path: Path) -> None:
    """It is not stored, but what was there is gone."""
    now = [*TREE[:3], SourceWarning("socket", b"r/z"), *TREE[4:]]
    assert changes(tmp_path, now) == ["-r/z", "socket:r/z"]


M = {b"r/d": "usb"}


@pytest.mark.parametrize("now", [{}, {b"r/d": "another"}])
def test_an_unmounted_file_system_keeps_its_content(tmp_path: Path, now: dict[bytes, str]) -> None:
    """Its mount point is there, and nothing or another one is mounted. The next set sees the same: its row stays."""
    there = without("r/d/1", "r/d/2")
    assert changes(tmp_path, there, had=M, has=now) == ["unmounted:r/d"]
    assert changes(tmp_path, there, had=M, has=M) == ["-r/d/1", "-r/d/2"]
    assert changes(tmp_path, [file("r/z")], after=b"r/d", kept=[b"r/d"], had=M, has=now) == []


def test_a_file_system_that_is_gone_with_its_mount_point_keeps_its_content(tmp_path: Path) -> None:
    """So do removable disks."""
    assert changes(tmp_path, without("r/d", "r/d/1", "r/d/2"), had=M) == ["unmounted:r/d"]


def test_a_file_system_that_went_before_the_scan_goes_on_keeps_its_content(tmp_path: Path) -> None:
    """An earlier process met its mount point while it was there."""
    assert changes(tmp_path, [], after=b"r/z", there=TREE[:4], had=M) == ["unmounted:r/d"]
    before = [*TREE, folder("r/x"), file("r/x/1")]
    assert changes(tmp_path, [file("r/x/1")], before, after=b"r/z", had=M) == ["unmounted:r/d"]


def test_nothing_is_kept_below_what_is_no_directory(tmp_path: Path) -> None:
    """A file where a file system was mounted: a tree cannot hold both."""
    now = sorted([*without("r/d", "r/d/1", "r/d/2"), file("r/d")], key=lambda entry: scan_key(entry.path))
    assert changes(tmp_path, now, had=M) == ["+r/d", "-r/d/1", "-r/d/2"]


def test_nor_below_what_is_no_directory_in_the_file_system_that_came(tmp_path: Path) -> None:
    """All of the old one is kept, but for what a file of the new one has the name of."""
    before = [*TREE, folder("r/d/3"), file("r/d/3/4")]
    now = [*TREE[:4], file("r/d/3")]
    assert changes(tmp_path, now, before, had=M, has={b"r/d": "another"}) == ["unmounted:r/d", "+r/d/3", "-r/d/3/4"]


def test_what_the_scan_missed_and_is_there_is_not_deleted(tmp_path: Path) -> None:
    """It came back in the meantime: the next backup meets it."""
    assert changes(tmp_path, without("r/a", "r/d/1"), there=[file("r/a")]) == ["-r/d/1"]


def test_what_cannot_be_looked_for_is_not_deleted(tmp_path: Path) -> None:
    """The directory is told, once."""
    assert changes(tmp_path, without("r/d/1", "r/d/2"), had={b"r/d": "shut"}, has={b"r/d": "shut"}) == [
        "unreadable:r/d"
    ]


def test_a_root_that_is_suddenly_empty_keeps_its_content(tmp_path: Path) -> None:
    """Told once; the directory's own new time is stored."""
    now = [folder("r", mtime_ns=9 * SECOND)]
    assert changes(tmp_path, now) == ["+r", "empty:r"]
    assert changes(tmp_path, [folder("r"), file("r/new")]) == ["-r/a", "-r/d", "+r/new", "-r/z", "-r/d/1", "-r/d/2"]


@pytest.mark.parametrize("after", [b"r/a", b"r/z", b"r/d/1"])
def test_a_root_that_was_emptied_before_the_scan_goes_on_keeps_its_content(tmp_path: Path, after: bytes) -> None:
    """What an earlier scan has met there proves nothing for what this one does not meet."""
    assert changes(tmp_path, [], after=after) == ["empty:r"]


def test_a_root_where_something_is_left_is_not_empty(tmp_path: Path) -> None:
    """What was stored by an earlier process, or is left out: the rest is gone."""
    assert changes(tmp_path, [], after=b"r/d/1", there=TREE[:4]) == ["-r/d/2"]
    assert changes(tmp_path, [folder("r")], there=[file("r/left out")]) == ["-r/a", "-r/d", "-r/z", "-r/d/1", "-r/d/2"]


def test_of_roots_in_one_another_the_inner_counts(tmp_path: Path) -> None:
    """Nothing is in it any more, and the outer one holds something."""
    now = without("r/a", "r/d/1", "r/d/2")
    source = changed(ListedSource(now, [b"r", b"r/d"]), parent(tmp_path, TREE))
    assert [told(item) for item in source.scan()] == ["-r/a", "empty:r/d"]


def test_the_names_of_a_file_go_together(tmp_path: Path) -> None:
    """If the first name is stored again, its further names are, so that they are one file in this set too."""
    before = [folder("r"), file("r/a", links=2), file("r/b", links=2, type=FileType.HARDLINK, size=0, target=b"r/a")]
    assert changes(tmp_path, before, before) == []
    assert changes(tmp_path, before, before, flags={"r/a": FileFlag.CHANGED}) == ["+r/a", "+r/b"]


def test_a_scan_that_begins_in_the_middle_is_the_rest(tmp_path: Path) -> None:
    """For every point: what is yielded behind it is what the whole scan yields behind it."""
    now = [folder("r"), file("r/a", size=6), file("r/n"), file("r/z"), folder("r/q"), file("r/q/1")]
    now = sorted(now, key=lambda entry: scan_key(entry.path))
    source = changed(ListedSource(now), parent(tmp_path, TREE))
    whole = [item for item in source.scan() if not isinstance(item, DirectoryAgain)]
    for at, item in enumerate(whole):
        rest = [item for item in source.scan(item.path) if not isinstance(item, DirectoryAgain)]
        assert rest == whole[at + 1 :]


def test_a_directory_comes_again_behind_what_is_stored_in_it(tmp_path: Path) -> None:
    """But not one that is stored itself, for it has changed; behind an earlier scan it may have to come."""

    def directories(now: Sequence[FileEntry], after: bytes | None = None) -> list[bytes]:
        listed = ListedSource(
            [item for item in now if after is None or scan_key(item.path) > scan_key(after)], there=now
        )
        source = changed(listed, parent(tmp_path, TREE))
        return [item.path if isinstance(item, DirectoryAgain) else b"+" + item.path for item in source.scan(after)]

    touched = [replace(e, mtime_ns=9 * SECOND) if e.path in (b"r/a", b"r/d/2") else e for e in TREE]
    assert directories(touched) == [b"+r/a", b"r", b"+r/d/2", b"r/d"]
    assert directories(touched, b"r/d/2") == [b"r/d"]
    made = [replace(e, ctime_ns=STARTED) if e.path == b"r/d" else e for e in touched]
    assert directories(made) == [b"+r/a", b"+r/d", b"r", b"+r/d/2"]


def test_a_source_out_of_order_is_refused(tmp_path: Path) -> None:
    """Merging would silently go wrong."""
    with pytest.raises(SourceError, match="out of order"):
        changes(tmp_path, [folder("r"), file("r/z"), file("r/a")])
