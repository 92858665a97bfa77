"""From a source to whole segments, each an archive in the spool: for containers other than `tar`.

A thread takes uncompressed frames of a `FramePipeline`, gathers those of a segment, and packs them. While one segment
is written to tape the next is made, and no more than that: the spool holds two archives and one segment as it was.
All files in the spool are nameless, so that nothing is left of them, however the process ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Condition, Event, Thread
from typing import IO

from capstan.backup.conveyor import ConveyorStopped
from capstan.backup.packer import PackCounters
from capstan.backup.pipeline import FramePipeline
from capstan.backup.source import BackupSource, FirstName, SourceWarning
from capstan.core.files import Row
from capstan.core.sizes import format_size
from capstan.errors import StorageFailed
from capstan.format.containers import find_container
from capstan.format.contents import SegmentContents
from capstan.format.frames import Frame, ResumePoint, SegmentArchive
from capstan.format.layout import ArchiveParameters
from capstan.format.segment_archive import Data, RawSegment, SegmentAssembler
from capstan.format.spooling import free_bytes, spooling

_PATIENCE = 0.5  # seconds after which who waits looks whether the job was cancelled
_LEAST = 8  # of a segment's size, one part in so many is made where the disk has no room for more


class ArchivePipeline:
    """A `Pipeline` whose frames have archives; arguments as of `FramePipeline`.

    `parts`: in how many segments of the set the resume point's open member has content already. `cancelled`: ends the
    waiting of `next_frame`.
    """

    def __init__(
        self,
        source: BackupSource,
        parameters: ArchiveParameters,
        *,
        workers: int,
        resume: ResumePoint | None = None,
        links: Sequence[FirstName] | None = None,
        on_warning: Callable[[SourceWarning], None],
        counters: PackCounters,
        spool: Path,
        parts: int = 0,
        cancelled: Event,
    ) -> None:
        self._frames = FramePipeline(
            source,
            replace(parameters, codec="none", level=0),
            workers=1,
            resume=resume,
            links=links,
            on_warning=on_warning,
            counters=counters,
        )
        self._parameters = parameters
        self._workers = workers
        self._spool = spool
        self._parts = parts
        self._cancelled = cancelled
        self._thread = Thread(target=self._run, name="capstan-archive", daemon=True)
        self._changed = Condition()
        self._begun = False  # the source has given something
        self._ready: Frame | None = None
        self._held: Frame | None = None
        self._again = False
        self._error: BaseException | None = None
        self._stopped = False
        self._started = False

    def start(self) -> None:
        self._started = True
        self._frames.start()
        self._thread.start()

    def wait_first(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._begun or self._stopped or self._error is not None)
            if self._error is not None:
                raise self._error

    def next_frame(self) -> Frame | None:
        if self._again:
            self._again = False
            return self._held
        if self._held is not None:
            _close(self._held)
            if self._held.last:
                return None
            self._held = None
        with self._changed:
            while self._ready is None and self._error is None and not self._stopped and not self._cancelled.is_set():
                self._changed.wait(_PATIENCE)
            if self._error is not None:
                raise self._error
            self._held, self._ready = self._ready, None
            self._changed.notify_all()
            return self._held

    def put_back(self) -> None:
        self._again = True

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._frames.stop()
        if self._started:
            self._thread.join()
        for frame in (self._ready, self._held):
            if frame is not None:
                _close(frame)
        self._ready = None

    def _run(self) -> None:
        try:
            last = False
            while not last:
                with self._changed:
                    self._changed.wait_for(lambda: self._ready is None or self._stopped)
                self._check()
                frame = self._make()
                last = frame.last
                with self._changed:
                    self._ready = frame
                    self._changed.notify_all()
        except ConveyorStopped:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised again in the consumer
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _check(self) -> None:
        if self._stopped:
            raise ConveyorStopped

    def _make(self) -> Frame:
        """The next segment, packed."""
        limit = self._limit()
        with spooling(self._spool), tempfile.TemporaryFile(dir=self._spool) as raw:
            gathered = self._gather(raw, limit)
            last = gathered.last
            contents = gathered.contents
            self._parts = contents.end(last.resume.tar_offset, last.resume.open_member)
            tar_bytes = last.resume.tar_offset - contents.tar_offset
            archive = None
            if tar_bytes:
                raw.flush()
                archive = self._pack(
                    RawSegment(raw, contents.tar_offset, tar_bytes, contents.found, self._check), gathered.frames
                )
            return Frame(
                contents.tar_offset,
                tar_bytes,
                b"",
                gathered.rows,
                last.resume,
                last.last,
                gathered.deleted,
                archive,
            )

    def _limit(self) -> int:
        """How much tar the next segment may have. Raises StorageFailed when the spool has no room for it."""
        wanted = self._parameters.archive_bytes
        free = free_bytes(self._spool)
        room = free // 2 - self._parameters.frame_bytes  # the segment as it is, and packed; neither ends to the byte
        if room < wanted // _LEAST:
            reason = (
                f"{format_size(free)} are free there, and a segment of {format_size(wanted)} is made there first,"
                f" which takes twice as much"
            )
            hint = "free space, or set archive.spooled_segment_bytes in capstan.toml to less"
            raise StorageFailed(path=self._spool, reason=reason, hint=hint)
        return min(wanted, room)

    def _gather(self, raw: IO[bytes], limit: int) -> _Gathered:
        gathered: _Gathered | None = None
        while True:
            frame = self._frames.next_frame()
            if frame is None:
                raise ConveyorStopped
            if gathered is None:
                self._tell_begun()
                gathered = _Gathered(frame, SegmentContents(frame.tar_offset, self._parts))
            raw.write(frame.payload)
            gathered.add(frame)
            gathered_bytes = frame.resume.tar_offset - gathered.contents.tar_offset
            if (
                frame.last
                or gathered_bytes + self._parameters.frame_bytes > limit
                or len(gathered.rows) + len(gathered.deleted) >= self._parameters.archive_entries
            ):
                return gathered

    def _tell_begun(self) -> None:
        with self._changed:
            self._begun = True
            self._changed.notify_all()

    def _pack(self, segment: RawSegment, frames: Sequence[tuple[int, int]]) -> SegmentArchive:
        """Pack, and prove that what was packed is what was there."""
        parameters = self._parameters
        container = find_container(parameters.container)
        packed = tempfile.TemporaryFile(dir=self._spool)  # noqa: SIM115 - it is closed when it was written to tape
        try:
            container.pack(segment, packed, method=parameters.codec, level=parameters.level, workers=self._workers)
            packed.flush()
            self._prove(container.unpack, segment, packed)
            return SegmentArchive(packed, packed.seek(0, os.SEEK_END), tuple(frames))
        except BaseException:
            packed.close()
            raise

    def _prove(
        self, unpack: Callable[[IO[bytes], SegmentAssembler], None], segment: RawSegment, packed: IO[bytes]
    ) -> None:
        def compare(offset: int, data: Data) -> None:
            self._check()
            segment.file.seek(offset)
            if segment.file.read(len(data)) != data:
                raise ValueError(f"it differs from what was packed, at byte {offset}")

        try:
            unpack(packed, SegmentAssembler(segment.tar_offset, segment.tar_bytes, compare))
        except ValueError as error:
            reason = f"the archive of a segment does not read back as it was made: {error}"
            hint = "nothing of it was written to tape; check this disk, and run the command again"
            raise StorageFailed(path=self._spool, reason=reason, hint=hint) from error


@dataclass(slots=True)
class _Gathered:
    """What a segment consists of; `last` is the last frame so far."""

    last: Frame
    contents: SegmentContents
    frames: list[tuple[int, int]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    deleted: list[bytes] = field(default_factory=list)

    def add(self, frame: Frame) -> None:
        self.last = frame
        self.contents.add(frame.rows)
        if frame.tar_bytes:
            self.frames.append((frame.tar_offset, frame.tar_bytes))
        self.rows += frame.rows
        self.deleted += frame.deleted


def _close(frame: Frame) -> None:
    if frame.archive is not None:
        frame.archive.file.close()
