"""One owner at a time, whatever becomes of the lock's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from capstan import process_lock
from capstan.errors import InUse
from capstan.process_lock import ProcessLock, is_locked


def test_one_owner(tmp_path: Path) -> None:
    """A second one hears who has it; given back, it can be taken again."""
    path = tmp_path / "x.lock"
    with ProcessLock(path, "x"):
        assert is_locked(path)
        with pytest.raises(InUse):
            ProcessLock(path, "x").acquire()
    assert not is_locked(path)
    with ProcessLock(path, "x"):
        pass


def test_a_file_that_is_removed_while_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that has lost its name keeps nobody out, so it is not taken for one."""
    path = tmp_path / "x.lock"
    lock = process_lock._lock

    def slow(descriptor: int) -> None:
        path.unlink()  # its last owner does so before letting go
        lock(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(process_lock, "_lock", slow)
        with pytest.raises(InUse):
            ProcessLock(path, "x").acquire()
    with ProcessLock(path, "x"):
        assert is_locked(path)


def test_a_lock_that_goes_with_its_file(tmp_path: Path) -> None:
    """Nothing is left of it, and it can be taken again."""
    path = tmp_path / "x.lock"
    lock = ProcessLock(path, "x")
    lock.acquire()
    lock.remove()
    assert not path.exists()
    lock.acquire()
    lock.remove()
    lock.remove()
