"""The state of a chain of sets, against a dictionary that is written over."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.core.files import FileEntry, FileFlag, FileType, scan_key
from capstan.errors import HomeDamaged
from capstan.fileindex.builder import FileIndexBuilder
from capstan.fileindex.chain import ChainSet, rows_that_count, state_rows
from capstan.fileindex.reading import read_rows
from capstan.fileindex.store import IndexPart

BAD = FileFlag.DAMAGED | FileFlag.UNREADABLE | FileFlag.CONTINUES

paths = st.sampled_from([b"a", b"a/b", b"a/b/c", b"a-", b"a/b-", b"b", b"b/\xff", b"b/\\xff", b"a/z", b"c"])
flags = st.sampled_from([0, 0, 0, FileFlag.CHANGED, FileFlag.DAMAGED, FileFlag.UNREADABLE])
# Of each set: what it stored of some paths, and which it found gone; then where it is cut into parts.
sets = st.tuples(st.dictionaries(paths, flags), st.sets(paths), st.integers(0, 10))


def write(folder: Path, number: int, rows: dict[bytes, int], gone: set[bytes], cut: int) -> ChainSet:
    ordered = sorted(rows, key=scan_key)
    cut = min(cut, len(ordered))
    border = scan_key(ordered[cut - 1]) if cut else (b"", b"")
    parts = []
    for sequence, piece in enumerate((ordered[:cut], ordered[cut:]), 1):
        files, deleted = folder / f"{number}-{sequence}.parquet", folder / f"{number}-{sequence}.deleted"
        builder = FileIndexBuilder(files)
        for path in piece:
            entry = FileEntry(path, FileType.REGULAR, number, 0, 0, 0, 0)
            builder.add(entry, 0, 512, None, rows[path])
        builder.finish()
        here = [path for path in gone if (scan_key(path) <= border) == (sequence == 1)]
        deleted.write_bytes(b"".join(path + b"\0" for path in sorted(here, key=scan_key)))
        parts.append(IndexPart(sequence, "", files, files, files, deleted if number else None))
    return ChainSet(str(number), 0, tuple(parts))


@given(st.lists(sets, min_size=1, max_size=4))
def test_the_last_good_row_counts(history: list[tuple[dict[bytes, int], set[bytes], int]]) -> None:
    """Deletions take away, good rows replace, bad ones count only where there is nothing better; in scan order."""
    with tempfile.TemporaryDirectory() as folder:
        chain = [write(Path(folder), n, rows, gone, cut) for n, (rows, gone, cut) in enumerate(history)]
        model: dict[bytes, tuple[int, int, bool]] = {}
        for number, (rows, gone, _) in enumerate(history):
            for path in gone if number else ():
                model.pop(path, None)
            for path, flag in rows.items():
                if flag & BAD and path in model and not model[path][1] & BAD:
                    model[path] = (*model[path][:2], True)
                else:
                    model[path] = (number, flag, bool(flag))
        found = list(state_rows(chain))
        assert [row.key for row in found] == sorted(map(scan_key, model))
        assert {row.row.entry.path: (row.place, row.row.flags, row.again) for row in found} == model
        chosen = rows_that_count(chain)
        for place, item in enumerate(chain):
            rows_here = [row for part in item.parts for row in read_rows(part.files)]
            counted = {row.entry.path for n, row in enumerate(rows_here) if n in chosen[place]}
            assert counted == {path for path, value in model.items() if value[0] == place}


def test_a_table_out_of_order_is_refused(tmp_path: Path) -> None:
    """A state made of it would silently be wrong."""
    builder = FileIndexBuilder(tmp_path / "f")
    for path in (b"b", b"a"):
        builder.add(FileEntry(path, FileType.REGULAR, 0, 0, 0, 0, 0), 0, 512, None, 0)
    builder.finish()
    chain = [ChainSet("s", 0, (IndexPart(1, "", tmp_path / "f", tmp_path / "f", tmp_path / "f"),))]
    with pytest.raises(HomeDamaged, match="order"):
        list(state_rows(chain))


def test_a_list_of_deleted_paths_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    """Its last path might be the beginning of another."""
    chain = [write(tmp_path, 1, {b"a": 0}, {b"b/c"}, 0)]
    deleted = chain[0].parts[1].deleted
    assert deleted is not None
    deleted.write_bytes(b"b/")
    with pytest.raises(HomeDamaged, match="cut off"):
        list(state_rows(chain))
