"""From the drive to decompressed frames: the drive's thread reads, a few workers decompress, the order stays.

The queue between is short, so that memory is bounded by a few frames; a consumer that stops takes the producer along.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, Full, Queue
from threading import Event

from capstan.core.backup import Segment
from capstan.crypto.age import AgeError
from capstan.crypto.identities import Identity
from capstan.format.codecs import FrameCodec, frame_codec
from capstan.format.reader import Record, SegmentReader
from capstan.format.sealing import SegmentOpener, sealed_range
from capstan.recovery.archives import ArchiveSpool
from capstan.recovery.copies import CopyChoice, Health
from capstan.recovery.plan import CartridgeVisit, FramePlace, RestorePlan, Run
from capstan.recovery.report import RecoveryReport, Trouble
from capstan.recovery.rows import SetTable
from capstan.tape.drive import TapeDrive

_DEPTH = 8  # frames between the drive and the assembler
_PATIENCE = 0.5  # seconds after which a blocked thread looks whether the other side has stopped


@dataclass(slots=True)
class FrameData:
    """One frame, decompressed, or with the `trouble` that kept it from being. `barcode` and `block` say where its
    first record lies; `copy` is the number of the copy that it is of."""

    place: FramePlace
    copy: int
    barcode: str
    block: int
    data: bytes | memoryview | None
    trouble: Trouble | None


@dataclass(slots=True)
class _Queued:
    frame: FrameData
    work: Future[bytes | memoryview] | None


class FrameStream:
    """A bounded queue of frames in order. One thread puts, one iterates; `close` ends both."""

    def __init__(self, codec: str, *, workers: int = 2) -> None:
        self._codec = codec
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="decompress")
        self._queue: Queue[_Queued | None] = Queue(_DEPTH)
        self._local = threading.local()
        self._closed = Event()

    def put(self, frame: FrameData, payload: bytes | memoryview | None, opener: SegmentOpener | None = None) -> bool:
        """Queue a frame, with its payload to be decompressed; False when nobody takes frames any more. `opener`: the
        payload is sealed, and opened first."""
        try:
            work = None if payload is None else self._executor.submit(self._decode, payload, frame.place, opener)
        except RuntimeError:  # closed
            return False
        return self._put(_Queued(frame, work))

    def end(self) -> None:
        """No more frames come."""
        self._put(None)

    def __iter__(self) -> Iterator[FrameData]:
        while True:
            try:
                queued = self._queue.get(timeout=_PATIENCE)
            except Empty:
                if self._closed.is_set():
                    return
                continue
            if queued is None:
                return
            frame = queued.frame
            if queued.work is not None:
                try:
                    frame.data = queued.work.result()
                except ValueError as error:
                    frame.trouble = Trouble(frame.barcode, frame.block, str(error))
                except CancelledError:  # closed
                    return
            yield frame

    @property
    def closed(self) -> bool:
        """Whether it was given up: the frames that came are not all."""
        return self._closed.is_set()

    def close(self) -> None:
        """Let both sides end; harmless twice. Frames that are still queued are dropped."""
        self._closed.set()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _put(self, queued: _Queued | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(queued, timeout=_PATIENCE)
                return True
            except Full:
                continue
        return False

    def _decode(
        self, payload: bytes | memoryview, place: FramePlace, opener: SegmentOpener | None
    ) -> bytes | memoryview:
        data = memoryview(payload)
        if opener is not None:
            data = opener.open(data, place.payload_offset, place.payload_bytes)
        codec: FrameCodec | None = getattr(self._local, "codec", None)
        if codec is None:
            codec = self._local.codec = frame_codec(self._codec)
        return codec.decompress(data, place.tar_bytes)


@dataclass(frozen=True, slots=True)
class Spoilt:
    """A place that cannot be read, from the frame with this ordinal on, while another copy may be."""

    segment: Segment
    ordinal: int
    trouble: Trouble


class FrameReader:
    """Carries out the visits of a plan, in their order, each either by `read` or by `lose`.

    Every needed frame is put into the stream exactly once, in order, with its data or with its trouble.
    """

    def __init__(
        self,
        table: SetTable,
        plan: RestorePlan,
        stream: FrameStream,
        report: RecoveryReport,
        *,
        archives: ArchiveSpool,
        cancelled: Event,
        digests: bool = False,
        identities: Sequence[Identity] = (),
        sealed: bool = False,
        choice: CopyChoice | None = None,
    ) -> None:
        """`digests`: also compare the SHA-256 of every segment that is read as a whole, and look for its filemark.
        `identities` open what is sealed; with `sealed` nothing is opened, and no frame is put into the stream.
        `choice`: what cannot be read is left to another copy, if there is one; but with `digests` all is named."""
        self._identities = identities
        self._sealed = sealed
        self._table = table
        self._archives = archives
        self._stream = stream
        self._report = report
        self._cancelled = cancelled
        self._digests = digests
        self._stopped = False
        self._interrupted = False  # in the unpacking of an archive
        self._choice = choice or CopyChoice({}, Health())
        self.spoilt: Spoilt | None = None
        self._frames = ((n, place) for n, place in enumerate(table.frames()) if n in plan.frames)
        self._next = next(self._frames, None)

    @property
    def next_ordinal(self) -> int | None:
        """The first frame that was neither read nor lost so far."""
        return self._next[0] if self._next else None

    def read(self, drive: TapeDrive, visit: CartridgeVisit) -> bool:
        """Read what is left of `visit`; runs on the drive's thread, and blocks while the stream is full.

        False when it ended early, because it was cancelled or nobody takes frames any more, or (`spoilt` says it)
        because there is another copy of what cannot be read. Raises what the drive raises when it fails altogether:
        then it may be called again, for another drive, or `lose` gives up the rest.
        """
        self.spoilt = None
        reader = SegmentReader(drive, barcode=visit.barcode)
        locates, bytes_read = self._report.locates, self._report.bytes_read
        for run in visit.runs:
            if self._next is None or self._next[0] > run.last_frame:
                continue  # it was read before the drive failed
            for record in self._read_run(reader, run, self._next):
                self._report.locates = locates + reader.locates
                self._report.bytes_read = bytes_read + reader.bytes_read
                if record.trouble:
                    trouble = Trouble(visit.barcode, record.block, record.trouble)
                    if not self._digests and self._next and self._choice.has_other(run.segment, self._next[0]):
                        self.spoilt = Spoilt(run.segment, self._next[0], trouble)
                        return False
                    self._report.spoil(trouble)
                if self._stopped or self._cancelled.is_set():
                    return False
        return not self._interrupted

    def lose(self, visit: CartridgeVisit, what: str) -> None:
        """Put every frame of `visit` that was not read into the stream, with a trouble."""
        for run in visit.runs:
            while self._next is not None and self._next[0] <= run.last_frame and not self._stopped:
                place = self._next[1]
                block = _first_block(run, place)
                self._put(run, place, None, Trouble(visit.barcode, block, what, missing=True))

    def _read_run(self, reader: SegmentReader, run: Run, begin_at: tuple[int, FramePlace]) -> Iterator[Record]:
        """Read a run from the frame `begin_at`, which is its first one unless a drive failed in the middle of it."""
        segment = run.segment
        if self._archives.unpacks:
            yield from self._read_archive(reader, run)
            return
        size = segment.record_bytes
        opener, unopened = self._opener(segment)
        window: list[Record] = []  # those that the next frame may lie in
        first = run.first_record
        if begin_at[0] > run.first_frame:
            first = _sealed_range(segment, begin_at[1])[0] // size
        digest = _Digest(run) if self._digests and first == 0 and run.last_record == segment.records - 1 else None
        for record in reader.read(segment, first, run.last_record, self._table.crcs(segment)):
            yield record
            if record.number < 0:
                continue
            if digest is not None:
                digest.add(record)
            window.append(record)
            begin = (record.number + 1) * size
            while self._next is not None and self._next[0] <= run.last_frame and not self._stopped:
                place = self._next[1]
                begin, length = _sealed_range(segment, place)
                if begin + length > (record.number + 1) * size:
                    break
                payload, trouble = _cut(window, segment, begin, begin + length)
                self._put(run, place, payload, trouble or unopened, opener)
            window = [kept for kept in window if (kept.number + 1) * size > begin]
        self._check_segment(reader, segment, digest)

    def _read_archive(self, reader: SegmentReader, run: Run) -> Iterator[Record]:
        """Read the whole segment, as an archive has to be. One bad record costs all frames of it."""
        segment = run.segment
        trouble: Trouble | None = None
        digest = _Digest(run) if self._digests else None
        with self._archives.segment(segment, self._identities, opened=not self._sealed) as archive:
            for record in reader.read(segment, 0, segment.records - 1, self._table.crcs(segment)):
                yield record
                if record.number < 0:
                    continue
                if digest is not None:
                    digest.add(record)
                if record.trouble:
                    trouble = trouble or Trouble(segment.barcode, record.block, record.trouble)
                elif trouble is None:
                    archive.add(record.data)
            if trouble is None:
                try:
                    archive.unpack(self._check_interrupt)
                except _Interrupted:
                    self._interrupted = True
                    return
                except ValueError as error:
                    trouble = Trouble(segment.barcode, segment.block + 1, str(error))
            while self._next is not None and self._next[0] <= run.last_frame and not self._stopped:
                place, data = self._next[1], None
                try:
                    data = None if trouble else archive.frame(place)
                except ValueError as error:
                    trouble = Trouble(segment.barcode, segment.block + 1, str(error))
                self._put(run, place, data, trouble)
        self._check_segment(reader, segment, digest)

    def _check_interrupt(self) -> None:
        if self._cancelled.is_set() or self._stream.closed:
            raise _Interrupted

    def _check_segment(self, reader: SegmentReader, segment: Segment, digest: _Digest | None) -> None:
        """Behind the last record of a segment that was read as a whole, if it was."""
        if digest is None or self._stopped:
            return
        if digest.differs():
            self._report.spoil(Trouble(segment.barcode, segment.block, "the segment does not match its digest"))
        mark = reader.check_end(segment)
        if mark:
            self._report.spoil(Trouble(segment.barcode, segment.block + 1 + segment.records, mark))

    def _opener(self, segment: Segment) -> tuple[SegmentOpener | None, Trouble | None]:
        if self._sealed or not segment.age_beginning:
            return None, None
        try:
            return SegmentOpener(segment, self._identities), None
        except AgeError as error:
            return None, Trouble(segment.barcode, segment.block, str(error))

    def _put(
        self,
        run: Run,
        place: FramePlace,
        payload: bytes | memoryview | None,
        trouble: Trouble | None,
        opener: SegmentOpener | None = None,
    ) -> None:
        frame = FrameData(place, run.segment.copy, run.segment.barcode, _first_block(run, place), None, trouble)
        self._next = next(self._frames, None)
        if trouble is None:
            self._choice.read(run.segment)
        if not self._sealed:
            self._stopped = not self._stream.put(frame, None if trouble else payload, opener)


class _Interrupted(Exception):
    pass


class _Digest:
    """The SHA-256 of a segment's payload, as far as every record could be read."""

    def __init__(self, run: Run) -> None:
        self._expected = run.segment.payload_sha256
        self._sha256 = hashlib.sha256()
        self._broken = False

    def add(self, record: Record) -> None:
        self._broken = self._broken or bool(record.trouble)
        self._sha256.update(record.data)

    def differs(self) -> bool:
        """Never for a segment with a bad record: that has been named already."""
        return not self._broken and self._sha256.hexdigest() != self._expected


def _sealed_range(segment: Segment, place: FramePlace) -> tuple[int, int]:
    return sealed_range(segment, place.payload_offset, place.payload_bytes)


def _cut(
    window: Sequence[Record], segment: Segment, begin: int, end: int
) -> tuple[bytes | memoryview | None, Trouble | None]:
    """Bytes `begin` to `end` of a payload, of consecutive records of it; or what is wrong with one of them."""
    size = segment.record_bytes
    pieces: list[memoryview] = []
    for record in window:
        at = record.number * size
        if at >= end or at + size <= begin:
            continue
        if record.trouble:
            return None, Trouble(segment.barcode, record.block, record.trouble)
        pieces.append(record.data[max(begin - at, 0) : end - at])
    return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), None


def _first_block(run: Run, place: FramePlace) -> int:
    return run.segment.block + 1 + _sealed_range(run.segment, place)[0] // run.segment.record_bytes
