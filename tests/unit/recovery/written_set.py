"""A set written to tapes in memory, byte for byte as the format says, and a target that keeps what it is given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread

import pyarrow as pa
import pyarrow.parquet as pq

from capstan.core.backup import Segment
from capstan.core.files import FileEntry, FileFlag, FileType, display_path
from capstan.errors import TargetError
from capstan.fileindex.schema import FILES, FRAMES
from capstan.format.codecs import frame_codec
from capstan.format.header import Header, Kind
from capstan.format.layout import TAR_END
from capstan.format.records import TapeFileWriter
from capstan.format.tar import content_bytes, member_headers, padded
from capstan.recovery.archives import ArchiveSpool
from capstan.recovery.assemble import MemberAssembler, Outcomes
from capstan.recovery.report import RecoveryReport
from capstan.recovery.rows import Part, SetTable
from capstan.recovery.select import Selector, make_selector
from capstan.recovery.selection import Selection
from capstan.recovery.stream import FrameReader, FrameStream
from capstan.recovery.target import FileSink, Placement
from capstan.testing.memory_drive import MemoryTape, MemoryTapeDrive

RECORD = 65_536
Member = tuple[FileEntry, bytes, int]


def member(path: bytes, content: bytes = b"", flags: int = 0, **fields: object) -> Member:
    """A regular file of the set, or another type by `type=`."""
    kind = fields.pop("type", FileType.REGULAR)
    size = len(content)
    return FileEntry(path, kind, 0o644, 1, 1, size, 1_700_000_000_123_456_789, **fields), content, flags  # type: ignore[arg-type]


class WrittenSet:
    """`members` in order, in frames of `frame_bytes` of tar, `frames_per_segment` and `segments_per_cartridge`.

    `breaks` are member numbers behind which an INDEX (a part) ends. The tapes have segments only.
    """

    def __init__(
        self,
        folder: Path,
        members: Sequence[Member],
        *,
        codec: str = "zstd",
        frame_bytes: int = 100_000,
        frames_per_segment: int = 3,
        segments_per_cartridge: int = 2,
    ) -> None:
        self.codec = codec
        self.members = members
        self.tapes: dict[str, MemoryTape] = {}
        self.segments: list[Segment] = []
        self.crcs = bytearray()
        tar, self.rows = self._tar(members)
        self.frame_rows: list[tuple[int, int, int, int, int]] = []
        encoder = frame_codec(codec, 1)
        pieces = [tar[at : at + frame_bytes] for at in range(0, len(tar), frame_bytes)]
        at = 0
        for number in range(-(-len(pieces) // frames_per_segment)):
            barcode = f"C{number // segments_per_cartridge}"
            chunk = pieces[number * frames_per_segment : (number + 1) * frames_per_segment]
            at = self._segment(
                number, barcode, [bytes(encoder.compress(memoryview(piece))) for piece in chunk], chunk, at
            )
        self.part = self._part(folder)

    def table(self) -> SetTable:
        return SetTable([self.part])

    def _tar(self, members: Sequence[Member]) -> tuple[bytes, list[dict[str, object]]]:
        tar, rows = bytearray(), []
        for entry, content, flags in members:
            begin = len(tar)
            tar += member_headers(entry)
            if content_bytes(entry):
                tar += content.ljust(padded(len(content)), b"\0")
            directory, _, name = entry.path.rpartition(b"/")
            display = display_path(entry.path)
            rows.append(
                {
                    "directory": display_path(directory),
                    "name": display_path(name),
                    "raw": entry.path if display.encode() != entry.path else None,
                    "type": entry.type.value,
                    "mode": entry.mode,
                    "uid": entry.uid,
                    "gid": entry.gid,
                    "owner": "",
                    "group": "",
                    "size": entry.size,
                    "mtime_ns": entry.mtime_ns,
                    "ctime_ns": entry.ctime_ns,
                    "device": entry.device,
                    "inode": entry.inode,
                    "links": entry.links,
                    "target": entry.target or None,
                    "tar_offset": begin,
                    "tar_bytes": 0 if flags & FileFlag.UNREADABLE else len(tar) - begin,
                    "sha256": hashlib.sha256(content).digest() if entry.type is FileType.REGULAR else None,
                    "flags": flags,
                }
            )
            if flags & FileFlag.UNREADABLE:
                del tar[begin:]
        return bytes(tar + TAR_END), rows

    def _segment(self, number: int, barcode: str, payloads: list[bytes], tar: list[bytes], at: int) -> int:
        tape = self.tapes.setdefault(barcode, MemoryTape([b"label", None]))
        drive = MemoryTapeDrive(tape)
        block = drive.seek_end_of_data().block
        writer = TapeFileWriter(drive, record_bytes=RECORD, block=block, tape_file=1)
        header = Header(
            Kind.SEGMENT, 1, block, f"uuid-{barcode}", barcode, RECORD, "", "", "", set="set", segment=number
        )
        writer.begin(header.encode()[0])
        begin = at
        for payload, piece in zip(payloads, tar, strict=True):
            self.frame_rows.append((number, at, len(piece), writer.payload_bytes, len(payload)))
            writer.write(payload)
            at += len(piece)
        digest = writer.end(synchronous=True)
        self.crcs += writer.checksums
        self.segments.append(
            Segment(
                "set",
                number,
                f"uuid-{barcode}",
                barcode,
                1,
                block,
                writer.records,
                RECORD,
                writer.payload_bytes,
                digest,
                begin,
                at - begin,
            )
        )
        return at

    def _part(self, folder: Path) -> Part:
        part = Part(1, folder / "files", folder / "frames", folder / "records", tuple(self.segments))
        pq.write_table(pa.Table.from_pylist(self.rows, schema=FILES), part.files)
        names = FRAMES.names
        frames = [dict(zip(names, row, strict=True)) for row in self.frame_rows]
        pq.write_table(pa.Table.from_pylist(frames, schema=FRAMES), part.frames)
        part.records.write_bytes(self.crcs)
        return part

    def restore(
        self,
        selector: Selector | None = None,
        target: MemoryTarget | None = None,
        *,
        gap_bytes: int = 1 << 20,
        digests: bool = False,
        selection: Selection | None = None,
        outcomes: Outcomes | None = None,
    ) -> RecoveryReport:
        """As the engine does it, with a thread for the drive; a cartridge that is not in `tapes` is missing."""
        report, stream = RecoveryReport(), FrameStream(self.codec)
        table = self.table()
        selection = selection or Selection(table, selector or make_selector())
        plan = selection.plan(gap_bytes=gap_bytes)
        archives = ArchiveSpool("tar", Path())
        reader = FrameReader(table, plan, stream, report, archives=archives, cancelled=Event(), digests=digests)

        def read() -> None:
            for visit in plan.visits:
                if visit.barcode in self.tapes:
                    reader.read(MemoryTapeDrive(self.tapes[visit.barcode]), visit)
                else:
                    report.missing.append(visit.barcode)
                    reader.lose(visit, f"cartridge {visit.barcode} is missing")
            stream.end()

        thread = Thread(target=read)
        thread.start()
        try:
            MemberAssembler(selection.rows(), target, report, links=selection.links, outcomes=outcomes).run(stream)
        finally:
            stream.close()
            thread.join()
        return report


class MemoryTarget:
    """Keeps files by their stored path. `refused`: paths that raise TargetError; `kept`: paths that are skipped."""

    def __init__(self, *, refused: frozenset[bytes] = frozenset(), kept: frozenset[bytes] = frozenset()) -> None:
        self.files: dict[bytes, bytes] = {}
        self.entries: dict[bytes, FileEntry] = {}
        self.open: set[bytes] = set()
        self._refused = refused
        self._kept = kept

    def _take(self, entry: FileEntry) -> Placement:
        if entry.path in self._refused:
            raise TargetError(path=display_path(entry.path), reason="refused")
        if entry.path in self._kept:
            return Placement.SKIPPED
        self.entries[entry.path] = entry
        return Placement.WRITTEN

    directory = symlink = special = _take

    def hardlink(self, entry: FileEntry, first: bytes) -> Placement:
        placement = self._take(entry)
        self.files[entry.path] = self.files[first]
        return placement

    def whole_file(self, entry: FileEntry, data: memoryview) -> Placement:
        placement = self._take(entry)
        if placement is Placement.WRITTEN:
            self.files[entry.path] = bytes(data)
        return placement

    def open_file(self, entry: FileEntry) -> FileSink | None:
        return None if self._take(entry) is Placement.SKIPPED else _MemorySink(self, entry.path)

    def finish(self, *, whole: bool = True) -> None:
        return None

    def close(self) -> None:
        self.open.clear()


class _MemorySink:
    def __init__(self, target: MemoryTarget, path: bytes) -> None:
        self._target = target
        self._path = path
        self._data = bytearray()
        target.open.add(path)

    def write(self, data: memoryview) -> None:
        self._data += data

    def hole(self, length: int) -> None:
        self._data += bytes(length)

    def commit(self) -> None:
        self._target.files[self._path] = bytes(self._data)
        self._target.open.discard(self._path)

    def abort(self) -> None:
        self._target.open.discard(self._path)
        self._target.entries.pop(self._path, None)
