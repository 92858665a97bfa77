"""What every target must do (`recovery.target.RecoveryTarget`).

Bind it by giving fixtures `root` (where it writes) and `outside` (a directory that must stay as it is), and a method
`target(root, conflicts)`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from capstan.core.backup import Conflicts
from capstan.core.files import FileEntry, FileType
from capstan.errors import TargetError
from capstan.recovery.target import Placement, RecoveryTarget, Tell

TIME = 1_234_567_890_123_456_789
_ids = (os.getuid(), os.getgid()) if os.name == "posix" else (0, 0)


def entry(path: bytes, kind: FileType = FileType.REGULAR, **changes: object) -> FileEntry:
    """An entry owned by whoever runs the test."""
    values = {"mode": 0o640, "uid": _ids[0], "gid": _ids[1], "size": 0, "mtime_ns": TIME, **changes}
    return FileEntry(path, kind, **values)  # type: ignore[arg-type]


def refuse(code: str, path: bytes, detail: str) -> None:
    """Hears of warnings where there must be none."""
    raise AssertionError(f"{code}: {path!r}: {detail}")


def put(target: RecoveryTarget, path: bytes, data: bytes = b"data") -> Placement:
    """Write one small file."""
    return target.whole_file(entry(path, size=len(data)), memoryview(data))


class TargetContract:
    """Promises of the port."""

    def target(self, root: Path, conflicts: Conflicts, tell: Tell = refuse) -> RecoveryTarget:
        """The target over `root`."""
        raise AssertionError("bind it")

    def test_all_kinds_arrive(self, root: Path) -> None:
        """Directories, files small and large, links of both kinds, FIFOs, with modes and nanosecond times."""
        target = self.target(root, Conflicts.SKIP)
        target.directory(entry(b"d", FileType.DIRECTORY, mode=0o550))
        put(target, b"d/small", b"small")
        sink = target.open_file(entry(b"d/large", size=3_000_010))
        assert sink is not None
        sink.write(memoryview(b"begin"))
        sink.hole(3_000_000)
        sink.write(memoryview(b"  end"))
        sink.commit()
        target.symlink(entry(b"d/link", FileType.SYMLINK, target=b"no/where"))
        target.hardlink(entry(b"d/again", FileType.HARDLINK), b"d/small")
        target.special(entry(b"d/fifo", FileType.FIFO))
        target.finish()
        target.close()
        assert (root / "d/small").read_bytes() == b"small"
        assert (root / "d/large").read_bytes() == b"begin" + bytes(3_000_000) + b"  end"
        assert (root / "d/large").stat().st_blocks * 512 < 1_000_000
        assert os.readlink(root / "d/link") == "no/where"  # noqa: PTH115
        assert (root / "d/again").samefile(root / "d/small")
        assert (root / "d/fifo").is_fifo()
        assert (root / "d").stat().st_mode & 0o7777 == 0o550
        for name in ("d", "d/small", "d/large", "d/link", "d/fifo"):
            assert (root / name).lstat().st_mtime_ns == TIME
        assert sorted(path.name for path in (root / "d").iterdir()) == ["again", "fifo", "large", "link", "small"]

    def test_what_the_target_cannot_take_is_told(self, root: Path) -> None:
        """By code and path, and never an error: the content is there."""
        heard: list[tuple[str, bytes]] = []
        target = self.target(root, Conflicts.SKIP, lambda code, path, detail: heard.append((code, path)))
        odd = ((b"nonsense", b"v"), (b"user.kept", b"v"))
        target.directory(entry(b"d", FileType.DIRECTORY, xattrs=odd))
        target.whole_file(entry(b"d/f", size=4, xattrs=odd), memoryview(b"data"))
        target.symlink(entry(b"d/l", FileType.SYMLINK, target=b"f", xattrs=odd[:1]))
        target.finish()
        target.close()
        assert sorted(heard) == [("xattr", b"d"), ("xattr", b"d/f"), ("xattr", b"d/l")]
        assert (root / "d/f").read_bytes() == b"data"
        for name in ("d", "d/f"):
            assert os.getxattr(root / name, "user.kept") == b"v"

    def test_attributes_are_those_of_the_entry(self, root: Path) -> None:
        """Though it may not be written in the end, and though its directory gives rights to what is made in it."""
        version, owner, others = b"\x02\0\0\0", b"\x01\0\4\0\xff\xff\xff\xff", b"\x20\0\0\0\xff\xff\xff\xff"
        group, mask = b"\x04\0\0\0\xff\xff\xff\xff", b"\x10\0\7\0\xff\xff\xff\xff"
        acl = version + owner + b"\x02\0\7\0\x39\x30\0\0" + group + mask + others
        os.setxattr(root, "system.posix_acl_default", acl)
        target = self.target(root, Conflicts.SKIP)
        lists = ((b"system.posix_acl_access", acl), (b"system.posix_acl_default", acl), (b"user.a", b"v"))
        target.directory(entry(b"plain", FileType.DIRECTORY, mode=0o750))
        target.directory(entry(b"listed", FileType.DIRECTORY, mode=0o470, xattrs=lists))
        target.whole_file(entry(b"listed/plain", mode=0o640), memoryview(b""))
        target.whole_file(entry(b"listed/listed", mode=0o470, xattrs=lists[::2]), memoryview(b""))
        target.finish()
        target.close()

        def attributes(name: str) -> dict[str, bytes]:
            return {key: os.getxattr(root / name, key) for key in os.listxattr(root / name)}

        assert attributes("plain") == attributes("listed/plain") == {}
        assert attributes("listed") == {name.decode(): value for name, value in lists}
        assert attributes("listed/listed") == {name.decode(): value for name, value in lists[::2]}
        modes = {"plain": 0o750, "listed": 0o470, "listed/plain": 0o640, "listed/listed": 0o470}
        assert {name: (root / name).stat().st_mode & 0o7777 for name in modes} == modes

    @pytest.mark.requires("root")
    def test_owners_and_their_rights(self, root: Path) -> None:
        """Identifiers of 32 bits, setuid, setgid and sticky, capabilities and attributes only root may set, devices."""
        capability = b"\x01\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
        target = self.target(root, Conflicts.SKIP)
        owner: dict[str, Any] = {"uid": 3_000_000_000, "gid": 4_000_000_000}
        target.directory(entry(b"d", FileType.DIRECTORY, mode=0o3775, **owner))
        xattrs = ((b"security.capability", capability), (b"trusted.t", b"t"))
        target.whole_file(entry(b"d/f", mode=0o6755, xattrs=xattrs, **owner), memoryview(b""))
        target.special(entry(b"d/c", FileType.CHARACTER, mode=0o620, rdev_major=1, rdev_minor=3, **owner))
        target.special(entry(b"d/b", FileType.BLOCK, rdev_major=511, rdev_minor=70_000, **owner))
        target.special(entry(b"d/p", FileType.FIFO, xattrs=((b"trusted.p", b"p"),), **owner))
        target.symlink(entry(b"d/l", FileType.SYMLINK, target=b"f", xattrs=((b"trusted.l", b"l"),), **owner))
        target.finish()
        target.close()
        for name, mode in (("d", 0o3775), ("d/f", 0o6755), ("d/c", 0o620), ("d/p", 0o640)):
            assert (root / name).stat().st_mode & 0o7777 == mode
        for name in ("d", "d/f", "d/c", "d/b", "d/p", "d/l"):
            assert ((root / name).lstat().st_uid, (root / name).lstat().st_gid) == (3_000_000_000, 4_000_000_000)
            assert (root / name).lstat().st_mtime_ns == TIME
        assert os.getxattr(root / "d/f", "security.capability") == capability
        assert (root / "d/c").stat().st_rdev == os.makedev(1, 3)
        assert (root / "d/b").stat().st_rdev == os.makedev(511, 70_000)
        for name in "fpl":
            path = root / "d" / name
            if name == "f":
                assert os.getxattr(path, "trusted.t") == b"t"
            else:
                assert os.getxattr(path, f"trusted.{name}", follow_symlinks=False) == name.encode()

    def test_any_depth(self, root: Path) -> None:
        """A tree of 3,000 levels, whose paths no system call takes, and two files at its end."""
        target = self.target(root, Conflicts.SKIP)
        path = b"0"
        target.directory(entry(path, FileType.DIRECTORY))
        for level in range(1, 3000):
            path += b"/%d" % level
            target.directory(entry(path, FileType.DIRECTORY, mode=0o710))
        put(target, path + b"/file", b"deep")
        target.hardlink(entry(path + b"/link", FileType.HARDLINK), path + b"/file")
        target.finish()
        target.close()
        at = os.open(root, os.O_RDONLY)
        for level in range(3000):
            inner = os.open(b"%d" % level, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
            os.close(at)
            at = inner
            assert os.fstat(at).st_mtime_ns == TIME
        assert os.stat("file", dir_fd=at).st_nlink == 2
        for name in ("file", "link"):
            os.unlink(name, dir_fd=at)
        for level in reversed(range(3000)):  # what removes trees recursively would fail
            above = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
            os.close(at)
            at = above
            os.rmdir(b"%d" % level, dir_fd=at)
        os.close(at)

    def test_what_is_aborted_leaves_nothing(self, root: Path) -> None:
        """Neither under its own name nor another."""
        target = self.target(root, Conflicts.OVERWRITE)
        sink = target.open_file(entry(b"f", size=10))
        assert sink is not None
        sink.write(memoryview(b"12345"))
        sink.abort()
        sink.abort()
        target.finish()
        target.close()
        target.close()
        assert list(root.iterdir()) == []

    @pytest.mark.parametrize(
        ("conflicts", "old", "found"),
        [
            (Conflicts.SKIP, TIME - 1, {"f": b"old"}),
            (Conflicts.OVERWRITE, TIME + 1, {"f": b"new"}),
            (Conflicts.KEEP_NEWER, TIME - 1, {"f": b"new"}),
            (Conflicts.KEEP_NEWER, TIME + 1, {"f": b"old"}),
            (Conflicts.RENAME, TIME - 1, {"f": b"old", "f.restored-1": b"new"}),
        ],
    )
    def test_conflicts(self, root: Path, conflicts: Conflicts, old: int, found: dict[str, bytes]) -> None:
        """What is there is kept, replaced, or gets company, as the policy says; by either way of writing."""
        for large in (False, True):
            for path in root.iterdir():
                path.unlink()
            (root / "f").write_bytes(b"old")
            os.utime(root / "f", ns=(old, old))
            target = self.target(root, conflicts)
            if large:
                sink = target.open_file(entry(b"f", size=3))
                if sink is not None:
                    sink.write(memoryview(b"new"))
                    sink.commit()
            else:
                put(target, b"f", b"new")
            target.finish()
            target.close()
            assert {path.name: path.read_bytes() for path in root.iterdir()} == found

    @pytest.mark.parametrize("path", [b"../x", b"a/../../x", b"/x", b"", b"a//x", b"./x", b"a/.", b"a\0b"])
    def test_paths_that_lead_out_are_refused(self, root: Path, outside: Path, path: bytes) -> None:
        """No honest writer makes them: TargetError, and nothing is written anywhere."""
        target = self.target(root, Conflicts.OVERWRITE)
        before = sorted(outside.rglob("*"))
        for call in (
            lambda: put(target, path),
            lambda: target.directory(entry(path, FileType.DIRECTORY)),
            lambda: target.symlink(entry(path, FileType.SYMLINK, target=b"t")),
            lambda: target.open_file(entry(path)),
            lambda: target.hardlink(entry(b"ok", FileType.HARDLINK), path),
        ):
            with pytest.raises(TargetError):
                call()
        target.close()
        assert sorted(outside.rglob("*")) == before
        assert not [path for path in root.rglob("*") if path.is_file()]

    def test_links_in_the_way_are_not_followed(self, root: Path, outside: Path) -> None:
        """An archive that makes a link to somewhere and then writes through it reaches nothing but a TargetError."""
        (outside / "kept").write_bytes(b"kept")
        target = self.target(root, Conflicts.OVERWRITE)
        target.symlink(entry(b"door", FileType.SYMLINK, target=os.fsencode(outside)))
        target.symlink(entry(b"file", FileType.SYMLINK, target=os.fsencode(outside / "kept")))
        for path in (b"door/kept", b"door/new"):
            with pytest.raises(TargetError):
                put(target, path)
        with pytest.raises(TargetError):
            target.directory(entry(b"door/sub", FileType.DIRECTORY))
        put(target, b"file", b"mine")
        target.finish()
        target.close()
        assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"kept": b"kept"}
        assert not (root / "file").is_symlink()
        assert (root / "file").read_bytes() == b"mine"
