"""What every source must do (`backup.source.BackupSource`).

Bind it by giving a fixture `tree` (a directory to fill) and a method `source(tree)` that opens it.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

from capstan.backup.source import BackupSource, FirstName
from capstan.core.files import FileEntry, FileType, scan_key


def fill(tree: Path) -> None:
    """Some of everything."""
    for name in ("b/x/1", "b/y/2", "a/3", "b.d/4", "b/5", "c/.hidden/6"):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100)
    (tree / "empty").mkdir()
    (tree / "link").symlink_to("b/x")
    os.link(tree / "b/5", tree / "a/same")
    os.mkfifo(tree / "fifo")
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff\xfe")).touch()


def entries(source: BackupSource, after: bytes | None = None) -> list[FileEntry]:
    """All entries of a scan; a warning fails."""
    found = []
    for item in source.scan(after):
        assert isinstance(item, FileEntry), item
        found.append(item)
    return found


class SourceContract:
    """Promises of the port."""

    def source(self, tree: Path) -> BackupSource:
        """The source over `tree`."""
        raise AssertionError("bind it")

    def test_the_order_is_that_of_the_scan_key(self, tree: Path) -> None:
        """Each entry once, with strictly ascending keys, those above the roots among them; the same tree gives the
        same order."""
        fill(tree)
        paths = [entry.path for entry in entries(self.source(tree))]
        assert all(scan_key(one) < scan_key(two) for one, two in pairwise(paths))
        top = os.fsencode(tree).lstrip(b"/")
        on_disk = {
            os.path.join(folder, name).lstrip(b"/")  # noqa: PTH118 (bytes)
            for folder, folders, files in os.walk(os.fsencode(tree))
            for name in (*folders, *files)
        }
        assert {path for path in paths if path.startswith(top + b"/")} == on_disk
        assert [entry.path for entry in entries(self.source(tree))] == paths

    def test_metadata(self, tree: Path) -> None:
        """Types, modes, owners, sizes, nanosecond times, link texts; one inode's further names are hard links."""
        fill(tree)
        os.utime(tree / "a/3", ns=(1, 1_234_567_890_123_456_789))
        (tree / "a/3").chmod(0o4751)
        found = {entry.path.rpartition(os.fsencode(tree.name) + b"/")[2]: entry for entry in entries(self.source(tree))}
        three = found[b"a/3"]
        assert (three.type, three.mode, three.size) == (FileType.REGULAR, 0o4751, 300)
        assert three.mtime_ns == 1_234_567_890_123_456_789
        assert (three.uid, three.gid) == ((tree / "a/3").stat().st_uid, (tree / "a/3").stat().st_gid)
        assert (found[b"link"].type, found[b"link"].target) == (FileType.SYMLINK, b"b/x")
        assert found[b"fifo"].type is FileType.FIFO
        assert found[b"empty"].type is FileType.DIRECTORY
        names = sorted((b"a/same", b"b/5"), key=lambda name: scan_key(found[name].path))
        assert [found[name].type for name in names] == [FileType.REGULAR, FileType.HARDLINK]
        assert found[names[1]].target == found[names[0]].path
        assert [found[name].links for name in (*names, b"a/3")] == [2, 2, 1]

    def test_attributes(self, tree: Path) -> None:
        """Extended attributes come with every entry that has some: those of regular files when they are opened."""
        fill(tree)
        attributes = {"a/3": "user.file", "a": "user.directory"}
        if os.geteuid() == 0:
            attributes |= {"b/x/1": "security.x", "link": "trusted.link", "fifo": "trusted.fifo"}
        for name, attribute in attributes.items():
            os.setxattr(tree / name, attribute, name.encode(), follow_symlinks=False)
        source = self.source(tree)
        found = {}
        for entry in entries(source):
            name = os.fsdecode(entry.path.rpartition(os.fsencode(tree.name) + b"/")[2])
            if name in attributes:
                if entry.type is FileType.REGULAR:
                    os.close(source.descriptor(entry))
                found[name] = dict(entry.xattrs)
        wanted = {name: {attribute.encode(): name.encode()} for name, attribute in attributes.items()}
        assert found == wanted

    def test_going_on_behind_any_path(self, tree: Path) -> None:
        """`after` gives exactly the rest, whichever entry it names."""
        fill(tree)
        whole = [entry.path for entry in entries(self.source(tree))]
        for number, path in enumerate(whole):
            assert [entry.path for entry in entries(self.source(tree), path)] == whole[number + 1 :]
        gone = whole[-1] + b"/never/was"
        assert entries(self.source(tree), gone) == []

    def test_going_on_links_to_what_is_stored(self, tree: Path) -> None:
        """`links` tells a new source the first names before `after`: a further name is a link to one whose ctime it
        has, and a file of its own otherwise."""
        fill(tree)
        first, further = (entry for entry in entries(self.source(tree)) if entry.inode == (tree / "b/5").stat().st_ino)
        known = FirstName(first.device, first.inode, first.ctime_ns, 1, first.path)
        for links, target in (([known], first.path), ([known._replace(ctime_ns=0)], b""), ([], b"")):
            rest = self.source(tree).scan(first.path, links)
            assert [item.target for item in rest if item.path == further.path and isinstance(item, FileEntry)] == [
                target
            ]

    def test_what_is_gone_is_proven(self, tree: Path) -> None:
        """By the innermost directory that is there; nothing is reached through a link, or what is no directory."""
        fill(tree)
        top, source = os.fsencode(tree).lstrip(b"/"), self.source(tree)

        def absence(name: bytes) -> tuple[bytes, bool]:
            found = source.find_absence(top + b"/" + name)
            assert found is not None
            assert found.location == source.locate(found.above)
            return found.above[len(top) + 1 :], found.replaced

        (tree / "alias").symlink_to("b")
        for name in (b"a/3", b"empty", b"link"):
            assert source.find_absence(top + b"/" + name) is None
        assert (absence(b"a/4"), absence(b"never/was/here")) == ((b"a", False), (b"", False))
        assert (absence(b"a/3/below a file"), absence(b"link/1")) == ((b"a", True), (b"", True))

    def test_mounts_and_locations(self, tree: Path) -> None:
        """The roots are among the mounts, each where it is; a directory's place follows from that of one above it."""
        fill(tree)
        source = self.source(tree)
        assert source.mounts().roots == frozenset(source.roots)
        for root in source.roots:
            mount = source.mounts().at(root)
            assert mount is not None and mount.location == source.locate(root)
            assert source.mounts().locate(root + b"/b/x") == source.locate(root + b"/b/x")
            assert source.locate(root + b"/b/5") is source.locate(root + b"/never") is None

    def test_bare_is_what_has_nothing_in_it(self, tree: Path) -> None:
        """Of a directory; what is no directory is not."""
        fill(tree)
        top, source = os.fsencode(tree).lstrip(b"/"), self.source(tree)
        assert source.is_bare(top + b"/empty")
        assert not any(source.is_bare(top + b"/" + name) for name in (b"a", b"a/3", b"link", b"fifo"))
        with pytest.raises(OSError):
            source.is_bare(top + b"/never")

    def test_an_open_file_is_the_one_that_was_scanned(self, tree: Path) -> None:
        """The entry comes from the descriptor; a link or another kind of file in its place is an OSError."""
        fill(tree)
        source = self.source(tree)
        entry = next(entry for entry in entries(source) if entry.path.endswith(b"a/3"))
        opened = source.open(entry)
        try:
            assert os.read(opened.descriptor, 1000) == b"a/3" * 100
            assert opened.entry.inode == entry.inode
        finally:
            os.close(opened.descriptor)
        (tree / "a/3").unlink()
        with pytest.raises(OSError):
            source.open(entry)
        (tree / "a/3").symlink_to(tree / "b/5")
        with pytest.raises(OSError):
            source.open(entry)
        (tree / "a/3").unlink()
        os.mkfifo(tree / "a/3")
        with pytest.raises(OSError):
            source.open(entry)
