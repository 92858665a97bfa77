"""Files that are whole or not there."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from capstan.durable_files import write_durably
from capstan.errors import StorageFailed


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """With its permissions, whatever an earlier process left behind."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    (tmp_path / "file.new").write_bytes(b"left behind")
    write_durably(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    """The error names the file, and nothing is left beside it."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        with pytest.raises(StorageFailed, match="file"):
            write_durably(path, bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(StorageFailed, match="nowhere"):
        write_durably(tmp_path / "nowhere/file", b"new")
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
