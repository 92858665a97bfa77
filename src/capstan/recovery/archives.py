"""Segments that are archives: gathered in the spool as their records come, unpacked, and cut into frames again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from capstan.core.backup import Segment
from capstan.crypto.age import AgeError
from capstan.crypto.identities import Identity
from capstan.format.containers import STREAM, find_container
from capstan.format.sealing import PayloadOpener
from capstan.format.segment_archive import Data, SegmentAssembler
from capstan.format.spooling import check_room, spooling
from capstan.recovery.plan import FramePlace


class ArchiveSpool:
    """Where the segments of one set are unpacked. For a set whose segments are streams, `unpacks` is False."""

    def __init__(self, container: str, spool: Path) -> None:
        """Raises InvalidValue when the container is that of a plugin that is not installed."""
        self._container = None if container == STREAM else find_container(container)
        self._spool = spool

    @property
    def unpacks(self) -> bool:
        """Whether segments must be unpacked as a whole."""
        return self._container is not None

    def segment(self, segment: Segment, identities: Sequence[Identity], *, opened: bool) -> SpooledArchive:
        """A place for one segment, which `identities` open if it is sealed. `opened` False: nothing is kept of it.

        Raises StorageFailed when the spool has no room for it, packed and unpacked.
        """
        assert self._container is not None
        if opened:
            wanted = segment.payload_bytes + segment.tar_bytes
            check_room(self._spool, wanted, f"segment {segment.number}, which is unpacked as a whole,")
        return SpooledArchive(segment, self._spool, self._container.unpack if opened else None, identities)


class SpooledArchive:
    """One segment, in two nameless files that are gone behind its `with`.

    All methods raise StorageFailed for what the disk refuses. What is wrong with the payload is told by `unpack`.
    """

    def __init__(
        self, segment: Segment, spool: Path, unpack: Callable[..., None] | None, identities: Sequence[Identity]
    ) -> None:
        self._segment = segment
        self._spool = spool
        self._unpack = unpack
        self._fault: AgeError | None = None
        self._opener: PayloadOpener | None = None
        with spooling(spool), ExitStack() as stack:
            self._packed = stack.enter_context(tempfile.TemporaryFile(dir=spool))
            self._raw = stack.enter_context(tempfile.TemporaryFile(dir=spool))
            self._files = stack.pop_all()
        if unpack is not None and segment.age_beginning:
            try:
                self._opener = PayloadOpener(segment, identities, self._packed.write)
            except AgeError as error:
                self._fault = error

    def add(self, data: memoryview) -> None:
        """The next bytes of the payload."""
        if self._unpack is None or self._fault is not None:
            return
        with spooling(self._spool):
            try:
                (self._opener or self._packed).write(data)
            except AgeError as error:
                self._fault = error

    def unpack(self, check: Callable[[], None]) -> None:
        """Make the tar of it. Raises ValueError when the archive is damaged, or cannot be opened. `check` is called
        often, and may raise."""
        if self._unpack is None:
            return
        if self._fault is not None:
            raise self._fault

        def put(offset: int, data: Data) -> None:
            check()
            self._raw.seek(offset)
            self._raw.write(data)

        with spooling(self._spool):
            if self._opener is not None:
                self._opener.finish()
            self._packed.flush()
            self._unpack(self._packed, SegmentAssembler(self._segment.tar_offset, self._segment.tar_bytes, put))
            self._packed.truncate(0)
            self._raw.flush()

    def frame(self, place: FramePlace) -> bytes:
        """The tar of one frame, behind `unpack`; nothing, where nothing was opened. Raises ValueError when it lies
        beyond the segment."""
        if self._unpack is None:
            return b""
        with spooling(self._spool):
            self._raw.seek(max(place.tar_offset - self._segment.tar_offset, 0))
            data = self._raw.read(place.tar_bytes)
        if len(data) != place.tar_bytes:
            raise ValueError("the frame lies beyond the end of its segment")
        return data

    def __enter__(self) -> SpooledArchive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()
