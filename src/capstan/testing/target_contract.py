"""What every target must do (`recovery.target.RecoveryTarget`).

Bind it by giving fixtures `root` (where it writes) and `outside` (a directory that must stay as it is), and a method
`target(root, conflicts)`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from capstan.core.backup import Conflicts
from capstan.core.files import FileEntry, FileType
from capstan.errors import TargetError
from capstan.recovery.target import Placement, RecoveryTarget

TIME = 1_234_567_890_123_456_789


def entry(path: bytes, kind: FileType = FileType.REGULAR, **changes: object) -> FileEntry:
    """An entry owned by whoever runs the test."""
    values = {"mode": 0o640, "uid": os.getuid(), "gid": os.getgid(), "size": 0, "mtime_ns": TIME, **changes}
    return FileEntry(path, kind, **values)  # type: ignore[arg-type]


def put(target: RecoveryTarget, path: bytes, data: bytes = b"data") -> Placement:
    """Write one small file."""
    return target.whole_file(entry(path, size=len(data)), memoryview(data))


class TargetContract:
    """Promises of the port."""

    def target(self, root: Path, conflicts: Conflicts) -> RecoveryTarget:
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
        assert list(target.finish()) == []
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
