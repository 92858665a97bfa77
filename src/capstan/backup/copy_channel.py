"""What goes from the drive of a backup to the drive of its second copy: segments, and where they are committed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Condition

from capstan.core.backup import Segment
from capstan.format.copy_writer import Copied, CopyWriter, CopyWritten, Interval
from capstan.tape.drive import TapeDrive

_ROOM = 64 << 20  # bytes of payload that may wait for the copy's drive


class CopyFellBehind(Exception):
    """What came of a segment is not that segment; the copy can make nothing more of this pass."""


@dataclass(frozen=True, slots=True)
class _Begin:
    number: int
    stream: int
    tar_offset: int


class _Tear:
    """What is not committed never counts."""


class _End:
    """Nothing more comes."""


_Message = _Begin | bytes | Segment | Interval | _Tear | _End


class CopyChannel:
    """Implements `format.mirror.SegmentMirror` for the thread of the backup's drive; that of the copy's drive runs
    `write_until_commit`. In order, and bounded: the faster one waits. `close` from any thread ends both, at once."""

    def __init__(self) -> None:
        self.wants_commit = False
        self._messages: deque[_Message] = deque()
        self._waiting = 0
        self._closed = False
        self._changed = Condition()

    def begin(self, number: int, stream: int, tar_offset: int) -> None:
        self._put(_Begin(number, stream, tar_offset))

    def write(self, piece: bytes | memoryview) -> None:
        if not self._closed:
            self._put(bytes(piece), len(piece))

    def end(self, segment: Segment) -> None:
        self._put(segment)

    def tear(self) -> None:
        self._put(_Tear())

    def commit(self, interval: Interval) -> None:
        """What was ended so far is committed in the original. Never waits."""
        self._put(interval)

    def finish(self) -> None:
        """Nothing more comes. Never waits."""
        self._put(_End())

    def close(self) -> None:
        """Drop what was not taken, and whatever comes. Harmless twice."""
        with self._changed:
            self._closed = True
            self.wants_commit = False
            self._messages.clear()
            self._changed.notify_all()

    def write_until_commit(self, drive: TapeDrive, writer: CopyWriter) -> CopyWritten | None:
        """Give what comes to `writer`, until it has written an INDEX; None when nothing more comes, or at `close`.

        Runs on the thread of the copy's drive, and raises what that raises; CopyFellBehind.
        """
        del drive  # the writer holds it
        while True:
            message = self._take()
            match message:
                case None | _End():
                    return None
                case _Begin(number, stream, tar_offset):
                    writer.begin_segment(number, stream, tar_offset)
                case bytes():
                    writer.write(message)
                case Segment():
                    if writer.end_segment(message) is not Copied.WHOLE:
                        raise CopyFellBehind(f"segment {message.number} is not the same in the copy")
                case _Tear():
                    writer.begin_interval((), b"")
                case Interval():
                    written = writer.commit(message)
                    writer.begin_interval((), b"")
                    return written
            if writer.early_warning:
                self.wants_commit = True

    def wait_for_more(self) -> bool:
        """Wait until something has come; False when nothing more does."""
        with self._changed:
            while not self._messages and not self._closed:
                self._changed.wait()
            return not self._closed and not isinstance(self._messages[0], _End)

    def _put(self, message: _Message, size: int = 0) -> None:
        with self._changed:
            while size and self._waiting and self._waiting + size > _ROOM and not self._closed:
                self._changed.wait()
            if not self._closed:
                self._messages.append(message)
                self._waiting += size
                self._changed.notify_all()

    def _take(self) -> _Message | None:
        with self._changed:
            while not self._messages and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            message = self._messages.popleft()
            if isinstance(message, bytes):
                self._waiting -= len(message)
            self._changed.notify_all()
            return message
