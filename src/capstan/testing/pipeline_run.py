"""Runs a frame pipeline to its end and keeps everything that came out: for tests of sources and of the pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from capstan.backup.pipeline import FramePipeline, PackCounters
from capstan.backup.source import BackupSource, FirstName, SourceWarning
from capstan.core.files import FileEntry, FileFlag, Row
from capstan.format.codecs import frame_codec
from capstan.format.frames import Frame, ResumePoint
from capstan.format.layout import TAR_END, ArchiveParameters
from capstan.format.tar import content_bytes, parse_member


@dataclass(slots=True)
class PipelineRun:
    """`frames` own their payloads."""

    frames: list[Frame]
    warnings: list[SourceWarning]
    counters: PackCounters

    @property
    def rows(self) -> list[Row]:
        return rows_of(self.frames)


def run_pipeline(
    source: BackupSource,
    parameters: ArchiveParameters,
    *,
    resume: ResumePoint | None = None,
    links: Sequence[FirstName] | None = None,
    workers: int = 2,
) -> PipelineRun:
    """Run to the last frame. Raises what the pipeline raises; its threads have ended in any case."""
    run = PipelineRun([], [], PackCounters())
    pipeline = FramePipeline(
        source,
        parameters,
        workers=workers,
        resume=resume,
        links=links,
        on_warning=run.warnings.append,
        counters=run.counters,
    )
    pipeline.start()
    try:
        while frame := pipeline.next_frame():
            run.frames.append(replace(frame, payload=bytes(frame.payload)))
    finally:
        pipeline.stop()
    return run


def rows_of(frames: Iterable[Frame]) -> list[Row]:
    """All rows, in order."""
    return [row for frame in frames for row in frame.rows]


def tar_of(frames: Sequence[Frame], codec: str = "zstd") -> bytes:
    """The tar stream; AssertionError if the frames are not one gapless stream with one end."""
    decoder = frame_codec(codec)
    tar = bytearray()
    for frame in frames:
        assert frame.tar_offset == len(tar)
        tar += decoder.decompress(memoryview(frame.payload), frame.tar_bytes)
        assert frame.resume.tar_offset == len(tar)
    assert [frame.last for frame in frames] == [False] * (len(frames) - 1) + [True]
    return bytes(tar)


def check_rows(tar: bytes, rows: Iterable[Row]) -> dict[bytes, tuple[FileEntry, bytes]]:
    """Compare every row with the member it points at; returns the last good entry and content of each path."""
    found: dict[bytes, tuple[FileEntry, bytes]] = {}
    end = 0
    for row in rows:
        if row.flags & FileFlag.UNREADABLE:
            assert row.tar_bytes == 0
            continue
        assert row.tar_offset == end, "members stand one behind the other, and each has one row"
        end += row.tar_bytes
        entry, headers = parse_member(memoryview(tar)[row.tar_offset : row.tar_offset + row.tar_bytes])
        assert (entry.path, entry.type, entry.size) == (row.entry.path, row.entry.type, row.entry.size)
        assert (entry.stored_bytes >= 0) == bool(row.flags & FileFlag.SPARSE)
        content = tar[row.tar_offset + headers : row.tar_offset + headers + content_bytes(entry)]
        assert not any(tar[row.tar_offset + headers + len(content) : end]), "the padding is zeros"
        if row.sha256 is not None or not row.flags & FileFlag.DAMAGED:  # a damaged one need not have a digest
            assert row.sha256 == (hashlib.sha256(content).digest() if entry.type.value == "file" else None)
        if not row.flags & FileFlag.DAMAGED or entry.path not in found:
            found[entry.path] = (entry, content)
    assert tar[end:] == TAR_END
    return found
