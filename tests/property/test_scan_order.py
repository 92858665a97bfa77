"""The order of a scan, and going on anywhere in it, for any tree and any roots."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capstan.backup.filesystem import FilesystemSource
from capstan.backup.source import SourceWarning
from capstan.core.files import FileType, scan_key

# Bytes around the slash, and one that is not UTF-8: what sorts differently as a path and as a key.
NAMES = st.sampled_from([b"a", b"b", b"a.", b"a-b", b"b!", b"\xff", b"a\xc3\xa9"])
LEAVES = st.sampled_from(["file", "link", "fifo", "dangling"])
TREES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=4),
    lambda inner: st.dictionaries(NAMES, st.one_of(LEAVES, inner), max_size=5),
    max_leaves=14,
)


def grow(folder: bytes, tree: dict) -> list[bytes]:
    """Make the tree; returns the paths of everything in it."""
    made = []
    for name, kind in tree.items():
        path = os.path.join(folder, name)
        made.append(path)
        if isinstance(kind, dict):
            os.mkdir(path)
            made += grow(path, kind)
        elif kind == "file":
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            os.symlink(b"." if kind == "link" else b"nowhere", path)
    return made


@pytest.fixture(scope="module")
def base() -> Iterator[bytes]:
    folder = os.path.realpath(tempfile.mkdtemp())
    yield os.fsencode(folder)
    shutil.rmtree(folder)


def scanned(roots: list[bytes], after: bytes | None = None, **options: int) -> list[tuple[bytes, FileType]]:
    found = []
    for item in FilesystemSource(roots, **options).scan(after):  # type: ignore[arg-type]
        assert not isinstance(item, SourceWarning), item
        found.append((item.path, item.type))
    return found


def expected(roots: list[bytes]) -> set[bytes]:
    """Every root with what is in it, and the directories above it."""
    paths = set()
    for root in roots:
        parts = root.split(b"/")[1:]
        paths |= {b"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
        if not os.path.islink(root):
            for folder, folders, files in os.walk(root):
                paths |= {os.path.join(folder, name)[1:] for name in folders + files}
    return paths


@settings(
    max_examples=max(60, settings.default.max_examples // 5), deadline=None, suppress_health_check=list(HealthCheck)
)
@given(tree=TREES, chosen=st.lists(st.integers(0, 1000), min_size=1, max_size=5), limit=st.integers(1, 4))
def test_any_roots_are_scanned_as_one_tree(base: bytes, tree: dict, chosen: list[int], limit: int) -> None:
    """For roots that are directories, files and links, beside and inside one another: each entry comes once, keys are
    strictly ascending, and `after` any of them comes exactly the rest; the same where all names are sorted on disk."""
    folder = tempfile.mkdtemp(dir=base)
    made = [folder, *grow(folder, tree)]
    roots = [made[number % len(made)] for number in chosen]
    whole = scanned(roots)
    paths = [path for path, _ in whole]
    keys = [scan_key(path) for path in paths]
    assert all(one < two for one, two in pairwise(keys))
    assert set(paths) == expected(roots)
    assert scanned(roots, names_in_memory=limit) == whole
    for number, path in enumerate(paths):
        assert scanned(roots, path) == whole[number + 1 :]


@settings(
    max_examples=max(40, settings.default.max_examples // 5), deadline=None, suppress_health_check=list(HealthCheck)
)
@given(tree=TREES, gone=st.lists(NAMES, min_size=1, max_size=3))
def test_the_place_to_go_on_from_need_not_be_there(base: bytes, tree: dict, gone: list[bytes]) -> None:
    """`after` a path that is no longer in the source, or never was, comes what has a larger key."""
    folder = tempfile.mkdtemp(dir=base)
    grow(folder, tree)
    after = os.path.join(folder, *gone)[1:]
    rest = [item for item in scanned([folder]) if scan_key(item[0]) > scan_key(after)]
    assert scanned([folder], after) == rest
