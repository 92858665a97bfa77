"""The tables of an INDEX are built without surprises and in bounded memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from index_rows import read_paths, row, write_part

from capstan.errors import StorageFailed
from capstan.fileindex.builder import FileIndexBuilder, FrameTableBuilder
from capstan.fileindex.schema import FILES, FRAMES, ROW_GROUP


def test_columns_are_those_of_the_specification(tmp_path: Path) -> None:
    """Names, types and what may be null are as docs/design/tape-format.md says, also of an empty table."""
    for rows in ([], [row(b"a")]):
        assert pq.read_schema(write_part(tmp_path / "files.parquet", rows)).equals(FILES)
    frames = FrameTableBuilder(tmp_path / "frames.parquet")
    frames.add(segment=3, tar_offset=1 << 40, tar_bytes=4 << 20, payload_offset=1 << 33, payload_bytes=77)
    frames.finish()
    table = pq.read_table(tmp_path / "frames.parquet")
    assert table.schema.equals(FRAMES)
    assert table.to_pylist() == [
        {"segment": 3, "tar_offset": 1 << 40, "tar_bytes": 4 << 20, "payload_offset": 1 << 33, "payload_bytes": 77}
    ]


def test_row_groups_are_small_and_in_order(tmp_path: Path) -> None:
    """No row group has more than the agreed number of rows, and none of the rows is lost between two."""
    rows = [row(b"d/%06d" % number, number) for number in range(ROW_GROUP + 8192 + 1)]
    path = write_part(tmp_path / "files.parquet", rows)
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [ROW_GROUP, 8193]
    assert read_paths([path]) == [item.entry.path for item in rows]


def test_names_that_look_the_same_stay_apart(tmp_path: Path) -> None:
    """A byte that is not UTF-8 and the four characters that stand for it are told apart by `raw`."""
    paths = [b"a/\xff", b"a/\\xff", b"\xe4/b", b"\\xe4/b", b"\xe4/c", "ä/\n".encode(), b"top"]
    path = write_part(tmp_path / "files.parquet", [row(name) for name in paths])
    assert read_paths([path]) == paths


def test_what_a_file_system_says_never_ends_a_backup(tmp_path: Path) -> None:
    """A time beyond 64 bits, an inode beyond them and an owner that is not text are kept as near as possible."""
    odd = row(b"odd", mtime_ns=1 << 70, ctime_ns=-(1 << 70), inode=(1 << 64) + 5, uid=-1, owner="a\udcff")
    (kept,) = pq.read_table(write_part(tmp_path / "files.parquet", [odd])).to_pylist()
    assert kept["mtime_ns"] == (1 << 63) - 1
    assert kept["ctime_ns"] == -(1 << 63)
    assert (kept["inode"], kept["uid"], kept["owner"]) == (5, 0xFFFFFFFF, "a\\udcff")


def test_a_place_on_tape_is_never_bent(tmp_path: Path) -> None:
    """An offset that no column can hold is an error: a wrong one would restore the wrong bytes."""
    builder = FileIndexBuilder(tmp_path / "files.parquet")
    builder.add(*row(b"a")._replace(tar_offset=-1))
    with pytest.raises(OverflowError):
        builder.finish()
    builder.close()


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    """The operator hears which file could not be written, at the first row group, at the end, or when it is opened;
    letting go of it is harmless, also twice."""
    path = tmp_path / "files.parquet"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for rows in (1, ROW_GROUP):
        builder = FileIndexBuilder(path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
        try:
            with pytest.raises(StorageFailed, match=r"files\.parquet"):
                for number in range(rows):
                    builder.add(*row(b"d/%06d" % number, number))
                builder.finish()
            builder.close()
            builder.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    nowhere = tmp_path / "nowhere" / "frames.parquet"
    with pytest.raises(StorageFailed, match=str(nowhere)):
        FrameTableBuilder(nowhere)
    with pytest.raises(StorageFailed, match="/dev/full"):
        FrameTableBuilder(Path("/dev/full")).finish()


MILLION = """
import hashlib, sys
from pathlib import Path
from capstan.core.files import FileEntry, FileType
from capstan.fileindex.builder import FileIndexBuilder
from capstan.fileindex.chain import ChainSet
from capstan.fileindex.search import FileSearch
from capstan.fileindex.store import IndexPart

def peak():  # in MiB; not getrusage, which begins with what the parent had when it forked
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10

path = Path(sys.argv[1])
start = peak()
builder = FileIndexBuilder(path)
for number in range(1_000_000):
    name = b"d%04d/a rather long name of a file, number %d" % (number // 1000, number)
    entry = FileEntry(name, FileType.REGULAR, 0o644, 0, 0, number, number * 7919, inode=number)
    builder.add(entry, number << 10, 1024, hashlib.sha256(name).digest(), 0)
builder.finish()
built = peak()
last = -1
for count, found in enumerate(FileSearch().list_files([ChainSet("s", 0, (IndexPart(1, "", path, path, path),))])):
    assert found.size == count
assert count == 999_999
assert len(list(FileSearch().find([("set", [path])], "number 77777"))) == 11
print(built - start, peak() - start)
"""


@pytest.mark.slow
def test_a_million_files_in_bounded_memory(tmp_path: Path) -> None:
    """Building takes less than 100 MiB, listing and searching less than 200, and the order is that of the set."""
    command = [sys.executable, "-c", MILLION, str(tmp_path / "files.parquet")]
    building, searching = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert 0 < building < 100
    assert 0 < searching < 200
