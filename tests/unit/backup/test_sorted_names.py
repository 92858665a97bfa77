"""Names are sorted in runs on disk where there are many."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.backup.sorted_names import SortedNames
from capstan.errors import StorageFailed

NAMES = st.lists(st.binary(min_size=1, max_size=12).map(lambda name: name.replace(b"/", b"\0")))


@given(names=NAMES, limit=st.integers(1, 9), some=st.integers(0, 20))
def test_names_come_back_sorted(names: list[bytes], limit: int, some: int) -> None:
    """All of them, however they were given and however many are kept in memory."""
    found = SortedNames(None, limit)
    found.extend(names[:some])
    for name in names[some:]:
        found.append(name)
    assert found.runs == len(names) // limit
    assert list(found) == sorted(names)


def test_runs_are_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    """Long names, cut anywhere by the reads of a run, come back whole; and the spool is empty all the time."""
    names = [b"%07d" % (number * 7919 % 100_003) + b"x" * 200 for number in range(20_000)]
    found = SortedNames(tmp_path, 9000)
    found.extend(names)
    assert found.runs == 2
    assert list(tmp_path.iterdir()) == []
    assert list(found) == sorted(names)


def test_a_full_disk_is_a_storage_failure(tmp_path: Path) -> None:
    """The folder is named, and nothing is left in it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    names = SortedNames(tmp_path, 1000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(StorageFailed) as caught:
            names.extend(b"%09d" % number for number in range(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_is_not_there_is_a_storage_failure(tmp_path: Path) -> None:
    """Where the temporary file cannot be made, the error says where."""
    names = SortedNames(tmp_path / "gone", 2)
    with pytest.raises(StorageFailed, match="gone"):
        names.extend([b"a", b"b", b"c"])
