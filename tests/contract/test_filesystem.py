"""The file system as a source and as a target keeps the promises of both ports."""

from __future__ import annotations

from pathlib import Path

import pytest

from capstan.backup.filesystem import FilesystemSource
from capstan.backup.source import BackupSource
from capstan.core.backup import Conflicts
from capstan.core.files import scan_key
from capstan.errors import SourceError
from capstan.recovery.filesystem import FilesystemTarget
from capstan.recovery.target import RecoveryTarget
from capstan.testing.source_contract import SourceContract, entries, fill
from capstan.testing.target_contract import TargetContract


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

    def target(self, root: Path, conflicts: Conflicts) -> RecoveryTarget:
        return FilesystemTarget(bytes(root), conflicts=conflicts)


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
