"""Writes segments that are on another cartridge already to this one: a copy (docs/design/tape-format.md, 8).

Payloads are the same bytes in all copies, so nothing is opened, and no identity is needed. Records are cut anew, and
header records and INDEXes are this copy's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from capstan.clock import Clock
from capstan.core.backup import BackupSet, Commit, Segment
from capstan.format.codecs import find_codec, frame_codec, index_codec
from capstan.format.header import Header, Kind
from capstan.format.index_payload import IndexPayload, build_index_payload
from capstan.format.layout import index_end
from capstan.format.manifest import CommitLink, Manifest, encode_manifest
from capstan.format.records import TapeFileWriter
from capstan.format.set_header import set_header
from capstan.format.spooling import spooling
from capstan.format.writer import TapeEnd
from capstan.tape.drive import TapeDrive


class Copied(Enum):
    """What became of a segment: it is WHOLE; the cartridge is FULL before its end; or its source was BROKEN: what came
    is not what it should be. What is not whole is a torn tape file, and the writer can go on behind it."""

    WHOLE = "whole"
    FULL = "full"
    BROKEN = "broken"


class SourceBroken(Exception):
    """Raised by the pieces of a segment that can go no further."""


@dataclass(frozen=True, slots=True)
class Interval:
    """What lies between two INDEXes of a set. `commit` is the one at its end, in the original or in any copy;
    `originals` are the digests of the original's INDEXes from the first to that; `stored_bytes` and `warnings` are of
    the set up to there; the tables are those of the whole interval."""

    commit: Commit
    originals: tuple[str, ...]
    stored_bytes: int
    warnings: int
    files: Path
    frames: Path
    deleted: Path | None


@dataclass(frozen=True, slots=True)
class CopyWritten:
    """A commit point of a copy that is on the medium. `records` is a file in the spool and belongs to the receiver."""

    commit: Commit
    manifest: Manifest
    tape: TapeEnd
    records: Path
    link: CommitLink


class CopyWriter:
    """Lives from one mount to its end; the tape must stand at `tape.end_block`. Blocking, on the drive's thread.

    After an error from the drive nothing since the last commit counts. `links`: the INDEXes that this copy has so far.
    """

    def __init__(
        self,
        drive: TapeDrive,
        *,
        backup_set: BackupSet,
        copy: int,
        links: Sequence[CommitLink],
        tape: TapeEnd,
        spool: Path,
        clock: Clock,
        announce: Callable[[str, bytes], None] = lambda header_sha256, file_key: None,
    ) -> None:
        """`announce`: as of `format.writer.SetWriter`."""
        self._set = backup_set
        self._copy = copy
        self._links = tuple(links)
        self._tape = tape
        self._spool = spool
        self._clock = clock
        self._announce = announce
        self._codec = backup_set.codec.partition(":")[0]
        index = index_codec(self._codec)[0]
        self._index_codec = frame_codec(index, find_codec(index).levels.default)
        self._file = TapeFileWriter(
            drive, record_bytes=tape.record_bytes, block=tape.end_block, tape_file=tape.tape_files
        )
        self._torn: list[int] = []
        self._fresh: list[int] = []  # tape files of segments since the last commit point
        self._open: tuple[int, int] | None = None  # block and tape file of the segment in hand
        self.begin_interval((), b"")

    @property
    def early_warning(self) -> bool:
        """The end of the cartridge is near: commit now, and go on with another one."""
        return self._file.early_warning

    @property
    def uncommitted(self) -> bool:
        """Whether a segment was written since the last commit point."""
        return bool(self._fresh)

    def begin_interval(self, segments: Sequence[Segment], checksums: bytes) -> None:
        """The segments that follow are of another interval, of which an earlier INDEX on this cartridge may name some
        already, with the CRCs of their records: the next one names them too, and takes its place.

        What was written since the last commit point, and not committed, never counts: its tape files are torn.
        """
        if self._open is not None:
            self.tear_segment()
        self._torn += self._fresh
        self._fresh = []
        self._segments = list(segments)
        self._checksums = [checksums]

    def write_segment(self, segment: Segment, pieces: Iterable[bytes | memoryview]) -> Copied:
        """Write one segment; `segment` describes it in any other copy, `pieces` are its payload.

        `pieces` may raise SourceBroken. Whatever is not the payload by length and SHA-256 is never committed.
        """
        self.begin_segment(segment.number, segment.stream, segment.tar_offset)
        try:
            for piece in pieces:
                self.write(piece)
                if self._file.early_warning and self._file.payload_bytes < segment.payload_bytes:
                    self.tear_segment()
                    return Copied.FULL
        except SourceBroken:
            self.tear_segment()
            return Copied.BROKEN
        return self.end_segment(segment)

    def begin_segment(self, number: int, stream: int, tar_offset: int) -> None:
        """Begin one that is not known yet as a whole; then `write`, and `end_segment` or `tear_segment`."""
        self._open = (self._file.block, self._file.tape_file)
        header = replace(self._header(Kind.SEGMENT, number), stream=stream, segment=number, tar_offset=tar_offset)
        self._file.begin(header.encode()[0])

    def write(self, piece: bytes | memoryview) -> None:
        """Add a part of its payload. `piece` may be reused when this returns."""
        self._file.write(piece)

    def end_segment(self, segment: Segment) -> Copied:
        """End it as a copy of `segment`, which describes it in any other copy; BROKEN when it is not that."""
        assert self._open is not None
        (block, tape_file), self._open = self._open, None
        digest = self._file.end(synchronous=False)
        if (self._file.payload_bytes, digest) != (segment.payload_bytes, segment.payload_sha256):
            self._torn.append(tape_file)
            return Copied.BROKEN
        self._checksums.append(bytes(self._file.checksums))
        self._segments.append(
            replace(
                segment,
                copy=self._copy,
                cartridge=self._tape.cartridge,
                barcode=self._tape.barcode,
                tape_file=tape_file,
                block=block,
                records=self._file.records,
                record_bytes=self._tape.record_bytes,
            )
        )
        self._fresh.append(tape_file)
        return Copied.WHOLE

    def commit(self, interval: Interval) -> CopyWritten:
        """Write an INDEX for what was written of `interval`, and its synchronous filemark.

        Raises what the drive raises, and StorageFailed: then nothing since the last commit counts.
        """
        records = self._spool / f"{self._set.id}-{self._tape.cartridge}.records.crc32c"
        with spooling(self._spool):
            records.write_bytes(b"".join(self._checksums))
            manifest = self._manifest(interval)
            payload = self._payload(manifest, interval, records)
            try:
                written = self._write_index(manifest, payload, records)
            finally:
                payload.path.unlink(missing_ok=True)
        self._tape, self._links = written.tape, (*self._links, written.link)
        self._torn, self._fresh = [], []
        return written

    def discard(self) -> None:
        """Remove what was not committed from the spool. Harmless twice."""
        for kind in ("records.crc32c", "index"):
            with suppress(OSError):
                (self._spool / f"{self._set.id}-{self._tape.cartridge}.{kind}").unlink(missing_ok=True)

    def tear_segment(self) -> None:
        """End a segment that never counts."""
        self._open = None
        self._torn.append(self._file.tape_file)
        self._file.tear()

    def _manifest(self, interval: Interval) -> Manifest:
        commit = interval.commit
        return Manifest(
            backup_set=replace(
                self._set,
                files=commit.files,
                bytes=commit.bytes,
                stored_bytes=interval.stored_bytes,
                warning_count=interval.warnings,
                finished_at=self._set.finished_at or (commit.committed_at if commit.final else None),
            ),
            sequence=commit.sequence,
            final=commit.final,
            cartridge=self._tape.cartridge,
            barcode=self._tape.barcode,
            tape_file=self._file.tape_file,
            block=self._file.block,
            committed_at=self._clock.now(),
            tar_end=commit.tar_end,
            segments=tuple(self._segments),
            commits=self._links,
            torn=tuple(self._torn),
            copy=self._copy,
            originals=interval.originals,
        )

    def _payload(self, manifest: Manifest, interval: Interval, records: Path) -> IndexPayload:
        members: list[tuple[str, bytes | Path]] = [
            ("manifest.json", encode_manifest(manifest)),
            ("files.parquet", interval.files),
            ("frames.parquet", interval.frames),
            ("records.crc32c", records),
        ]
        if interval.deleted is not None:
            members.append(("deleted", interval.deleted))
        return build_index_payload(
            self._spool / f"{self._set.id}-{self._tape.cartridge}.index",
            members,
            self._index_codec,
            mtime=int(manifest.committed_at.timestamp()),
            recipients=self._set.recipients,
        )

    def _write_index(self, manifest: Manifest, payload: IndexPayload, records: Path) -> CopyWritten:
        header, header_sha256 = replace(
            self._header(Kind.INDEX),
            sequence=manifest.sequence,
            final=manifest.final,
            set_previous_index_sha256=self._links[-1].header_sha256 if self._links else "",
            original_index_sha256=manifest.originals[-1],
            payload_bytes=payload.size,
            payload_sha256=payload.sha256,
        ).encode()
        commit = manifest.commit(
            end_block=index_end(manifest.block, payload.size, self._tape.record_bytes),
            header_sha256=header_sha256,
            payload_bytes=payload.size,
            payload_sha256=payload.sha256,
        )
        self._announce(header_sha256, payload.file_key)
        self._file.begin(header)
        with payload.path.open("rb") as source:
            while piece := source.read(4 << 20):
                self._file.write(piece)
        self._file.end(synchronous=True)
        return CopyWritten(
            commit=commit,
            manifest=manifest,
            tape=replace(
                self._tape,
                end_block=commit.end_block,
                tape_files=commit.tape_file + 1,
                index_block=commit.block,
                index_sha256=header_sha256,
            ),
            records=records,
            link=link_of(commit),
        )

    def _header(self, kind: Kind, segment: int = 0) -> Header:
        return set_header(
            kind, self._set, self._file, self._tape, self._clock, codec=self._codec, segment=segment, copy=self._copy
        )


def link_of(commit: Commit) -> CommitLink:
    """What later INDEXes say of this one."""
    return CommitLink(
        commit.sequence,
        commit.cartridge,
        commit.barcode,
        commit.tape_file,
        commit.block,
        commit.header_sha256,
        commit.copy,
    )
