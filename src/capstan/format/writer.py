"""Writes the stream of one set onto one cartridge: segments, and commit points (docs/design/tape-format.md, 3 and 6).

A `SetWriter` lives from one mount to its end. What must outlive it (how far the set is committed, where the tape
ends) is in two values, `SetChain` and `TapeEnd`, that only a commit moves on. So going back to the last commit point is
nothing but using the last values again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from capstan.clock import Clock
from capstan.core.backup import BackupSet, Segment, SetType
from capstan.core.files import FileFlag
from capstan.crypto.identities import DriveKey
from capstan.fileindex.builder import FileIndexBuilder, FrameTableBuilder
from capstan.fileindex.store import IndexPart
from capstan.format.codecs import frame_codec, index_codec
from capstan.format.frames import Frame, ResumePoint, SegmentArchive
from capstan.format.header import Header, Kind
from capstan.format.index_payload import IndexPayload, build_index_payload
from capstan.format.layout import ArchiveParameters, index_end
from capstan.format.manifest import CommitLink, Manifest, encode_manifest
from capstan.format.mirror import NoMirror, SegmentMirror
from capstan.format.records import TapeFileWriter
from capstan.format.sealing import PayloadSealer, encode_beginning
from capstan.format.set_header import set_header
from capstan.format.spooling import spooling
from capstan.format.written import CommitWritten as CommitWritten
from capstan.format.written import SetChain as SetChain
from capstan.format.written import TapeEnd as TapeEnd
from capstan.tape.drive import TapeDrive

# An INDEX must fit behind the early warning, so a commit is due after this many rows too (about 60 bytes each).
COMMIT_ROWS = 2_000_000


class SetWriter:
    """Writes frames as they come; the tape must stand at `tape.end_block`. Blocking, on the drive's thread.

    After an error from the drive nothing since the last commit counts, and the writer is closed by `discard`.
    """

    def __init__(
        self,
        drive: TapeDrive,
        *,
        backup_set: BackupSet,
        chain: SetChain,
        tape: TapeEnd,
        parameters: ArchiveParameters,
        spool: Path,
        clock: Clock,
        drive_key: DriveKey | None = None,
        announce: Callable[[str, bytes], None] = lambda header_sha256, file_key: None,
        mirror: SegmentMirror = NoMirror(),  # noqa: B008 (it has no state)
    ) -> None:
        """`drive_key`: what the drive encrypts with, for a set with that encryption. Refused if it cannot.

        `announce` is told of each INDEX before anything of it is written: its digest, and what opens it if it is sealed
        (else b""). It keeps both, durably, so that this home knows its own INDEX again, and can read it without any
        identity, if the process dies before the catalog has it.

        `mirror` gets all segments too.
        """
        self._set = backup_set
        self._chain = chain
        self._tape = tape
        self._parameters = parameters
        self._spool = spool
        self._clock = clock
        self._announce = announce
        self._mirror = mirror
        self._incremental = backup_set.type is not SetType.FULL
        self._file = TapeFileWriter(
            drive, record_bytes=tape.record_bytes, block=tape.end_block, tape_file=tape.tape_files, key=drive_key
        )
        self._resume = ResumePoint(tar_offset=chain.tar_end)
        self._segment: Segment | None = None
        self._sealer: PayloadSealer | None = None
        self._begin_interval()

    @property
    def early_warning(self) -> bool:
        """The drive has said that the end of the cartridge is near: commit now, and go on with another one."""
        return self._file.early_warning

    @property
    def stored_bytes(self) -> int:
        """Payload written for this set so far, committed or not."""
        return self._chain.stored_bytes + self._interval_bytes

    @property
    def uncommitted(self) -> bool:
        """Whether a frame was written since the last commit point."""
        return self._interval_bytes > 0 or self._rows > 0

    @property
    def commit_due(self) -> bool:
        """Whether enough was written since the last commit point, by bytes, rows or time, or the mirror wants one."""
        return (
            self._mirror.wants_commit
            or self._interval_bytes >= self._parameters.commit_bytes
            or self._rows >= COMMIT_ROWS
            or self._clock.monotonic() - self._began >= self._parameters.commit_seconds
        )

    def write(self, frame: Frame) -> bool:
        """Write one frame, in a new segment if none is open; close the segment when it is large enough.

        A frame without tar bytes brings only rows or deletions, and leaves nothing in the stream. One with an archive
        becomes a whole segment. False: the archive would not fit any more, and nothing of the frame is written; commit
        if there is something to, and write it again on the next cartridge.
        """
        if frame.archive is not None:
            if not self._write_archive(frame, frame.archive):
                return False
        elif frame.tar_bytes:
            self._write_payload(frame)
        for row in frame.rows:
            self._files.add(*row)
        self._rows += len(frame.rows)
        if frame.deleted:
            with spooling(self._spool):
                self._deleted.write(b"\0".join(frame.deleted) + b"\0")
            self._rows += len(frame.deleted)
        self._resume = frame.resume
        if self._segment is not None and (frame.archive or self._plain_bytes >= self._parameters.segment_bytes):
            self._close_segment()
        return True

    def _write_payload(self, frame: Frame) -> None:
        if self._segment is None:
            self._open_segment(frame.tar_offset)
        segment = self._segment
        assert segment is not None
        self._frames.add(
            segment=segment.number,
            tar_offset=frame.tar_offset,
            tar_bytes=frame.tar_bytes,
            payload_offset=self._plain_bytes,
            payload_bytes=len(frame.payload),
        )
        self._write(frame.payload)
        self._plain_bytes += len(frame.payload)
        self._interval_bytes += len(frame.payload)

    def _write_archive(self, frame: Frame, archive: SegmentArchive) -> bool:
        """As a segment of its own. At the early warning, if more is left than a frame: go back to where it began."""
        self._open_segment(frame.tar_offset)
        number = self._next_segment
        left, size = archive.payload_bytes, self._parameters.frame_bytes
        with spooling(self._spool):
            archive.file.seek(0)
        while left:
            if self._file.early_warning and left > size:
                self._file.abandon()
                self._mirror.tear()
                self._segment = self._sealer = None
                return False
            with spooling(self._spool):
                piece = archive.file.read(min(left, size))
            self._write(piece)
            left -= len(piece)
        for tar_offset, tar_bytes in archive.frames:
            self._frames.add(
                segment=number,
                tar_offset=tar_offset,
                tar_bytes=tar_bytes,
                payload_offset=0,
                payload_bytes=archive.payload_bytes,
            )
        self._interval_bytes += archive.payload_bytes
        return True

    def commit(self, *, final: bool) -> CommitWritten:
        """Close the segment, write an INDEX and its synchronous filemark. The writer can go on behind it.

        Only when something is `uncommitted`: what an INDEX says of the set comes with a frame. Raises what the drive
        raises, and StorageFailed: then nothing since the last commit counts.
        """
        with spooling(self._spool):
            return self._commit(final=final)

    def _commit(self, *, final: bool) -> CommitWritten:
        if self._segment is not None:
            self._close_segment()
        open_member = self._resume.open_member
        if open_member is not None:
            row = open_member.row
            self._files.add(row.entry, row.tar_offset, row.tar_bytes, None, row.flags | FileFlag.CONTINUES)
        self._files.finish()
        self._frames.finish()
        self._deleted.close()
        if not self._incremental:
            self._deleted_path.unlink()
        self._records_path.write_bytes(b"".join(self._checksums))
        manifest = self._manifest(final=final)
        payload = self._index_payload(manifest)
        try:
            header, written = self._prepare(manifest, payload)
            self._announce(written.commit.header_sha256, payload.file_key)
            self._write_index(header, payload)
        finally:
            payload.path.unlink(missing_ok=True)
        self._tape, self._chain = written.tape, written.chain
        self._begin_interval()
        return replace(written, early_warning=self._file.early_warning)

    def discard(self) -> None:
        """Drop what was not committed: remove its files from the spool."""
        self._files.close()
        self._frames.close()
        with suppress(OSError):  # it is thrown away
            self._deleted.close()
        for path in (self._files_path, self._frames_path, self._records_path, self._deleted_path):
            path.unlink(missing_ok=True)

    def _begin_interval(self) -> None:
        stem = f"{self._set.id}-{self._chain.sequence + 1}"
        self._files_path = self._spool / f"{stem}.files.parquet"
        self._frames_path = self._spool / f"{stem}.frames.parquet"
        self._records_path = self._spool / f"{stem}.records.crc32c"
        self._deleted_path = self._spool / f"{stem}.deleted"
        self._files = FileIndexBuilder(self._files_path)
        self._frames = FrameTableBuilder(self._frames_path)
        with spooling(self._spool):
            self._deleted = self._deleted_path.open("wb")
        self._checksums: list[bytes] = []
        self._segments: list[Segment] = []
        self._interval_bytes = 0
        self._rows = 0
        self._next_segment = self._chain.next_segment
        self._began = self._clock.monotonic()

    def _open_segment(self, tar_offset: int) -> None:
        number = self._next_segment
        block, tape_file = self._file.block, self._file.tape_file
        header, _ = replace(self._header(Kind.SEGMENT), stream=0, segment=number, tar_offset=tar_offset).encode()
        self._file.begin(header)
        self._mirror.begin(number, 0, tar_offset)
        self._plain_bytes = 0
        self._sealer = PayloadSealer(self._set.recipients, self._put) if self._set.recipients else None
        self._segment = Segment(
            set_id=self._set.id,
            number=number,
            cartridge=self._tape.cartridge,
            barcode=self._tape.barcode,
            tape_file=tape_file,
            block=block,
            records=0,
            record_bytes=self._tape.record_bytes,
            payload_bytes=0,
            payload_sha256="",
            tar_offset=tar_offset,
            tar_bytes=0,
        )

    def _write(self, data: bytes | memoryview) -> None:
        """Add to the payload of the segment, sealed where the set is."""
        if self._sealer is not None:
            self._sealer.write(data)
        else:
            self._put(data)

    def _put(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._mirror.write(data)

    def _close_segment(self) -> None:
        assert self._segment is not None
        beginning = b""
        if self._sealer is not None:
            self._sealer.finish()
            beginning, self._sealer = self._sealer.beginning, None
        digest = self._file.end(synchronous=False)
        self._checksums.append(bytes(self._file.checksums))
        segment = replace(
            self._segment,
            records=self._file.records,
            payload_bytes=self._file.payload_bytes,
            payload_sha256=digest,
            tar_bytes=self._resume.tar_offset - self._segment.tar_offset,
            age_beginning=encode_beginning(beginning),
        )
        self._segments.append(segment)
        self._mirror.end(segment)
        self._next_segment += 1
        self._segment = None

    def _manifest(self, *, final: bool) -> Manifest:
        totals = self._resume.totals
        return Manifest(
            backup_set=replace(
                self._set,
                files=totals.files,
                bytes=totals.bytes,
                warning_count=totals.warnings,
                stored_bytes=self._chain.stored_bytes + sum(segment.payload_bytes for segment in self._segments),
            ),
            sequence=self._chain.sequence + 1,
            final=final,
            cartridge=self._tape.cartridge,
            barcode=self._tape.barcode,
            tape_file=self._file.tape_file,
            block=self._file.block,
            committed_at=self._clock.now(),
            tar_end=self._resume.tar_offset,
            segments=tuple(self._segments),
            commits=self._chain.commits,
        )

    def _index_payload(self, manifest: Manifest) -> IndexPayload:
        members: list[tuple[str, bytes | Path]] = [
            ("manifest.json", encode_manifest(manifest)),
            ("files.parquet", self._files_path),
            ("frames.parquet", self._frames_path),
            ("records.crc32c", self._records_path),
        ]
        if self._incremental:
            members.append(("deleted", self._deleted_path))
        return build_index_payload(
            self._spool / f"{self._set.id}-{manifest.sequence}.index",
            members,
            frame_codec(*index_codec(self._parameters.codec, self._parameters.level)),
            mtime=int(manifest.committed_at.timestamp()),
            recipients=self._set.recipients,
        )

    def _prepare(self, manifest: Manifest, payload: IndexPayload) -> tuple[bytes, CommitWritten]:
        """The INDEX's header record, and what will be true once it and its filemark are on the medium."""
        header, header_sha256 = replace(
            self._header(Kind.INDEX),
            sequence=manifest.sequence,
            final=manifest.final,
            set_previous_index_sha256=self._chain.previous_sha256,
            original_index_sha256="",
            payload_bytes=payload.size,
            payload_sha256=payload.sha256,
        ).encode()
        commit = manifest.commit(
            end_block=index_end(manifest.block, payload.size, self._tape.record_bytes),
            header_sha256=header_sha256,
            payload_bytes=payload.size,
            payload_sha256=payload.sha256,
        )
        link = CommitLink(
            commit.sequence, commit.cartridge, commit.barcode, commit.tape_file, commit.block, header_sha256
        )
        return header, CommitWritten(
            commit=commit,
            manifest=manifest,
            chain=SetChain(
                sequence=commit.sequence,
                next_segment=self._next_segment,
                tar_end=manifest.tar_end,
                stored_bytes=manifest.backup_set.stored_bytes,
                previous_sha256=header_sha256,
                commits=(*self._chain.commits, link),
            ),
            tape=replace(
                self._tape,
                end_block=commit.end_block,
                tape_files=commit.tape_file + 1,
                index_block=commit.block,
                index_sha256=header_sha256,
            ),
            part=IndexPart(
                commit.sequence,
                header_sha256,
                self._files_path,
                self._frames_path,
                self._records_path,
                self._deleted_path if self._incremental else None,
            ),
            early_warning=False,
        )

    def _write_index(self, header: bytes, payload: IndexPayload) -> None:
        self._file.begin(header)
        with payload.path.open("rb") as source:
            while piece := source.read(4 << 20):
                self._file.write(piece)
        self._file.end(synchronous=True)

    def _header(self, kind: Kind) -> Header:
        return set_header(
            kind,
            self._set,
            self._file,
            self._tape,
            self._clock,
            codec=self._parameters.codec,
            segment=self._next_segment,
        )
