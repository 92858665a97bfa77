"""From a source to compressed frames in stream order: one thread scans and packs, some compress, the caller consumes.

Scanning and packing are one thread on purpose: both are Python between short system calls, so a second thread would
only pass the interpreter's lock to and fro. Compression lets go of that lock, and takes most of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Thread
from typing import Protocol

from capstan.backup.conveyor import Conveyor, ConveyorStopped
from capstan.backup.packer import PackCounters, Packer
from capstan.backup.source import BackupSource, FirstName, SourceWarning
from capstan.format.codecs import frame_codec
from capstan.format.frames import Frame, ResumePoint
from capstan.format.layout import ArchiveParameters

__all__ = ["FramePipeline", "PackCounters"]


class Pipeline(Protocol):
    """One run over a source, as the engine and the drive's thread use it: `start` once, then `next_frame` from one
    thread, then `stop`, always."""

    def start(self) -> None:
        """Begin to read the source."""
        ...

    def wait_first(self) -> None:
        """Wait until the source gives something. Raises what went wrong before; returns at once when stopped."""
        ...

    def next_frame(self) -> Frame | None:
        """The next frame, valid until the next call. None behind the last one, and when stopped or cancelled.

        Raises what went wrong in a stage (SourceError, StorageFailed).
        """
        ...

    def put_back(self) -> None:
        """The frame that was given last was not used: `next_frame` gives it again."""
        ...

    def stop(self) -> None:
        """End all threads and wait for them. From any thread, at any time, as often as you like."""
        ...


class FramePipeline:
    """One run over a source, from its beginning or from a resume point. `start` once, then `next_frame` from one
    thread, then `stop`, always.

    Memory: `2 * workers + 2` buffers of a frame, and as many compressed frames at most. `on_warning` is called from
    the packing thread; behind a resume point it may tell again what an earlier pipeline told. `links`: see
    `BackupSource.scan`.
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
    ) -> None:
        self._parameters = parameters
        in_flight = 2 * workers + 2
        self._conveyor = Conveyor(frame_bytes=parameters.frame_bytes, buffers=workers + 2, in_flight=in_flight)
        self._packer = Packer(
            source,
            self._conveyor,
            frame_bytes=parameters.frame_bytes,
            resume=resume or ResumePoint(),
            links=links,
            on_warning=on_warning,
            counters=counters,
        )
        self._threads = [Thread(target=self._run, args=(self._packer.run,), name="capstan-pack", daemon=True)]
        self._threads += [
            Thread(target=self._run, args=(self._compress,), name=f"capstan-compress-{number}", daemon=True)
            for number in range(workers)
        ]
        self._started = False
        self._ended = False
        self._held: Frame | None = None
        self._again = False

    def start(self) -> None:
        """Begin to read the source."""
        self._started = True
        for thread in self._threads:
            thread.start()

    def wait_first(self) -> None:
        """Wait until the first frame is ready, so that no cartridge is fetched for a source that cannot be read.

        Raises what went wrong before it; returns at once when the pipeline is stopped.
        """
        self._conveyor.wait_ready()

    def next_frame(self) -> Frame | None:
        """The next frame; its payload is valid until the next call.

        None behind the last frame, and when `stop` was called. Raises what went wrong in a stage (SourceError).
        """
        if self._again:
            self._again = False
            return self._held
        if self._ended:
            return None
        self._held = frame = self._conveyor.next_frame()
        self._ended = frame is None or frame.last
        return frame

    def put_back(self) -> None:
        """The frame that was given last was not used: `next_frame` gives it again."""
        self._again = True

    def stop(self) -> None:
        """End all threads and wait for them. From any thread, at any time, as often as you like."""
        self._conveyor.stop()
        if self._started:
            for thread in self._threads:
                thread.join()

    def _compress(self) -> None:
        codec = frame_codec(self._parameters.codec, self._parameters.level)
        while True:
            self._conveyor.compress_next(codec)

    def _run(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except ConveyorStopped:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised again in the consumer
            self._conveyor.fail(error)
