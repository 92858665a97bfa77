"""The bounded way of frames from the packer through the compressing threads to the consumer, in stream order.

One lock guards it all: it is taken a few times for each frame of some MiB, never for a file. The packer takes a buffer
before it begins a frame, so buffers are given out in the order of the stream, and a later frame can never hold what
an earlier one waits for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition

from capstan.format.codecs import FrameCodec
from capstan.format.frames import Frame


class ConveyorStopped(Exception):
    """Raised in whoever waits on a conveyor that was stopped, or on which another stage failed."""


@dataclass(slots=True)
class _Item:
    frame: Frame
    buffer: memoryview | None  # None once it went back into the pool
    ready: bool = False


class Conveyor:
    """Thread-safe. Holds `buffers` buffers of `frame_bytes`, and at most `in_flight` frames behind the packer."""

    def __init__(self, *, frame_bytes: int, buffers: int, in_flight: int) -> None:
        self._frame_bytes = frame_bytes
        self._free = [memoryview(bytearray(frame_bytes)) for _ in range(buffers)]
        self._in_flight = in_flight
        self._changed = Condition()
        self._to_compress: deque[_Item] = deque()
        self._in_order: deque[_Item] = deque()
        self._held: _Item | None = None
        self._error: BaseException | None = None
        self.stopped = False  # read without the lock by the packer, between two files

    def take_buffer(self) -> memoryview:
        """A buffer for the next frame. Blocks until there is one; raises ConveyorStopped."""
        with self._changed:
            self._wait(lambda: bool(self._free) and len(self._in_order) < self._in_flight)
            return self._free.pop()

    def give_back(self, buffer: memoryview) -> None:
        """Return a buffer that was not used."""
        with self._changed:
            self._recycle(buffer)

    def submit(self, frame: Frame, buffer: memoryview) -> None:
        """Hand over the next frame of the stream, packed into the first `frame.tar_bytes` of `buffer`."""
        item = _Item(frame, buffer)
        with self._changed:
            self._in_order.append(item)
            self._to_compress.append(item)
            self._changed.notify_all()

    def compress_next(self, codec: FrameCodec) -> None:
        """Compress one frame, waiting for it if there is none. Raises ConveyorStopped, and what the codec raises."""
        with self._changed:
            self._wait(lambda: bool(self._to_compress))
            item = self._to_compress.popleft()
        assert item.buffer is not None
        data = item.buffer[: item.frame.tar_bytes]
        payload = codec.compress(data)
        with self._changed:
            item.frame.payload = payload
            item.ready = True
            if payload is not data:
                self._recycle(item.buffer)
                item.buffer = None
            self._changed.notify_all()

    def wait_ready(self) -> None:
        """Wait until the next frame can be had at once. Raises the error of a stage that failed."""
        with self._changed:
            self._wait_next()

    def next_frame(self) -> Frame | None:
        """The next frame in order; its payload is valid until the next call. None when the conveyor was stopped.

        Raises the error of a stage that failed, even if frames of before it are still waiting.
        """
        with self._changed:
            if self._held is not None and self._held.buffer is not None:
                self._recycle(self._held.buffer)
            self._held = None
            if not self._wait_next():
                return None
            self._held = self._in_order.popleft()
            self._changed.notify_all()
            return self._held.frame

    def fail(self, error: BaseException) -> None:
        """Tell the consumer that a stage failed, and end all others."""
        with self._changed:
            self._error = self._error or error
            self.stopped = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Wake and end everyone who waits."""
        with self._changed:
            self.stopped = True
            self._changed.notify_all()

    def _wait(self, wanted: Callable[[], bool]) -> None:
        self._changed.wait_for(lambda: self.stopped or wanted())
        if self.stopped:
            raise ConveyorStopped

    def _wait_next(self) -> bool:
        """Wait for the next frame in order; False when the conveyor was stopped before."""
        self._changed.wait_for(lambda: self.stopped or bool(self._in_order and self._in_order[0].ready))
        if self._error is not None:
            raise self._error
        return not self.stopped

    def _recycle(self, buffer: memoryview) -> None:
        """Only the pool's own buffers go back: one made for a giant member is dropped."""
        if len(buffer) == self._frame_bytes:
            self._free.append(buffer)
            self._changed.notify_all()
