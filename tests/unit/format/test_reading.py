"""Reading a tape: its tape files, its INDEXes, its records, and what damage does to them."""

from __future__ import annotations

import json
from array import array
from datetime import UTC, datetime
from pathlib import Path

import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from capstan.core.backup import BackupSet, Segment, SetState, SetType
from capstan.errors import Damaged, StorageFailed
from capstan.format.codecs import frame_codec
from capstan.format.header import Header, Kind
from capstan.format.index_payload import build_index_payload
from capstan.format.index_reader import read_index
from capstan.format.label import Label, write_label
from capstan.format.layout import CODECS
from capstan.format.manifest import Manifest, encode_manifest
from capstan.format.reader import Record, SegmentReader, read_crcs
from capstan.format.records import TapeFileWriter
from capstan.format.scan import extract_tape, find_indexes, scan_tape
from capstan.testing.memory_drive import MemoryTape, MemoryTapeDrive

CARTRIDGE, BARCODE, SET, RECORD = "5f0c0e2e-0000-4000-8000-000000000001", "CAP001L9", "set-1", 65_536
NOW = datetime(2025, 1, 1, tzinfo=UTC)


class Tape:
    """A labelled tape that grows by whole tape files, with payloads that mean nothing."""

    def __init__(self, spool: Path, codec: str = "zstd") -> None:
        self.tape = MemoryTape()
        self.drive = MemoryTapeDrive(self.tape)
        self.spool = spool
        self.codec = codec
        end = write_label(self.drive, Label(CARTRIDGE, BARCODE, "default", NOW, record_bytes=RECORD))
        self.writer = TapeFileWriter(self.drive, record_bytes=RECORD, block=end.end_block, tape_file=1)
        self.index_blocks: list[int] = []
        self.previous = (-1, "")
        self.segments: list[Segment] = []
        self.crcs = bytearray()

    def header(self, kind: Kind, **fields: object) -> Header:
        return Header(
            kind,
            self.writer.tape_file,
            self.writer.block,
            CARTRIDGE,
            BARCODE,
            RECORD,
            "",
            "",
            "",
            previous_index_block=self.previous[0],
            previous_index_sha256=self.previous[1],
            set=SET,
            codec=self.codec,
            **fields,  # type: ignore[arg-type]
        )

    def segment(self, payload: bytes) -> Segment:
        block, tape_file, number = self.writer.block, self.writer.tape_file, len(self.segments)
        self.writer.begin(self.header(Kind.SEGMENT, segment=number, stream=0, tar_offset=0).encode()[0])
        self.writer.write(payload)
        digest = self.writer.end(synchronous=False)
        self.crcs += self.writer.checksums
        segment = Segment(
            SET, number, CARTRIDGE, BARCODE, tape_file, block, self.writer.records, RECORD, len(payload), digest, 0, 0
        )
        self.segments.append(segment)
        return segment

    def index(self, *, filemark: bool = True, extra: bytes = b"rows") -> int:
        sequence, block = len(self.index_blocks) + 1, self.writer.block
        facts = BackupSet(SET, 1, "docs", SetType.FULL, SetState.WRITING, NOW, codec=self.codec)
        manifest = Manifest(
            facts, sequence, False, CARTRIDGE, BARCODE, self.writer.tape_file, block, NOW, 0, tuple(self.segments)
        )
        members: list[tuple[str, bytes | Path]] = [
            ("manifest.json", encode_manifest(manifest)),
            ("files.parquet", extra),
            ("frames.parquet", b"frames"),
            ("records.crc32c", bytes(self.crcs)),
            ("unknown-of-a-later-version", b"?"),
        ]
        payload = build_index_payload(self.spool / "index", members, frame_codec(self.codec), mtime=0)
        header, digest = self.header(
            Kind.INDEX, sequence=sequence, final=False, payload_bytes=payload.size, payload_sha256=payload.sha256
        ).encode()
        self.writer.begin(header)
        self.writer.write(payload.path.read_bytes())
        self.writer.end(synchronous=True)
        if not filemark:
            self.tape.blocks.pop()
            return block
        self.previous = (block, digest)
        self.index_blocks.append(block)
        self.segments, self.crcs = [], bytearray()
        return block

    def read(self, segment: Segment, crcs: array[int], first: int = 0, last: int | None = None) -> list[Record]:
        reader = SegmentReader(self.drive, barcode=BARCODE)
        return list(reader.read(segment, first, segment.records - 1 if last is None else last, crcs))


def crcs_of(tape: Tape) -> array[int]:
    (tape.spool / "crcs").write_bytes(tape.crcs)
    return read_crcs(tape.spool / "crcs")


def payload_of(size: int) -> bytes:
    return bytes((i * i + i // 251) & 0xFF for i in range(min(size, 100_000))).ljust(size, b"x")


def test_every_tape_file_is_listed_with_every_record(tmp_path: Path) -> None:
    """A scan names each tape file, its records and sizes, and says that a torn one has no filemark."""
    tape = Tape(tmp_path)
    tape.segment(payload_of(RECORD + 10))
    tape.index()
    tape.segment(payload_of(10))
    tape.tape.blocks.pop()  # the filemark: torn
    found = list(scan_tape(tape.drive, BARCODE))
    kinds = [file.header.kind for file in found if file.header]
    assert kinds == [Kind.LABEL, Kind.SEGMENT, Kind.INDEX, Kind.SEGMENT]
    assert found[1].sizes == [4096, RECORD, 10]
    assert [file.filemark for file in found] == [True, True, True, False]
    brief = list(scan_tape(tape.drive, BARCODE, headers_only=True))
    assert [(f.number, f.block, f.records, f.filemark) for f in brief] == [
        (f.number, f.block, f.records, f.filemark) for f in found
    ]


def test_a_scan_goes_on_behind_damage(tmp_path: Path) -> None:
    """Unreadable records and header records are named, and everything behind them is still listed."""
    tape = Tape(tmp_path)
    first = tape.segment(payload_of(3 * RECORD))
    tape.index()
    tape.tape.unreadable = {first.block, first.block + 2}
    found = list(scan_tape(tape.drive, BARCODE))
    assert found[1].header is None and found[1].damaged == [first.block, first.block + 2]
    assert found[2].header is not None and found[2].header.kind is Kind.INDEX


def test_extracted_tape_files_are_what_dd_reads(tmp_path: Path) -> None:
    """Each file is its tape file's records, one behind the other; an unreadable record keeps its place as zeros."""
    tape = Tape(tmp_path)
    payload = payload_of(2 * RECORD + 5)
    segment = tape.segment(payload)
    tape.index()
    out = tmp_path / "out"
    out.mkdir()
    assert [path.name for _, path in extract_tape(tape.drive, BARCODE, out)] == [
        "0000.label",
        "0001.segment",
        "0002.index",
    ]
    assert (out / "0001.segment").read_bytes()[4096:] == payload
    tape.tape.unreadable = {segment.block + 1}
    files = [file for file, _ in extract_tape(tape.drive, BARCODE, out)]
    assert files[1].damaged == [segment.block + 1]
    assert (out / "0001.segment").read_bytes()[4096:] == bytes(RECORD) + payload[RECORD:]


@pytest.mark.parametrize("reverse", [True, False])
def test_indexes_are_found_without_reading_segments(tmp_path: Path, reverse: bool) -> None:
    """All INDEXes, oldest first, whatever torn tape files lie behind; each costs one record, no payload is read."""
    tape = Tape(tmp_path)
    for _ in range(3):
        tape.segment(payload_of(20 * RECORD))
        tape.index()
    tape.segment(payload_of(20 * RECORD))
    tape.index(filemark=False)
    drive = MemoryTapeDrive(tape.tape, reverse=reverse)
    assert [place.block for place in find_indexes(drive, BARCODE, CARTRIDGE).places] == tape.index_blocks
    assert drive.calls["read"] <= 10
    assert find_indexes(drive, BARCODE, "another cartridge").places == []


def test_a_damaged_index_does_not_hide_older_ones(tmp_path: Path) -> None:
    """Where the chain of INDEXes is broken, those before the break are still found."""
    tape = Tape(tmp_path)
    for _ in range(3):
        tape.segment(payload_of(10))
        tape.index()
    for broken in range(3):
        tape.tape.unreadable = {tape.index_blocks[broken]}
        expected = [block for i, block in enumerate(tape.index_blocks) if i != broken]
        assert [place.block for place in find_indexes(tape.drive, BARCODE, CARTRIDGE).places] == expected


@pytest.mark.parametrize("codec", CODECS)
def test_an_index_comes_back_as_it_was_written(tmp_path: Path, codec: str) -> None:
    """Every member of an INDEX is read back, for every codec; members of later versions are passed over."""
    tape = Tape(tmp_path, codec)
    segment = tape.segment(payload_of(2 * RECORD))
    rows = payload_of(9 << 20)  # more than one frame of the index
    block = tape.index(extra=rows)
    index = read_index(tape.drive, block, barcode=BARCODE, spool=tmp_path / "spool")
    assert index.files.read_bytes() == rows
    assert index.manifest.segments == (segment,)
    assert index.end_block == len(tape.tape.blocks)
    assert index.commit().header_sha256 == index.header_sha256
    assert len(read_crcs(index.records)) == segment.records
    assert index.deleted is None
    assert not (tmp_path / "spool" / "payload").exists()


@pytest.mark.parametrize("member", ["payload", "manifest.json", "files.parquet"])
def test_a_full_spool_is_not_damage(tmp_path: Path, member: str) -> None:
    """What the disk under the spool cannot take is StorageFailed: a tape is not called damaged for it."""
    tape = Tape(tmp_path, "none")
    tape.segment(payload_of(10))
    block = tape.index(extra=payload_of(3 * RECORD))
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / member).symlink_to("/dev/full")
    with pytest.raises(StorageFailed, match="No space left"):
        read_index(tape.drive, block, barcode=BARCODE, spool=tmp_path / "spool")


def test_any_damage_in_an_index_is_found(tmp_path: Path) -> None:
    """A flipped bit in any record of an INDEX, a lost record or a lost filemark raises Damaged, never anything else."""
    tape = Tape(tmp_path, "none")
    tape.segment(payload_of(10))
    block = tape.index(extra=payload_of(3 * RECORD))
    whole = list(tape.tape.blocks)

    def read() -> None:
        read_index(tape.drive, block, barcode=BARCODE, spool=tmp_path / "spool")

    for at in range(block, len(whole)):
        tape.tape.blocks = list(whole)
        record = whole[at]
        if record is not None:
            flipped = bytearray(record)
            flipped[len(record) // 3] ^= 1
            tape.tape.blocks[at] = bytes(flipped)
            with pytest.raises(Damaged):
                read()
        tape.tape.blocks = whole[:at] + whole[at + 1 :]
        with pytest.raises(Damaged):
            read()
    tape.tape.blocks = list(whole)
    read()


def test_one_range_costs_one_locate(tmp_path: Path) -> None:
    """Neighbouring ranges are read without a second LOCATE, and the counters say what was read."""
    tape = Tape(tmp_path)
    segment = tape.segment(payload_of(10 * RECORD))
    reader = SegmentReader(tape.drive, barcode=BARCODE)
    crcs = crcs_of(tape)
    got = [*reader.read(segment, 3, 4, crcs), *reader.read(segment, 5, 6, crcs)]
    assert [record.number for record in got] == [3, 4, 5, 6] and not any(record.trouble for record in got)
    assert (reader.locates, reader.bytes_read) == (1, 4 * RECORD)
    assert reader.locates == tape.drive.calls["locate"]


def test_neighbouring_segments_are_read_without_a_stop(tmp_path: Path) -> None:
    """From one segment to the next only a filemark is passed, and that costs no LOCATE."""
    tape = Tape(tmp_path)
    one, two = tape.segment(payload_of(2 * RECORD)), tape.segment(payload_of(RECORD + 1))
    reader = SegmentReader(tape.drive, barcode=BARCODE)
    crcs = crcs_of(tape)
    got = [*reader.read(one, 0, 1, crcs), *reader.read(two, 0, 1, crcs[2:])]
    assert [record.trouble for record in got] == [""] * 4
    assert reader.locates == 1


def test_a_lost_position_is_found_again(tmp_path: Path) -> None:
    """After a unit attention in the middle the reader locates and goes on; the data is what was written."""
    tape = Tape(tmp_path)
    payload = payload_of(5 * RECORD)
    segment = tape.segment(payload)
    reader = SegmentReader(tape.drive, barcode=BARCODE)
    out = b""
    for record in reader.read(segment, 0, 4, crcs_of(tape)):
        assert not record.trouble
        out += record.data
        tape.drive.lose_position()
    assert out == payload


def test_a_wrong_header_record_is_named(tmp_path: Path) -> None:
    """A segment whose header record is another's, or is unreadable, is reported as record -1; the payload follows."""
    tape = Tape(tmp_path)
    segment = tape.segment(payload_of(RECORD))
    other = tape.header(Kind.SEGMENT, segment=7)
    crcs = crcs_of(tape)
    tape.tape.blocks[segment.block] = json.dumps({"not": "a header"}).encode()
    got = tape.read(segment, crcs)
    assert [(record.number, bool(record.trouble)) for record in got] == [(-1, True), (0, False)]
    tape.tape.blocks[segment.block] = other.encode()[0]
    assert [record.number for record in tape.read(segment, crcs)] == [-1, 0]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_is_found_where_it_is_and_nowhere_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever is done to some records (a flipped bit, another length, unreadable, a filemark in their place), exactly
    these are in trouble, and every other record is read as it was written."""
    tape = Tape(tmp_path_factory.mktemp("tape"))
    payload = payload_of(data.draw(st.integers(1, 6 * RECORD)))
    segment = tape.segment(payload)
    tape.index()
    tape.crcs = bytearray(b"".join(_crc(tape, segment, i) for i in range(segment.records)))
    crcs = crcs_of(tape)
    hurt = data.draw(st.sets(st.integers(0, segment.records - 1)))
    for index in hurt:
        at = segment.block + 1 + index
        record = tape.tape.blocks[at]
        assert record is not None
        match data.draw(st.sampled_from(["flip", "longer", "shorter", "unreadable", "filemark"])):
            case "flip":
                place = data.draw(st.integers(0, len(record) - 1))
                tape.tape.blocks[at] = record[:place] + bytes([record[place] ^ 0x10]) + record[place + 1 :]
            case "longer":
                tape.tape.blocks[at] = record + b"x"
            case "shorter":
                tape.tape.blocks[at] = record[:-1]
            case "unreadable":
                tape.tape.unreadable.add(at)
            case "filemark":
                tape.tape.blocks[at] = None
    got = tape.read(segment, crcs)
    assert {record.number for record in got if record.trouble} == hurt
    for record in got:
        if not record.trouble:
            assert bytes(record.data) == payload[record.number * RECORD : (record.number + 1) * RECORD]


def _crc(tape: Tape, segment: Segment, index: int) -> bytes:
    return crc32c(tape.tape.blocks[segment.block + 1 + index] or b"").to_bytes(4, "little")


def test_a_tape_that_ends_early_loses_only_its_end(tmp_path: Path) -> None:
    """Records behind the end of data are all in trouble, those before it are not, and nothing is raised."""
    tape = Tape(tmp_path)
    segment = tape.segment(payload_of(6 * RECORD))
    crcs = crcs_of(tape)
    del tape.tape.blocks[segment.block + 1 + 4 :]
    got = tape.read(segment, crcs)
    assert [bool(record.trouble) for record in got] == [False] * 4 + [True] * 2
    assert [bool(record.trouble) for record in tape.read(segment, crcs, 5, 5)] == [True]
