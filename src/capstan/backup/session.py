"""The blocking heart of a backup: frames from the pipeline go to tape until there is something to decide.

Runs on the drive's thread. It returns at every commit point, so that the engine can tell the catalog before more is
written, and so that nothing above has to be asked from down here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from threading import Event

from capstan.backup.pipeline import Pipeline
from capstan.format.writer import CommitWritten, SetWriter
from capstan.tape.drive import TapeDrive


class Boundary(Enum):
    """Why `write_until_boundary` returned; each time all that was written is behind a commit point."""

    COMMITTED = "committed"
    CARTRIDGE_FULL = "cartridge-full"
    FINISHED = "finished"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class StoredBytes:
    """Payload written so far, read by the engine for progress."""

    value: int = 0


def write_until_boundary(
    drive: TapeDrive, writer: SetWriter, pipeline: Pipeline, cancelled: Event, stored: StoredBytes
) -> tuple[Boundary, CommitWritten | None]:
    """Write frames until a commit point is due, then write it.

    None instead of a commit point: cancelled or full, and nothing was written since the last one.
    Raises what the drive or the pipeline raises: then nothing since the last commit point counts.
    """
    del drive  # the writer holds it; the lane passes it to everything it runs
    while True:
        if cancelled.is_set():
            return Boundary.CANCELLED, writer.commit(final=False) if writer.uncommitted else None
        frame = pipeline.next_frame()
        if frame is None:
            if cancelled.is_set():
                continue
            raise RuntimeError("the pipeline ended without a last frame")
        if not writer.write(frame):
            pipeline.put_back()
            return Boundary.CARTRIDGE_FULL, writer.commit(final=False) if writer.uncommitted else None
        stored.value = writer.stored_bytes
        if frame.last:
            return Boundary.FINISHED, writer.commit(final=True)
        if writer.early_warning:
            return Boundary.CARTRIDGE_FULL, writer.commit(final=False)
        if writer.commit_due:
            return Boundary.COMMITTED, writer.commit(final=False)
