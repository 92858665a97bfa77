"""The payload of one segment on its way from one cartridge to another: from drive to drive, or through the spool.

Records are checked by their CRCs as they come; whoever writes them compares the whole with its SHA-256.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event

from capstan.core.backup import Segment
from capstan.errors import CapstanError
from capstan.format.copy_writer import SourceBroken
from capstan.format.reader import SegmentReader
from capstan.format.spooling import spooling
from capstan.recovery.report import Trouble
from capstan.tape.drive import TapeDrive

_DEPTH = 16  # records between the drives
_PATIENCE = 0.5  # seconds after which a blocked thread looks whether the other side has stopped


class SegmentPipe:
    """A bounded queue of records. One thread runs `fill`, one iterates; `close` ends both.

    `trouble`: why what came is not all, where the tape is to blame for it; `error`: where the drive is.
    """

    def __init__(self, segment: Segment) -> None:
        self.trouble: Trouble | None = None
        self.error: CapstanError | None = None
        self._segment = segment
        self._queue: Queue[memoryview | None] = Queue(_DEPTH)
        self._closed = Event()

    def fill(self, drive: TapeDrive, reader: SegmentReader, crcs: array[int], cancelled: Event) -> None:
        """Read the segment; runs on the thread of the drive that `reader` uses. Raises nothing that a drive raises."""
        del drive
        segment = self._segment
        try:
            for record in reader.read(segment, 0, segment.records - 1, crcs):
                if record.trouble:
                    self.trouble = Trouble(segment.barcode, record.block, record.trouble)
                if record.trouble or cancelled.is_set():
                    self._closed.set()
                    return
                if not self._put(record.data):
                    return
        except CapstanError as error:
            self.error = error
            self._closed.set()
        else:
            self._put(None)

    def __iter__(self) -> Iterator[memoryview]:
        while True:
            try:
                data = self._queue.get(timeout=_PATIENCE)
            except Empty:
                if self._closed.is_set():
                    raise SourceBroken from None
                continue
            if data is None:
                return
            yield data

    def close(self) -> None:
        """Let `fill` end. Harmless twice."""
        self._closed.set()

    def _put(self, data: memoryview | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(data, timeout=_PATIENCE)
                return True
            except Full:
                continue
        return False


def spool_segment(
    drive: TapeDrive, reader: SegmentReader, segment: Segment, crcs: array[int], cancelled: Event, path: Path
) -> Trouble | None:
    """Read a segment into a file; what of it cannot be read. When it was cancelled, the file is not whole.

    Raises what the drive raises, and StorageFailed.
    """
    del drive
    sha256 = hashlib.sha256()
    with spooling(path.parent), path.open("wb") as out:
        for record in reader.read(segment, 0, segment.records - 1, crcs):
            if record.trouble:
                return Trouble(segment.barcode, record.block, record.trouble)
            if cancelled.is_set():
                return None
            sha256.update(record.data)
            out.write(record.data)
    if sha256.hexdigest() != segment.payload_sha256:
        return Trouble(segment.barcode, segment.block, "the segment does not match its digest")
    return None


def spooled(path: Path, piece_bytes: int = 1 << 20) -> Iterator[bytes]:
    """What `spool_segment` has kept. StorageFailed."""
    with spooling(path.parent), path.open("rb") as file:
        while piece := file.read(piece_bytes):
            yield piece
