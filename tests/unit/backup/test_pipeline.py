"""The pipeline from a source to frames: what it stores, what it says, and how it ends."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from capstan.backup.filesystem import FilesystemSource
from capstan.backup.pipeline import FramePipeline, PackCounters
from capstan.backup.source import FirstName, OpenedFile, SourceWarning
from capstan.core.files import FileEntry, FileFlag, FileType
from capstan.errors import SourceError
from capstan.format.layout import CODECS, ArchiveParameters
from capstan.format.tar import member_headers, parse_member
from capstan.testing.pipeline_run import check_rows, rows_of, run_pipeline, tar_of

FRAME = 64 << 10
SMALL = ArchiveParameters(level=1, frame_bytes=FRAME)
PROGRAMS = {"zstd": ["zstd", "-dc"], "lz4": ["lz4", "-dc"], "gzip": ["gzip", "-dc"], "none": ["cat"]}


def stored(path: Path) -> bytes:
    return os.fsencode(path)[1:]


def source_of(root: Path) -> FilesystemSource:
    return FilesystemSource([os.fsencode(root)])


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("capstan-")]


class BusySource(FilesystemSource):
    """Files under `path` never stay as they are: touched before each open, and meddled with after it."""

    def __init__(self, root: Path, path: Path, meddle: Callable[[int], None]) -> None:
        super().__init__([os.fsencode(root)])
        self._path, self._meddle = stored(path), meddle
        self._time = 10**18

    def descriptor(self, entry: FileEntry) -> int:
        if entry.path == self._path:
            self._time += 1
            os.utime(b"/" + entry.path, ns=(self._time, self._time))
        return super().descriptor(entry)

    def open(self, entry: FileEntry) -> OpenedFile:
        opened = super().open(entry)
        if entry.path == self._path:
            self._meddle(opened.descriptor)
        return opened


class RefusingSource(FilesystemSource):
    """Some files cannot be opened."""

    def __init__(self, root: Path, errors: dict[Path, OSError]) -> None:
        super().__init__([os.fsencode(root)])
        self._errors = {stored(path): error for path, error in errors.items()}

    def descriptor(self, entry: FileEntry) -> int:
        if entry.path in self._errors:
            raise self._errors[entry.path]
        return super().descriptor(entry)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub" / "empty").mkdir(parents=True)
    (root / "one").write_bytes(b"one" * 1000)
    (root / "sub" / "large").write_bytes(os.urandom(3 * FRAME + 17))
    (root / "sub" / "nothing").touch()
    (root / "link").symlink_to("one")
    (root / "zwei").hardlink_to(root / "one")
    os.mkfifo(root / "pipe")
    return root


def test_an_empty_source_is_one_frame_with_the_end_of_the_archive() -> None:
    """A source without entries gives a stream of 1024 zero bytes, in a frame that is the last."""

    class Empty(FilesystemSource):
        def scan(self, after: bytes | None = None, links: object = None) -> Iterator[FileEntry | SourceWarning]:
            return iter(())

    run = run_pipeline(Empty([b"/"]), SMALL)
    assert tar_of(run.frames) == bytes(1024)


@pytest.mark.parametrize("codec", CODECS)
def test_stock_programs_read_the_stream(tree: Path, tmp_path: Path, codec: str) -> None:
    """The payloads, put together and decoded by the codec's stock program, are an archive from which GNU tar extracts
    the tree."""
    if not shutil.which(PROGRAMS[codec][0]) or not shutil.which("tar"):
        pytest.skip(f"{PROGRAMS[codec][0]} or tar is missing")
    run = run_pipeline(source_of(tree), ArchiveParameters(codec=codec, level=1, frame_bytes=FRAME))
    payload = b"".join(frame.payload for frame in run.frames)
    tar = subprocess.run(PROGRAMS[codec], input=payload, stdout=subprocess.PIPE, check=True).stdout
    assert tar == tar_of(run.frames, codec)
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "-xpf", "-", "-C", str(out)], input=tar, check=True)
    copy = out / str(tree)[1:]
    for name in ("one", "zwei", "sub/large", "sub/nothing"):
        assert (copy / name).read_bytes() == (tree / name).read_bytes()
        assert (copy / name).stat().st_mtime_ns == (tree / name).stat().st_mtime_ns
    assert (copy / "one").samefile(copy / "zwei")
    assert os.readlink(copy / "link") == "one"
    assert (copy / "pipe").is_fifo() and (copy / "sub" / "empty").is_dir()


def test_totals_and_rows_tell_what_is_stored(tree: Path) -> None:
    """`files` counts everything but directories, `bytes` the content of regular files; each row points at its member;
    counters end at the totals."""
    run = run_pipeline(source_of(tree), SMALL)
    totals = run.frames[-1].resume.totals
    assert (totals.files, totals.bytes, totals.warnings) == (6, 3000 + 3 * FRAME + 17, 0)
    assert (run.counters.files, run.counters.bytes) == (totals.files, totals.bytes)
    assert run.counters.current
    assert stored(tree / "sub" / "large") in check_rows(tar_of(run.frames), run.rows)


def test_buffers_are_used_again(tmp_path: Path) -> None:
    """However long the stream is, it goes through a fixed number of buffers."""
    (tmp_path / "large").write_bytes(bytes(40 * FRAME))
    pipeline = FramePipeline(
        source_of(tmp_path),
        ArchiveParameters(codec="none", frame_bytes=FRAME),
        workers=2,
        on_warning=print,
        counters=PackCounters(),
    )
    pipeline.start()
    buffers = set()
    while frame := pipeline.next_frame():
        assert isinstance(frame.payload, memoryview)
        buffers.add(id(frame.payload.obj))
    pipeline.stop()
    assert len(buffers) <= 4


def test_a_file_that_is_not_what_the_scan_saw_is_stored_as_it_is_now(tmp_path: Path) -> None:
    """A file that changes between scan and reading, but not while it is read, is stored whole and without warning."""
    path = tmp_path / "file"
    path.write_bytes(b"before")

    class Late(FilesystemSource):
        def scan(self, after: bytes | None = None, links: object = None) -> Iterator[FileEntry | SourceWarning]:
            for entry in super().scan(after):
                if isinstance(entry, FileEntry) and entry.path == stored(path):
                    path.write_bytes(b"and after")
                yield entry

    run = run_pipeline(Late([os.fsencode(tmp_path)]), SMALL)
    good = check_rows(tar_of(run.frames), run.rows)
    assert good[stored(path)][1] == b"and after"
    assert not run.warnings and run.rows[-1].flags == 0


@pytest.mark.parametrize("size", [5000, 3 * FRAME])
@pytest.mark.parametrize("new_size", [0, 4000, 4 * FRAME])
def test_a_file_that_changes_its_size_while_it_is_read(tmp_path: Path, size: int, new_size: int) -> None:
    """What is stored has the size its header says: cut off, or filled up with zeros; flagged and warned about once."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    (tmp_path / "next").write_bytes(b"next")
    run = run_pipeline(BusySource(tmp_path, path, lambda _: os.truncate(path, new_size)), SMALL)
    good = check_rows(tar_of(run.frames), run.rows)
    kept = min(size, new_size)
    assert good[stored(path)][1] == b"x" * kept + bytes(size - kept)
    assert good[stored(tmp_path / "next")][1] == b"next"
    assert [(warning.code, warning.path) for warning in run.warnings] == [("changed", stored(path))]
    assert [row.flags for row in run.rows if row.entry.path == stored(path)] == [FileFlag.CHANGED]
    assert run.frames[-1].resume.totals.warnings == 1


def test_a_file_that_fails_midway_is_filled_with_zeros(tmp_path: Path) -> None:
    """A read error costs the rest of that file only: zeros, DAMAGED, one warning `unreadable`."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * (60 * FRAME))
    (tmp_path / "next").write_bytes(b"next")
    folder = os.open(tmp_path, os.O_RDONLY)
    opened: list[int] = []
    warnings: list[SourceWarning] = []
    pipeline = FramePipeline(
        BusySource(tmp_path, path, opened.append), SMALL, workers=1, on_warning=warnings.append, counters=PackCounters()
    )
    pipeline.start()
    pipeline.wait_first()
    os.dup2(folder, opened[0])  # reading a directory fails
    run = run_frames(pipeline)
    os.close(folder)
    good = check_rows(tar_of(run), [row for frame in run for row in frame.rows])
    content = good[stored(path)][1]
    assert content.startswith(b"x" * (FRAME // 2)) and content.endswith(bytes(FRAME))
    assert good[stored(tmp_path / "next")][1] == b"next"
    assert [warning.code for warning in warnings] == ["unreadable"]
    assert next(row for row in run[-1].rows if row.entry.path == stored(path)).flags & FileFlag.DAMAGED


def run_frames(pipeline: FramePipeline) -> list:
    frames = []
    try:
        while frame := pipeline.next_frame():
            frame.payload = bytes(frame.payload)
            frames.append(frame)
    finally:
        pipeline.stop()
    return frames


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    """One that is gone is a warning; one that is there and refuses has a row too, so nobody takes it for deleted."""
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    errors = {tmp_path / "a": PermissionError(13, "no"), tmp_path / "b": FileNotFoundError(2, "gone")}
    run = run_pipeline(RefusingSource(tmp_path, errors), SMALL)
    assert [warning.code for warning in run.warnings] == ["unreadable", "vanished"]
    rows = {row.entry.path: row for row in run.rows}
    assert rows[stored(tmp_path / "a")].flags == FileFlag.UNREADABLE
    assert rows[stored(tmp_path / "a")].tar_bytes == 0
    assert stored(tmp_path / "b") not in rows
    assert set(check_rows(tar_of(run.frames), run.rows)) >= {stored(tmp_path / "c")}
    assert run.frames[-1].resume.totals.files == 1


def test_warnings_of_the_source_are_counted_and_handed_on(tmp_path: Path) -> None:
    """What the scan could not read is told, counted, and kept as an UNREADABLE row where it can be described."""
    (tmp_path / "there").touch()

    class Warning(FilesystemSource):
        def scan(self, after: bytes | None = None, links: object = None) -> Iterator[FileEntry | SourceWarning]:
            yield SourceWarning("socket", b"run/socket")
            yield SourceWarning("unreadable", stored(tmp_path / "gone"))
            yield SourceWarning("unreadable", stored(tmp_path / "there"))

    run = run_pipeline(Warning([b"/"]), SMALL)
    assert [warning.code for warning in run.warnings] == ["socket", "unreadable", "unreadable"]
    assert run.frames[-1].resume.totals.warnings == 3
    assert [(row.entry.path, row.flags) for row in run.rows] == [(stored(tmp_path / "there"), FileFlag.UNREADABLE)]


def test_a_hard_link_never_points_at_what_was_not_stored(tmp_path: Path) -> None:
    """When the first name of a file cannot be opened any more, the second carries the content and the third links to
    it: the stream extracts without a dangling link."""
    for name in "abc":
        (tmp_path / name).hardlink_to(tmp_path / "a") if name != "a" else (tmp_path / "a").write_bytes(b"content")
    run = run_pipeline(RefusingSource(tmp_path, {tmp_path / "a": FileNotFoundError(2, "gone")}), SMALL)
    with tarfile.open(fileobj=io.BytesIO(tar_of(run.frames))) as archive:
        assert archive.getmember(str(tmp_path / "b")[1:]).isreg()
        assert archive.getmember(str(tmp_path / "c")[1:]).linkname == str(tmp_path / "b")[1:]
    assert [row.entry.type for row in run.rows][-2:] == [FileType.REGULAR, FileType.HARDLINK]


def test_a_first_name_that_another_file_has_by_now(tmp_path: Path) -> None:
    """Between the scan and the opening: the next name carries the content that no other has."""
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").hardlink_to(tmp_path / "a")

    class Replaced(FilesystemSource):
        def scan(self, *after: Any) -> Iterator[FileEntry | SourceWarning]:
            return iter(list(super().scan(*after)))  # both were met before the first is opened

        def descriptor(self, entry: FileEntry) -> int:
            if entry.path == stored(tmp_path / "a") and (tmp_path / "a").samefile(tmp_path / "b"):
                (tmp_path / "a").unlink()
                (tmp_path / "a").write_bytes(b"another")
            return super().descriptor(entry)

    run = run_pipeline(Replaced([os.fsencode(tmp_path)]), SMALL)
    good = check_rows(tar_of(run.frames), run.rows)
    assert [good[stored(tmp_path / name)][1] for name in "ab"] == [b"another", b"content"]


def test_attributes_larger_than_a_frame(tmp_path: Path) -> None:
    """Headers are never divided: a member whose attributes do not fit into a frame gets a larger one, and the stream
    goes on behind it."""

    class Attributes(FilesystemSource):
        def open(self, entry: FileEntry) -> OpenedFile:
            opened = super().open(entry)
            opened.entry.xattrs = ((b"user.large", b"y" * (2 * FRAME)),)
            return opened

        def descriptor(self, entry: FileEntry) -> int:
            descriptor = super().descriptor(entry)
            entry.xattrs = ((b"user.large", b"y" * (2 * FRAME)),)
            return descriptor

    for name, size in (("a", 10), ("b", 0), ("c", 3 * FRAME)):
        (tmp_path / name).write_bytes(b"z" * size)
    run = run_pipeline(Attributes([os.fsencode(tmp_path)]), SMALL)
    tar = tar_of(run.frames)
    good = check_rows(tar, run.rows)
    assert [len(good[stored(tmp_path / name)][1]) for name in "abc"] == [10, 0, 3 * FRAME]
    for frame in run.frames:
        for row in frame.rows:
            assert parse_member(tar[row.tar_offset : row.tar_offset + len(member_headers(row.entry))])


def test_a_small_member_is_never_divided(tmp_path: Path) -> None:
    """A member that fits into a frame lies in one frame, so that one file is restored by reading one."""
    for number in range(40):
        (tmp_path / f"file-{number:02d}").write_bytes(b"x" * 9_000)
    run = run_pipeline(source_of(tmp_path), SMALL)
    assert len(run.frames) > 3
    for frame in run.frames:
        assert frame.resume.open_member is None
        for row in frame.rows:
            assert frame.tar_offset <= row.tar_offset
            assert row.tar_offset + row.tar_bytes <= frame.tar_offset + frame.tar_bytes


def test_a_copy_that_is_owed_survives_a_cut_before_it_begins(tmp_path: Path) -> None:
    """When the damaged member has ended, and the whole copy that is owed for it begins in the next frame only, a
    stream that is cut between the two still brings the copy."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * (5 * FRAME - 8192))
    whole = run_pipeline(source_of(tmp_path), SMALL).frames
    path.write_bytes(b"new" * 40_000)
    rest = run_pipeline(source_of(tmp_path), SMALL, resume=whole[2].resume).frames
    cut = next(number for number, frame in enumerate(rest) if frame.rows)
    assert not rest[cut].last
    assert [row.flags for row in rest[cut].rows] == [FileFlag.DAMAGED]
    last = run_pipeline(source_of(tmp_path), SMALL, resume=rest[cut].resume).frames
    frames = whole[:3] + rest[: cut + 1] + last
    good = check_rows(tar_of(frames), rows_of(frames))
    assert good[stored(path)][1] == b"new" * 40_000


def test_zeros_once_written_are_never_taken_for_content(tmp_path: Path) -> None:
    """A file that could not be opened at one resume, and can be again at the next, is stored whole: the zeros that
    went out between are damage, though the file is the old one."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * (8 * FRAME))
    whole = run_pipeline(source_of(tmp_path), SMALL).frames
    refusing = RefusingSource(tmp_path, {path: PermissionError(13, "no")})
    rest = run_pipeline(refusing, SMALL, resume=whole[2].resume).frames
    assert rest[1].resume.open_member is not None
    last = run_pipeline(source_of(tmp_path), SMALL, resume=rest[1].resume).frames
    frames = whole[:3] + rest[:2] + last
    good = check_rows(tar_of(frames), rows_of(frames))
    assert good[stored(path)][1] == b"x" * (8 * FRAME)


@pytest.mark.parametrize("error", [PermissionError(13, "no"), FileNotFoundError(2, "gone")])
def test_a_hard_link_never_points_at_zeros(tmp_path: Path, error: OSError) -> None:
    """When the rest of a first name cannot be read any more, and nothing is known of it, the next name carries the
    content."""
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"x" * (8 * FRAME))
    second.hardlink_to(first)
    whole = run_pipeline(source_of(tmp_path), SMALL).frames

    class Lost(RefusingSource):
        def entry(self, path: bytes) -> FileEntry:
            raise error

    status = first.stat()
    known = FirstName(status.st_dev, status.st_ino, status.st_ctime_ns, 1, stored(first))
    rest = run_pipeline(Lost(tmp_path, {first: error}), SMALL, resume=whole[2].resume, links=[known])
    assert [
        (row.entry.path, row.flags & FileFlag.DAMAGED, row.entry.type) for row in (rest.rows[0], rest.rows[-1])
    ] == [
        (stored(first), FileFlag.DAMAGED, FileType.REGULAR),
        (stored(second), 0, FileType.REGULAR),
    ]
    good = check_rows(tar_of(whole[:3] + rest.frames), rows_of(whole[:3] + rest.frames))
    assert good[stored(second)][1] == b"x" * (8 * FRAME)


class FailingSource(FilesystemSource):
    """Yields `good` entries, then the root cannot be read."""

    def scan(self, after: bytes | None = None, links: object = None) -> Iterator[FileEntry | SourceWarning]:
        yield from super().scan(after)
        raise SourceError(path="/gone", reason="it is gone")


def test_an_error_of_the_source_is_raised_in_the_consumer(tmp_path: Path) -> None:
    """SourceError arrives where frames are asked for, and where the first is awaited; no thread survives it."""
    pipeline = FramePipeline(
        FailingSource([os.fsencode(tmp_path)]), SMALL, workers=2, on_warning=print, counters=PackCounters()
    )
    pipeline.start()
    with pytest.raises(SourceError):
        pipeline.wait_first()
    with pytest.raises(SourceError):
        pipeline.next_frame()
    pipeline.stop()
    pipeline.stop()
    assert not own_threads()


def test_stopping_ends_all_threads_when_nobody_consumes(tmp_path: Path) -> None:
    """A pipeline that is full and not read from is stopped, and its threads have ended when `stop` returns."""
    (tmp_path / "large").write_bytes(bytes(100 * FRAME))
    pipeline = FramePipeline(source_of(tmp_path), SMALL, workers=2, on_warning=print, counters=PackCounters())
    pipeline.start()
    pipeline.wait_first()
    assert own_threads()
    pipeline.stop()
    assert not own_threads()
    assert pipeline.next_frame() is None


def test_stopping_wakes_a_consumer_that_waits(tmp_path: Path) -> None:
    """`next_frame` returns None as soon as another thread stops the pipeline, even while the source hangs."""
    hangs, released = threading.Event(), threading.Event()

    class Hanging(FilesystemSource):
        def scan(self, after: bytes | None = None, links: object = None) -> Iterator[FileEntry | SourceWarning]:
            hangs.set()
            released.wait()
            yield from super().scan(after)

    pipeline = FramePipeline(
        Hanging([os.fsencode(tmp_path)]), SMALL, workers=1, on_warning=print, counters=PackCounters()
    )
    pipeline.start()
    hangs.wait()
    stopper = threading.Thread(target=pipeline.stop)
    stopper.start()
    assert pipeline.next_frame() is None
    released.set()
    stopper.join()
    assert not own_threads()


def test_a_pipeline_that_was_never_started_stops(tmp_path: Path) -> None:
    """`stop` is always allowed."""
    FramePipeline(source_of(tmp_path), SMALL, workers=1, on_warning=print, counters=PackCounters()).stop()
