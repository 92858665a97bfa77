"""A file with holes, of any layout, comes back with the same content and the same holes, whoever reads the stream."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capstan.backup.filesystem import FilesystemSource
from capstan.core.files import FileFlag, Row
from capstan.format.frames import Frame, ResumePoint
from capstan.format.layout import ArchiveParameters
from capstan.format.sparse import SparseMap, SparseMapReader
from capstan.recovery import assemble
from capstan.recovery.assemble import MemberAssembler
from capstan.recovery.filesystem import FilesystemTarget
from capstan.recovery.plan import FramePlace
from capstan.recovery.report import RecoveryReport
from capstan.recovery.stream import FrameData
from capstan.testing.pipeline_run import check_rows, rows_of, run_pipeline, tar_of

FRAME = 64 << 10
SMALL = ArchiveParameters(codec="none", frame_bytes=FRAME)
# Runs of 4 KiB blocks, a hole and data by turns, and how many bytes the file has behind them (a hole too).
RUNS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 24)), max_size=8)
TAILS = st.sampled_from([0, 1, 511, 4096, 5000, 70_000, 3 << 30])


def make_file(path: Path, runs: list[tuple[int, int]], tail: int) -> None:
    """A file with this layout."""
    with path.open("wb") as file:
        for seed, (hole, data) in enumerate(runs):
            file.seek(hole * 4096, os.SEEK_CUR)
            file.write(hashlib.shake_128(b"%d" % seed).digest(data * 4096))
        file.truncate(file.tell() + tail)


def layout(path: Path) -> list[tuple[int, bytes]]:
    """Where the data of a file lies, and what it is; the file's size last."""
    found = []
    with path.open("rb") as file:
        size, end = os.fstat(file.fileno()).st_size, 0
        while end < size:
            try:
                begin = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            found.append((begin, os.pread(file.fileno(), end - begin, begin)))
    return [*found, (size, b"")]


def restored(frames: list[Frame], rows: list[Row], target: Path) -> RecoveryReport:
    """What the assembler makes of the frames, with rows as a file index has them."""
    report = RecoveryReport()
    writer = FilesystemTarget(bytes(target), tell=report.warn)
    known = (row._replace(entry=replace(row.entry, xattrs=(), stored_bytes=-1)) for row in rows)
    assembler = MemberAssembler(known, writer, report)
    for frame in frames:
        place = FramePlace(0, frame.tar_offset, frame.tar_bytes, 0, len(frame.payload))
        assembler.frame(FrameData(place, 0, "C", 0, frame.payload, None))
    assembler.finish()
    writer.finish()
    writer.close()
    return report


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


@settings(max_examples=max(60, settings.default.max_examples // 5))
@given(RUNS, TAILS, st.booleans(), st.integers(0, 1000), st.sampled_from(["all", "map", "row"]))
def test_any_layout_comes_back(
    base: Path, runs: list[tuple[int, int]], tail: int, large: bool, cut: int, kept: str
) -> None:
    """By the assembler, from memory or as it comes, by Python's tarfile and by GNU tar; and if the stream is cut at any
    frame and taken up again with what a process has that was there, or only with what is on tape. No hole is stored."""
    folder = Path(tempfile.mkdtemp(dir=base))
    source, name = folder / "source", "f" * (1 + 130 * large)
    source.mkdir()
    make_file(source / name, runs, tail)
    wanted, stored = layout(source / name), bytes(source / name)[1:]
    whole = run_pipeline(FilesystemSource([bytes(source)]), SMALL)
    frames = whole.frames
    at = cut % len(frames)
    if not frames[at].last:
        rest = run_pipeline(FilesystemSource([bytes(source)]), SMALL, resume=known(frames[at].resume, kept))
        frames = frames[: at + 1] + rest.frames
        assert not rest.warnings
    tar, rows = tar_of(frames, "none"), rows_of(frames)
    check_rows(tar, rows)
    row = next(row for row in rows if row.entry.path == stored)
    data = sum(len(piece) for _, piece in wanted)
    assert bool(row.flags & FileFlag.SPARSE) == (data < row.entry.size)
    assert row.tar_bytes <= data + 5 * 512
    for in_memory in (1 << 20, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(assemble, "_IN_MEMORY", in_memory)
            report = restored(frames, rows, folder / f"out-{in_memory}")
        assert report.sound and not report.warning_count
        assert layout(folder / f"out-{in_memory}" / os.fsdecode(stored)) == wanted
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        archive.extractall(folder / "python", filter="fully_trusted")
    assert layout(folder / "python" / os.fsdecode(stored)) == wanted
    if shutil.which("tar"):
        (folder / "gnu").mkdir()
        subprocess.run(["tar", "-xpf", "-", "-C", folder / "gnu"], input=tar, check=True)
        assert layout(folder / "gnu" / os.fsdecode(stored)) == wanted
    shutil.rmtree(folder)


def known(point: ResumePoint, kept: str) -> ResumePoint:
    """The resume point with all, with the map and without the hash, or as it is made from the row alone."""
    member = point.open_member
    if member is None or kept == "all":
        return point
    if kept == "row":
        row = member.row._replace(entry=replace(member.row.entry, stored_bytes=-1))
        return replace(point, open_member=replace(member, row=row, hash=None, sparse=None))
    return replace(point, open_member=replace(member, hash=None))


EXTENTS = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 5000)), max_size=60)


@given(EXTENTS, st.integers(0, 5000), st.integers(1, 700), st.data())
def test_a_map_comes_back_from_its_text(
    steps: list[tuple[int, int]], tail: int, piece: int, data: st.DataObject
) -> None:
    """A map read in pieces of any size is the map that was written; whatever is changed in its text, what is read is a
    map of that size and data, or a ValueError."""
    extents, end = [], 0
    for hole, length in steps:
        extents.append((end + hole, length))
        end += hole + length
    written = SparseMap(end + tail, extents)
    assert len(written.text) % 512 == 0
    pieces = list(written.pieces(0, written.data_bytes))
    assert sum(length for _, length in pieces) == written.data_bytes
    for begin, length in extents:  # everything that was named is data
        assert any(at <= begin and begin + length <= at + size for at, size in pieces)
    content = written.text + b"data"

    def read(text: bytes) -> SparseMap | None:
        reader, rest = SparseMapReader(end + tail, written.stored_bytes), memoryview(text)
        while reader.map is None and rest:
            taken = reader.take(rest[:piece])
            rest = rest[taken:]
        if reader.map is not None:
            assert bytes(rest) == b"data"
        return reader.map

    found = read(content)
    assert found is not None and found.text == written.text
    assert list(found.pieces(0, found.data_bytes)) == pieces
    changed = bytearray(content)
    changed[data.draw(st.integers(0, len(written.text) - 1))] = data.draw(st.sampled_from(b"\0\n019 -x\xff"))
    try:
        found = read(bytes(changed))
    except ValueError:
        return
    assert found is None or (found.size, found.stored_bytes) == (end + tail, written.stored_bytes)
