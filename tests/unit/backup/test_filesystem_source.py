"""The file system as a source: many roots, long paths, large directories, what cannot be listed, hard links."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from capstan.backup.filesystem import FilesystemSource
from capstan.backup.source import FirstName, SourceWarning
from capstan.core.files import FileEntry, FileType, scan_key
from capstan.errors import SourceError, StorageFailed
from capstan.testing.source_contract import entries


def stored(path: Path) -> bytes:
    return bytes(path)[1:]


def paths_of(source: FilesystemSource, after: bytes | None = None) -> list[bytes]:
    return [entry.path for entry in entries(source, after)]


def deepen(top: Path, name: bytes, depth: int) -> int:
    """Make `depth` directories inside one another; returns a descriptor of the innermost."""
    at = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=at)
        inner = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    return at


def remove(at: int, name: bytes, depth: int) -> None:
    """Remove what `deepen` made, from the inside out: few tools can. Closes the descriptor."""
    for inner in os.listdir(at):
        os.rmdir(inner, dir_fd=at) if inner == "sub" else os.unlink(inner, dir_fd=at)
    for _ in range(depth):
        outer = os.open("..", os.O_RDONLY, dir_fd=at)
        os.close(at)
        os.rmdir(name, dir_fd=outer)
        at = outer
    os.close(at)


# ── roots ─────────────────────────────────────────────────────────────────────────────────────────────


def test_going_on_after_the_first_root_loses_nothing_of_the_second(tmp_path: Path) -> None:
    """All entries above the roots and the roots themselves come before what is in them; so what comes behind a path in
    the first root never lacks the second, be it a directory or a plain file."""
    for name in ("a/x", "a/y", "b/z"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "c.txt").touch()
    roots = [bytes(tmp_path / name) for name in ("c.txt", "b", "a")]
    found = paths_of(FilesystemSource(roots))
    assert found[-6:] == [stored(tmp_path / name) for name in ("a", "b", "c.txt", "a/x", "a/y", "b/z")]
    for number, path in enumerate(found):
        assert paths_of(FilesystemSource(roots), path) == found[number + 1 :]


def test_a_root_below_a_link_is_stored_where_it_is(tmp_path: Path) -> None:
    """Nothing can come back below a link: the path is that of the real directory, and a root is never lost because
    another one has the link to it. A root that is a link itself is stored as the link."""
    (tmp_path / "real/sub").mkdir(parents=True)
    (tmp_path / "real/sub/file").touch()
    (tmp_path / "top").mkdir()
    (tmp_path / "top/link").symlink_to(tmp_path / "real")
    found = paths_of(FilesystemSource([bytes(tmp_path / "top"), bytes(tmp_path / "top/link/sub")]))
    assert stored(tmp_path / "real/sub/file") in found and stored(tmp_path / "top/link") in found
    assert not any(path.startswith(stored(tmp_path / "top/link") + b"/") for path in found)
    last = entries(FilesystemSource([bytes(tmp_path / "top/link")]))[-1]
    assert (last.type, last.path) == (FileType.SYMLINK, stored(tmp_path / "top/link"))


def test_no_roots_are_nothing(tmp_path: Path) -> None:
    """Nothing was named, so nothing is taken: never the whole machine."""
    assert entries(FilesystemSource([])) == []


@pytest.mark.requires("root", "mount")
@pytest.mark.parametrize("rules", [{}, {"one_file_system": True}])
def test_a_file_system_that_goes_or_comes_under_the_scan(tmp_path: Path, rules: dict[str, bool]) -> None:
    """Between its entry and its turn: that nothing of it is taken, or something else, is never passed over in silence.
    What is mounted in a plain directory is taken as it is, unless it lies outside."""
    point, early = tmp_path / "z/mnt", tmp_path / "a"
    point.mkdir(parents=True)
    early.mkdir()
    (point / "under").touch()

    def scan_and(command: str, roots: list[bytes]) -> list[str]:
        found = []
        for item in FilesystemSource(roots, **rules).scan():
            if item.path == stored(point) and isinstance(item, FileEntry):
                subprocess.run([*command.split(), str(point)], check=True)
            if item.path.startswith(stored(point)):
                found.append(getattr(item, "code", "entry") + " " + os.fsdecode(item.path[len(stored(point)) :]))
        return found

    comes = scan_and("mount -t tmpfs none", [bytes(tmp_path)])
    try:
        assert comes == (["entry ", "unmounted "] if rules else ["entry "])
        (point / "file").touch()
    finally:
        goes = scan_and("umount", [bytes(tmp_path)])
    assert goes == (["entry "] if rules else ["entry ", "unmounted "])


@pytest.mark.requires("root", "mount")
def test_mounts_are_those_that_a_scan_enters(tmp_path: Path) -> None:
    """Not what is left out, or lies elsewhere; a source that is a file has the place that its name has."""
    for name in ("in/taken", "in/left/out", "beside"):
        (tmp_path / name).mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path / name)], check=True)
    try:
        roots = [bytes(tmp_path / "in")]
        table = FilesystemSource(roots, excludes=["left"]).mounts()
        assert [mount.path for mount in table] == [stored(tmp_path / "in"), stored(tmp_path / "in/taken")]
        assert len(FilesystemSource(roots, one_file_system=True).mounts()) == 1
        taken = table.at(stored(tmp_path / "in/taken"))
        assert taken is not None and taken.location.file_system.startswith("tmpfs fsid ")
        (tmp_path / "in/file").touch()
        source = FilesystemSource([bytes(tmp_path / "in/file")])
        before, path = source.mounts(), stored(tmp_path / "in/file")
        (tmp_path / "in/file").unlink()
        (tmp_path / "in/file").mkdir()
        assert before.locate(path) == source.locate(path)
    finally:
        for name in ("in/taken", "in/left/out", "beside"):
            subprocess.run(["umount", str(tmp_path / name)], check=True)


@pytest.mark.requires("root", "mount")
def test_what_the_kernel_makes_up_is_left_out(tmp_path: Path) -> None:
    """Its mount point is stored empty; one that was named is taken."""
    point = tmp_path / "proc"
    point.mkdir()
    subprocess.run(["mount", "-t", "proc", "proc", str(point)], check=True)
    try:
        assert paths_of(FilesystemSource([bytes(tmp_path)]))[-1] == stored(point)
        assert stored(point / "version") in paths_of(FilesystemSource([bytes(point / "version")]))
    finally:
        subprocess.run(["umount", str(point)], check=True)


@pytest.mark.requires("root", "mount")
def test_one_file_system(tmp_path: Path) -> None:
    """A mount point is stored as an empty directory, however deep it lies; one that was named is a root of its own."""
    mounted = tmp_path / "in/mounted"
    mounted.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(mounted)], check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        (mounted / "file").touch()
        roots = [bytes(tmp_path)]
        assert paths_of(FilesystemSource(roots))[-1] == stored(mounted / "file")
        assert paths_of(FilesystemSource(roots, one_file_system=True))[-1] == stored(mounted)
        both = FilesystemSource([*roots, bytes(mounted)], one_file_system=True)
        assert paths_of(both)[-1] == stored(mounted / "file")
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_what_is_left_out(tmp_path: Path) -> None:
    """A directory to skip leaves no trace, unless it is the root; a socket is one warning."""
    (tmp_path / "home/inner").mkdir(parents=True)
    (tmp_path / "home/file").touch()
    (tmp_path / "kept").touch()
    status = (tmp_path / "home").stat()
    skip = [(status.st_dev, status.st_ino)]
    found = paths_of(FilesystemSource([bytes(tmp_path)], skip=skip))
    assert found[-2:] == [stored(tmp_path), stored(tmp_path / "kept")]
    assert stored(tmp_path / "home/file") in paths_of(FilesystemSource([bytes(tmp_path / "home")], skip=skip))
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket is short
        try:
            listener.bind("socket")
        finally:
            os.chdir(folder)
    warnings = [item for item in FilesystemSource([bytes(tmp_path)]).scan() if isinstance(item, SourceWarning)]
    assert [(warning.code, warning.path) for warning in warnings] == [("socket", stored(tmp_path / "socket"))]


# ── long paths ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("depth", [*range(14, 19), 40])
def test_a_path_of_any_length_is_read_like_a_short_one(tmp_path: Path, depth: int) -> None:
    """Below, around and far above 4096 bytes, names of 255 bytes: scanned with link text and attributes, described
    alone, opened and read, gone on from."""
    at = deepen(tmp_path, b"n" * 255, depth)
    longest = b"f" * 255
    file = os.open(longest, os.O_CREAT | os.O_WRONLY, dir_fd=at)
    os.write(file, b"content")
    try:
        os.setxattr(file, "user.capstan", b"file")
        os.setxattr(at, "user.capstan", b"directory")
        attributes = True
    except OSError:
        attributes = False
    os.close(file)
    os.symlink(b"where", b"link", dir_fd=at)
    os.mkdir(b"sub", dir_fd=at)
    source = FilesystemSource([bytes(tmp_path)])
    found = entries(source)
    inner = stored(tmp_path) + b"/" + b"/".join([b"n" * 255] * depth)
    assert [entry.path for entry in found[-4:]] == [
        inner,
        *(inner + b"/" + name for name in (longest, b"link", b"sub")),
    ]
    for entry in found[-4:]:
        again = source.entry(entry.path)
        assert (again.inode, again.type, again.target) == (entry.inode, entry.type, entry.target)
    assert found[-2].target == b"where"
    assert not attributes or (b"user.capstan", b"directory") in found[-4].xattrs
    opened = source.open(found[-3])
    assert os.read(opened.descriptor, 100) == b"content"
    os.close(opened.descriptor)
    assert not attributes or (b"user.capstan", b"file") in opened.entry.xattrs
    for number in range(-4, 0):
        assert paths_of(FilesystemSource([bytes(tmp_path)]), found[number].path) == [e.path for e in found][number:][1:]
    assert entries(FilesystemSource([b"/" + inner]))[-1].path == inner + b"/sub"
    with pytest.raises(FileNotFoundError):
        source.entry(inner + b"/nowhere")
    with pytest.raises(OSError):
        source.open(found[-2])
    remove(at, b"n" * 255, depth)


def test_a_tree_that_is_3000_directories_deep(tmp_path: Path) -> None:
    """Depth has no limit: neither recursion nor open descriptors grow with it."""
    at = deepen(tmp_path, b"d", 3000)
    held = len(os.listdir("/proc/self/fd"))
    scan = FilesystemSource([bytes(tmp_path)]).scan()
    deepest = 0
    for item in scan:
        assert isinstance(item, FileEntry), item
        if item.path.endswith(b"/d"):
            deepest += 1
            assert len(os.listdir("/proc/self/fd")) <= held + 2
    assert deepest == 3000
    remove(at, b"d", 3000)


# ── large directories ─────────────────────────────────────────────────────────────────────────────────


def test_a_large_directory_is_sorted_on_disk(tmp_path: Path) -> None:
    """Beyond the limit, files and subdirectories alike, the scan is the same, at every place to go on from; the spool
    is used, and empty all the time."""
    tree, spool = tmp_path / "tree", tmp_path / "spool"
    spool.mkdir()
    for number in range(0, 700, 7):
        (tree / f"directory-{number * 37 % 1000}").mkdir(parents=True)
        (tree / f"directory-{number * 37 % 1000}" / "file").touch()
        (tree / f"file-{number * 37 % 1000}").touch()
    whole = paths_of(FilesystemSource([bytes(tree)]))
    held = set(os.listdir("/proc/self/fd"))
    scan = FilesystemSource([bytes(tree)], spool=spool, names_in_memory=16).scan()
    found = []
    spooled = 0
    for item in scan:
        found.append(item.path)
        spooled = max(spooled, len(set(os.listdir("/proc/self/fd")) - held))
        assert not list(spool.iterdir())
    assert found == whole
    assert spooled >= 3  # the directory, the runs of its names, those of its subdirectories
    for number in range(0, len(whole), 9):
        source = FilesystemSource([bytes(tree)], spool=spool, names_in_memory=16)
        assert paths_of(source, whole[number]) == whole[number + 1 :]
    with pytest.raises(StorageFailed, match="nowhere"):
        paths_of(FilesystemSource([bytes(tree)], spool=tmp_path / "nowhere", names_in_memory=16))


PEAK = """
import re, sys
from pathlib import Path
from capstan.backup.filesystem import FilesystemSource

def peak():  # KiB; getrusage would count what the parent had before this program was loaded
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

folder, limit = sys.argv[1].encode(), int(sys.argv[2])
start = peak()
count = sum(1 for entry in FilesystemSource([folder], names_in_memory=limit).scan())
print(count, peak() - start)
"""


def test_memory_does_not_grow_with_a_directory(tmp_path: Path) -> None:
    """30,000 files in one directory are scanned within 6 MiB where 2,500 names are kept."""
    at = os.open(tmp_path, os.O_RDONLY)
    for number in range(30_000):
        os.close(os.open(b"a rather long name of a file, number %d" % number, os.O_CREAT, dir_fd=at))
    os.close(at)
    command = [sys.executable, "-c", PEAK, str(tmp_path), "2500"]
    count, grown = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert count >= 30_000
    assert 0 < grown < 6 << 10


# ── what cannot be listed ─────────────────────────────────────────────────────────────────────────────


class BreakingListing:
    """Lists a directory, and fails behind some names, as a disk does."""

    def __init__(self, inner: os._ScandirIterator[str], good: int, code: int) -> None:
        self._inner, self._good, self._code = inner, good, code

    def __enter__(self) -> BreakingListing:
        return self

    def __exit__(self, *_: object) -> None:
        self._inner.close()

    def __iter__(self) -> BreakingListing:
        return self

    def __next__(self) -> os.DirEntry[str]:
        if not self._good:
            raise OSError(self._code, os.strerror(self._code))
        self._good -= 1
        return next(self._inner)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("limit", [3, 1000])
def test_a_listing_that_breaks_off_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, limit: int
) -> None:
    """Nothing of what was listed until then is taken, the directory is named once where its content would stand, and
    the rest of the tree is not harmed."""
    for name in ("good/1", "torn/1", "torn/2", "torn/3", "torn/4", "torn/5", "whole/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    torn, scandir = (tmp_path / "torn").stat().st_ino, os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda at: BreakingListing(scandir(at), 4, code) if os.fstat(at).st_ino == torn else scandir(at)
    )
    found = list(FilesystemSource([bytes(tmp_path)], names_in_memory=limit).scan())
    assert [item.path for item in found[-6:]] == [
        stored(tmp_path / name) for name in ("good", "torn", "whole", "good/1", "torn", "whole/1")
    ]
    warning = found[-2]
    assert isinstance(warning, SourceWarning)
    assert (warning.code, warning.detail) == ("unreadable", os.strerror(code))
    with pytest.raises(SourceError, match="torn"):
        list(FilesystemSource([bytes(tmp_path / "torn")]).scan())


def test_a_name_that_is_listed_twice_comes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that changes while it is listed may give a name twice, or a name that is gone: the order stays
    strictly ascending."""
    for name in ("dir/1", "file"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    scandir = os.scandir

    @contextmanager
    def twice(at: int) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(at) as found:
            names = list(found)
            yield iter(names + names)

    whole = paths_of(FilesystemSource([bytes(tmp_path)]))
    monkeypatch.setattr(os, "scandir", twice)
    assert paths_of(FilesystemSource([bytes(tmp_path)])) == whole


def test_what_is_gone_has_vanished(tmp_path: Path) -> None:
    """A file and a directory that are there when their directory is listed and not when their turn comes: one warning
    each, told apart from what is there and cannot be read."""
    for name in ("dir/1", "file", "last"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = []
    for item in FilesystemSource([bytes(tmp_path)]).scan():
        found.append(item)
        if isinstance(item, FileEntry) and item.path == stored(tmp_path / "dir"):
            shutil.rmtree(tmp_path / "dir")
            (tmp_path / "file").unlink()
    assert [(type(item), item.path) for item in found[-4:]] == [
        (FileEntry, stored(tmp_path / "dir")),
        (SourceWarning, stored(tmp_path / "file")),
        (FileEntry, stored(tmp_path / "last")),
        (SourceWarning, stored(tmp_path / "dir")),
    ]
    assert {item.code for item in found if isinstance(item, SourceWarning)} == {"vanished"}


def test_a_link_in_the_place_of_a_directory_is_not_followed(tmp_path: Path) -> None:
    """What replaced a directory since it was described is not walked: one warning, and it has not vanished."""
    (tmp_path / "tree/dir").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    found = []
    for item in FilesystemSource([bytes(tmp_path / "tree")]).scan():
        found.append(item)
        if isinstance(item, FileEntry) and item.path == stored(tmp_path / "tree/dir"):
            (tmp_path / "tree/dir").rmdir()
            (tmp_path / "tree/dir").symlink_to(tmp_path / "outside")
    last = found[-1]
    assert isinstance(last, SourceWarning)
    assert (last.code, last.path) == ("unreadable", stored(tmp_path / "tree/dir"))


DENIED = """
import os, sys
from capstan.backup.filesystem import FilesystemSource
from capstan.backup.source import SourceWarning
from capstan.errors import SourceError

os.chdir("/")
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for item in FilesystemSource([sys.argv[1].encode()]).scan():
    if isinstance(item, SourceWarning):
        print(item.code, item.path.decode())
try:
    next(FilesystemSource([part.encode() for part in sys.argv[1:]]).scan())
except SourceError as error:
    print("source", error.parameters["path"])
"""


@pytest.mark.requires("root")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    """Without the right to list a directory: a warning `unreadable`, or an error before anything is yielded where it is
    a root. Directories above a root need not be listed."""
    for folder in (tmp_path, *tmp_path.parents[: len(tmp_path.relative_to(tempfile.gettempdir()).parts) - 1]):
        folder.chmod(0o711)  # somebody else is to get here
    (tmp_path / "open/closed").mkdir(parents=True)
    (tmp_path / "open/closed/file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "open/closed").chmod(0o700)
    (tmp_path / "other").chmod(0o700)
    command = [sys.executable, "-c", DENIED, str(tmp_path / "open"), str(tmp_path / "other")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        f"unreadable {str(tmp_path / 'open/closed')[1:]}",
        f"source {tmp_path / 'other'}",
    ]


# ── hard links ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def linked(tmp_path: Path) -> list[FileEntry]:
    """One file with four names, in four directories, as a scan sees them."""
    for name in "abcd":
        (tmp_path / name).mkdir()
    (tmp_path / "a/1").write_bytes(b"content")
    for name in "bcd":
        os.link(tmp_path / "a/1", tmp_path / name / "1")
    return [entry for entry in entries(FilesystemSource([bytes(tmp_path)])) if entry.path.endswith(b"/1")]


def rest_of(tmp_path: Path, entry: FileEntry, links: list[FirstName] | None) -> list[tuple[FileType, bytes]]:
    found = FilesystemSource([bytes(tmp_path)]).scan(entry.path, links)
    return [(item.type, item.target) for item in found if isinstance(item, FileEntry)]


def test_a_new_process_links_to_what_is_stored(tmp_path: Path, linked: list[FileEntry]) -> None:
    """Told the first names that lie before the start, a scan makes links to them; not told, it stores the content
    again, once."""
    first, second = linked[:2]
    assert first.links == 4
    known = FirstName(first.device, first.inode, first.ctime_ns, 2, first.path)
    assert rest_of(tmp_path, second, [known]) == [(FileType.HARDLINK, first.path)] * 2
    assert rest_of(tmp_path, second, None) == [(FileType.REGULAR, b""), (FileType.HARDLINK, linked[2].path)]
    assert rest_of(tmp_path, second, [known._replace(left=0)])[0] == (FileType.REGULAR, b"")


def test_nothing_links_to_content_that_is_not_its_own(tmp_path: Path, linked: list[FileEntry]) -> None:
    """A file that changed since its first name was stored, or has the inode number of one that is gone, is stored."""
    first, second = linked[:2]
    known = FirstName(first.device, first.inode, first.ctime_ns - 1, 2, first.path)
    assert rest_of(tmp_path, second, [known]) == [(FileType.REGULAR, b""), (FileType.HARDLINK, linked[2].path)]


def test_a_file_that_changes_between_its_names_is_stored_again(tmp_path: Path, linked: list[FileEntry]) -> None:
    """Within one scan too: the names that come after the change belong together, and not to what was stored before."""
    found = []
    for item in FilesystemSource([bytes(tmp_path)]).scan():
        if item.path.endswith(b"/1"):
            assert isinstance(item, FileEntry)
            found.append((item.type, item.target))
            if item.path == linked[1].path:
                (tmp_path / "a/1").write_bytes(b"other content")
                os.utime(tmp_path / "a/1", ns=(1, 1))
    assert found == [
        (FileType.REGULAR, b""),
        (FileType.HARDLINK, linked[0].path),
        (FileType.REGULAR, b""),
        (FileType.HARDLINK, linked[2].path),
    ]


def test_a_source_remembers_its_own_scans(tmp_path: Path, linked: list[FileEntry]) -> None:
    """Going on in the same process links to names that were met up to the start, and to none behind it."""
    source = FilesystemSource([bytes(tmp_path)])
    for item in source.scan():
        if item.path == linked[2].path:
            break
    rest = [item for item in source.scan(linked[0].path) if item.path.endswith(b"/1")]
    assert next(item.target for item in rest if isinstance(item, FileEntry)) == linked[0].path
    again = [item for item in source.scan() if item.path.endswith(b"/1")]
    assert [item.type for item in again if isinstance(item, FileEntry)] == [FileType.REGULAR] + [FileType.HARDLINK] * 3
    assert all(scan_key(one.path) < scan_key(two.path) for one, two in pairwise(again))
