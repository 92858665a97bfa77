"""The file system as a source and as a target keeps the promises of both ports."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from capstan.backup.filesystem import FilesystemSource
from capstan.backup.source import BackupSource
from capstan.core.backup import Conflicts
from capstan.core.files import FileType, scan_key
from capstan.errors import SourceError
from capstan.format.layout import ArchiveParameters
from capstan.recovery.filesystem import FilesystemTarget
from capstan.recovery.target import RecoveryTarget, Tell
from capstan.testing.pipeline_run import check_rows, run_pipeline, tar_of
from capstan.testing.source_contract import SourceContract, entries, fill
from capstan.testing.target_contract import TargetContract, entry, refuse


class TestFilesystemSource(SourceContract):
    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        (tmp_path / "tree").mkdir()
        return tmp_path / "tree"

    def source(self, tree: Path) -> BackupSource:
        return FilesystemSource([bytes(tree)])


class TestFilesystemTarget(TargetContract):
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        (tmp_path / "root").mkdir()
        return tmp_path / "root"

    @pytest.fixture
    def outside(self, tmp_path: Path) -> Path:
        (tmp_path / "outside").mkdir()
        return tmp_path / "outside"

    def target(self, root: Path, conflicts: Conflicts, tell: Tell = refuse) -> RecoveryTarget:
        return FilesystemTarget(bytes(root), tell=tell, conflicts=conflicts)


@pytest.mark.parametrize(
    ("patterns", "left_out"),
    [
        (["*.d"], {"b.d", "b.d/4"}),
        (["/a"], {"a", "a/3", "a/same"}),
        (["x"], {"b/x", "b/x/1"}),
        (["b/*", "!b/5"], {"b/x", "b/x/1", "b/y", "b/y/2"}),
        ([".*/"], {"c/.hidden", "c/.hidden/6"}),
        (["**/1"], {"b/x/1"}),
        (["link"], {"link"}),
        (["# nothing", ""], set()),
    ],
)
def test_excludes_in_gitignore_syntax(tmp_path: Path, patterns: list[str], left_out: set[str]) -> None:
    """Patterns mean what git says they mean, relative to the root."""
    fill(tmp_path)
    top = bytes(tmp_path).lstrip(b"/") + b"/"

    def paths(excludes: list[str]) -> set[bytes]:
        found = entries(FilesystemSource([bytes(tmp_path)], excludes=excludes))
        return {entry.path[len(top) :] for entry in found if entry.path.startswith(top)}

    assert {path.decode() for path in paths([]) - paths(patterns)} == left_out


@pytest.mark.requires("root")
def test_without_rights_owners_are_warnings() -> None:
    """Whoever is not root gets content, and warnings for owner, device and trusted attributes; and never a program that
    runs with the rights of an owner whom the file does not have."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        heard: list[tuple[str, bytes]] = []
        os.seteuid(65534)
        try:
            target = FilesystemTarget(
                os.fsencode(folder) + b"/out", tell=lambda code, path, detail: heard.append((code, path))
            )
            xattrs = ((b"trusted.t", b"t"), (b"user.u", b"u"))
            target.directory(entry(b"d", FileType.DIRECTORY, mode=0o555, uid=1, gid=1))
            target.whole_file(entry(b"d/f", size=4, mode=0o6444, uid=1, gid=1, xattrs=xattrs), memoryview(b"data"))
            target.special(entry(b"d/n", FileType.CHARACTER, rdev_major=1, rdev_minor=3, uid=1, gid=1))
            target.special(entry(b"d/p", FileType.FIFO, uid=1, gid=1))
            target.symlink(entry(b"d/l", FileType.SYMLINK, target=b"f", uid=1, gid=1))
            target.finish()
            target.close()
        finally:
            os.seteuid(0)
        out = Path(folder) / "out"
        assert (out / "d/f").read_bytes() == b"data"
        assert os.getxattr(out / "d/f", "user.u") == b"u"
        assert (out / "d/f").stat().st_mode & 0o7777 == 0o444
        assert sorted(heard) == [
            *(("device", b"d/n"), ("mode", b"d/f")),
            *(("owner", b"d"), ("owner", b"d/f"), ("owner", b"d/l"), ("owner", b"d/p")),
            ("xattr", b"d/f"),
        ]


def test_attributes_that_cannot_be_read_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is stored, with the attributes that can be read; the scan tells of the others behind it, once."""
    (tmp_path / "f").write_bytes(b"content")
    for name in ("user.a", "user.b"):
        os.setxattr(tmp_path / "f", name, b"value")
    read = os.getxattr

    def failing(file: object, name: bytes, **options: bool) -> bytes:
        if name == b"user.b":
            raise OSError(5, "Input/output error")
        return read(file, name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "getxattr", failing)
    run = run_pipeline(FilesystemSource([bytes(tmp_path)]), ArchiveParameters())
    path = bytes(tmp_path / "f")[1:]
    assert [(warning.code, warning.path) for warning in run.warnings] == [("xattr", path)]
    assert "user.b" in run.warnings[0].detail
    stored, content = check_rows(tar_of(run.frames), run.rows)[path]
    assert (content, stored.xattrs) == (b"content", ((b"user.a", b"value"),))


def test_roots(tmp_path: Path) -> None:
    """One inside another counts once; a file is a root too; one that is not there ends the scan before it begins."""
    fill(tmp_path)
    both = FilesystemSource([bytes(tmp_path / "b"), bytes(tmp_path), bytes(tmp_path / "b/5")])
    assert [entry.path for entry in entries(both)] == [
        entry.path for entry in entries(FilesystemSource([bytes(tmp_path)]))
    ]
    single = entries(FilesystemSource([bytes(tmp_path / "a/3")]))
    assert single[-1].path.endswith(b"a/3")
    assert all(entry.type.value == "dir" for entry in single[:-1])
    with pytest.raises(SourceError, match="nowhere"):
        next(iter(FilesystemSource([bytes(tmp_path), bytes(tmp_path / "nowhere")]).scan()))


def test_several_roots_are_one_scan(tmp_path: Path) -> None:
    """Whatever lies beside and above them, all of it comes in scan order, and `after` gives exactly the rest."""
    fill(tmp_path)
    roots = [bytes(tmp_path / name) for name in ("b/x", "b/5", "a", "c/.hidden", "link", "empty")]
    whole = [entry.path for entry in entries(FilesystemSource(roots))]
    assert whole == sorted(set(whole), key=scan_key)
    assert {bytes(tmp_path / name)[1:] for name in ("b/x/1", "b/5", "a/3", "c/.hidden/6", "link", "c")} <= set(whole)
    assert bytes(tmp_path / "b/y")[1:] not in whole
    for number, path in enumerate(whole):
        assert [entry.path for entry in entries(FilesystemSource(roots), path)] == whole[number + 1 :]
