"""The pipeline of whole segments: what it gives, when it makes the next, and how it ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import IO, Any

import pytest

from capstan.backup import archive_pipeline
from capstan.backup.archive_pipeline import ArchivePipeline
from capstan.backup.filesystem import FilesystemSource
from capstan.backup.packer import PackCounters
from capstan.backup.pipeline import FramePipeline
from capstan.core.files import FileEntry
from capstan.errors import SourceError, StorageFailed
from capstan.format.frames import Frame
from capstan.format.layout import ArchiveParameters
from capstan.format.segment_archive import RawSegment, SegmentAssembler
from capstan.format.seven_zip import SevenZip
from capstan.testing.pipeline_run import check_rows, rows_of, run_pipeline, tar_of

FRAME = 64 << 10
PARAMETERS = ArchiveParameters(
    codec="copy", level=0, container="7z", frame_bytes=FRAME, archive_bytes=4 * FRAME, archive_entries=30
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Ten segments by bytes, and then some by rows."""
    root = tmp_path / "tree"
    (root / "many").mkdir(parents=True)
    (tmp_path / "spool").mkdir()
    for number in range(100):
        (root / "many" / f"{number:03}").write_bytes(b"%d" % number)
    (root / "large").write_bytes(os.urandom(30 * FRAME))
    (root / "small").write_bytes(os.urandom(3000))
    return root


def pipeline_of(
    tree: Path, *, parameters: ArchiveParameters = PARAMETERS, cancelled: Event | None = None, source: Any = None
) -> ArchivePipeline:
    return ArchivePipeline(
        source or FilesystemSource([os.fsencode(tree)]),
        parameters,
        workers=1,
        on_warning=lambda warning: None,
        counters=PackCounters(),
        spool=tree.parent / "spool",
        cancelled=cancelled or Event(),
    )


@pytest.fixture
def run() -> Iterator[Callable[[ArchivePipeline], ArchivePipeline]]:
    """Starts pipelines, and stops them at the end; then no thread is left."""
    running: list[ArchivePipeline] = []

    def start(pipeline: ArchivePipeline) -> ArchivePipeline:
        running.append(pipeline)
        pipeline.start()
        return pipeline

    yield start
    for pipeline in running:
        pipeline.stop()
        pipeline.stop()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("capstan-")] == []


def unpacked(frame: Frame) -> bytes:
    """The tar of one frame's archive."""
    assert frame.archive is not None
    out = bytearray(frame.tar_bytes)

    def put(offset: int, data: bytes | bytearray | memoryview) -> None:
        out[offset : offset + len(data)] = data

    SevenZip().unpack(frame.archive.file, SegmentAssembler(frame.tar_offset, frame.tar_bytes, put))
    return bytes(out)


def test_the_stream_is_that_of_a_frame_pipeline(tree: Path, run: Callable[..., Any]) -> None:
    """The segments one after the other are the same tar stream, with the same rows and frames; each keeps to its bounds
    by bytes and rows; parts are counted on; nothing is left in the spool."""
    expected = run_pipeline(
        FilesystemSource([os.fsencode(tree)]), ArchiveParameters(codec="none", frame_bytes=FRAME), workers=1
    )
    pipeline = run(pipeline_of(tree))
    pipeline.wait_first()
    tar, rows, frames, sizes = b"", [], [], []
    while frame := pipeline.next_frame():
        assert frame.archive is not None
        assert frame.archive.payload_bytes == os.fstat(frame.archive.file.fileno()).st_size
        assert frame.tar_bytes <= 4 * FRAME
        tar += unpacked(frame)
        rows += frame.rows
        frames += frame.archive.frames
        sizes.append(len(frame.rows))
        assert frame.resume.tar_offset == len(tar)
    assert tar == tar_of(expected.frames, "none")
    assert rows == rows_of(expected.frames)
    assert frames == [(item.tar_offset, item.tar_bytes) for item in expected.frames]
    assert len(sizes) > 8
    check_rows(tar, rows)
    assert list((tree.parent / "spool").iterdir()) == []


def test_many_rows_end_a_segment(tree: Path, run: Callable[..., Any]) -> None:
    """A segment is closed with the frame that brings it enough rows, however few bytes it has."""
    parameters = ArchiveParameters(
        codec="copy", level=0, container="7z", frame_bytes=FRAME, archive_bytes=1 << 30, archive_entries=30
    )
    pipeline = run(pipeline_of(tree, parameters=parameters))
    sizes = []
    while frame := pipeline.next_frame():
        sizes.append(len(frame.rows))
    assert len(sizes) > 1
    assert all(size >= 30 for size in sizes[:-1])


def test_a_frame_is_given_again(tree: Path, run: Callable[..., Any]) -> None:
    """What was put back comes again, with its file, and the rest behind it; of the last one too."""
    pipeline = run(pipeline_of(tree))
    first = pipeline.next_frame()
    pipeline.put_back()
    assert pipeline.next_frame() is first
    tar = unpacked(first)
    frame = first
    while not frame.last:
        frame = pipeline.next_frame()
        pipeline.put_back()
        assert pipeline.next_frame() is frame
        tar += unpacked(frame)
    assert pipeline.next_frame() is None
    assert frame.resume.tar_offset == len(tar)


def test_a_frame_of_a_frame_pipeline_is_given_again(tree: Path) -> None:
    """So it is with frames that are no archives."""
    pipeline = FramePipeline(
        FilesystemSource([os.fsencode(tree)]),
        ArchiveParameters(codec="none", frame_bytes=FRAME),
        workers=1,
        on_warning=lambda warning: None,
        counters=PackCounters(),
    )
    pipeline.start()
    try:
        tar = b""
        while frame := pipeline.next_frame():
            pipeline.put_back()
            again = pipeline.next_frame()
            assert again is frame
            tar += bytes(again.payload)
    finally:
        pipeline.stop()
    assert len(tar) == again.resume.tar_offset


class Watched(SevenZip):
    """Tells of each packing, and waits in it until it may go on."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.may_go_on = threading.Semaphore(0)
        self.count = self.finished = 0

    def pack(self, segment: RawSegment, packed: IO[bytes], *, method: str, level: int, workers: int) -> None:
        self.count += 1
        self.begun.release()
        self.may_go_on.acquire()
        super().pack(segment, packed, method=method, level=level, workers=workers)
        self.finished += 1


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    container = Watched()
    monkeypatch.setattr(archive_pipeline, "find_container", lambda name: container)
    return container


def test_the_next_is_made_while_one_is_written(tree: Path, watched: Watched, run: Callable[..., Any]) -> None:
    """As soon as a segment was taken the next is packed, and the one behind that only when that one was taken too."""
    pipeline = run(pipeline_of(tree))
    try:
        watched.may_go_on.release()
        assert pipeline.next_frame() is not None
        assert watched.begun.acquire(timeout=60)
        assert watched.begun.acquire(timeout=60)  # the second, while the first is in the caller's hand
        watched.may_go_on.release()
        assert pipeline.next_frame() is not None
        assert watched.begun.acquire(timeout=60)
        watched.may_go_on.release(100)
        with pipeline._changed:
            pipeline._changed.wait_for(lambda: pipeline._ready is not None)  # the third, which nobody takes
        pipeline.stop()
        assert watched.count == 3
    finally:
        watched.may_go_on.release(100)


def test_a_cancel_ends_the_waiting(tree: Path, watched: Watched, run: Callable[..., Any]) -> None:
    """While a segment is packed for minutes, a cancelled job gets None for a frame, and need not wait for it."""
    cancelled = Event()
    pipeline = run(pipeline_of(tree, cancelled=cancelled))
    assert watched.begun.acquire(timeout=60)
    cancelled.set()
    assert pipeline.next_frame() is None
    watched.may_go_on.release(100)


def test_stopping_in_the_middle_of_packing(tree: Path, watched: Watched, run: Callable[..., Any]) -> None:
    """`stop` ends a packing at its next read: no segment is made of it."""
    pipeline = run(pipeline_of(tree))
    assert watched.begun.acquire(timeout=60)
    stopping = threading.Thread(target=pipeline.stop)
    stopping.start()
    with pipeline._changed:
        pipeline._changed.wait_for(lambda: pipeline._stopped)
    watched.may_go_on.release(100)
    stopping.join()
    assert pipeline.next_frame() is None
    assert (watched.count, watched.finished) == (1, 0)


def test_what_does_not_read_back_is_not_given(
    tree: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive that is not what was put into it never comes out: the disk, or the program, is at fault."""

    class Forgetful(SevenZip):
        def pack(self, segment: RawSegment, packed: IO[bytes], *, method: str, level: int, workers: int) -> None:
            super().pack(segment, packed, method=method, level=level, workers=workers)
            packed.seek(200)
            byte = packed.read(1)
            packed.seek(200)
            packed.write(bytes([byte[0] ^ 1]))

    monkeypatch.setattr(archive_pipeline, "find_container", lambda name: Forgetful())
    pipeline = run(pipeline_of(tree))
    with pytest.raises(StorageFailed, match="read back"):
        pipeline.next_frame()


def test_a_source_that_fails(tree: Path, run: Callable[..., Any]) -> None:
    """What the source raises is told before a cartridge is fetched, or by the next frame."""

    class Broken(FilesystemSource):
        def scan(self, *arguments: Any) -> Iterator[FileEntry]:
            raise SourceError(path="/x", reason="it is gone")
            yield

    pipeline = run(pipeline_of(tree, source=Broken([os.fsencode(tree)])))
    with pytest.raises(SourceError):
        pipeline.wait_first()
    with pytest.raises(SourceError):
        pipeline.next_frame()


def test_a_disk_that_fills_up(tree: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Less room than is wanted makes smaller segments, down to an eighth; less than that is an error that says what to
    set."""
    limits = []
    for free in (100 << 20, 6 * FRAME, 3 * FRAME, 2 * FRAME):
        monkeypatch.setattr(archive_pipeline, "free_bytes", lambda folder, free=free: free)
        try:
            limits.append(pipeline_of(tree)._limit())
        except StorageFailed as error:
            limits.append(0)
            assert "spooled_segment_bytes" in error.hint_text
    assert limits == [4 * FRAME, 2 * FRAME, FRAME // 2, 0]
