"""The 7z container: what is wrong with an archive is always said, and what stops the making of one goes on up."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from py7zr import FILTER_COPY, SevenZipFile

from capstan.errors import InvalidValue
from capstan.format.containers import Packing, find_container, parse_packing
from capstan.format.segment_archive import Content, RawSegment, SegmentAssembler
from capstan.format.seven_zip import SevenZip

DATA = b"head" * 300 + random.Random(1).randbytes(3000) + bytes(2000)
CONTENTS = [Content(100, 50, b"dir/one"), Content(1200, 3000, b"dir/two", mtime_ns=10**18, mode=0o4755)]
METHODS = [("copy", 0), ("deflate", 6), ("lzma2", 0)]


def segment(**changes: object) -> RawSegment:
    return RawSegment(io.BytesIO(DATA), 4096, len(DATA), CONTENTS, **changes)  # type: ignore[arg-type]


def packed(folder: Path, method: str, level: int) -> Path:
    with (folder / "a.7z").open("w+b") as file:
        SevenZip().pack(segment(), file, method=method, level=level, workers=1)
    return folder / "a.7z"


def unpacked(path: Path, tar_offset: int = 4096, tar_bytes: int = len(DATA)) -> bytes:
    out = bytearray(tar_bytes)

    def put(offset: int, piece: bytes | bytearray | memoryview) -> None:
        out[offset : offset + len(piece)] = piece

    with path.open("rb") as file:
        SevenZip().unpack(file, SegmentAssembler(tar_offset, tar_bytes, put))
    return bytes(out)


@pytest.mark.parametrize(("method", "level"), METHODS)
def test_damage_anywhere_in_an_archive(tmp_path: Path, method: str, level: int) -> None:
    """Whichever byte is changed, and wherever the file is cut off: a ValueError, or the right bytes all the same."""
    path = packed(tmp_path, method, level)
    clean = path.read_bytes()
    assert unpacked(path) == DATA
    for at in [*range(200), *range(200, len(clean) - 300, 31), *range(len(clean) - 300, len(clean))]:
        path.write_bytes(clean[:at] + bytes([clean[at] ^ 0x41]) + clean[at + 1 :])
        try:
            assert unpacked(path) == DATA, f"byte {at} was changed, and nobody said so"
        except ValueError:
            pass
        path.write_bytes(clean[:at])
        with pytest.raises(ValueError):
            unpacked(path)


@pytest.mark.parametrize(("tar_offset", "more"), [(0, 0), (4096, -512), (4096, 512)])
def test_the_archive_of_another_segment(tmp_path: Path, tar_offset: int, more: int) -> None:
    """An archive that is whole, but not of the segment that is wanted, is refused."""
    with pytest.raises(ValueError, match="another segment"):
        unpacked(packed(tmp_path, "copy", 0), tar_offset, len(DATA) + more)


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    """Members that are not in the table, in another order or of other lengths are refused."""
    members = [(member.name, member.source.read()) for member in segment().members()]
    for changed in (
        [],
        members[:1],
        members[:-1],
        [*members, ("more", b"")],
        [members[0], members[1], members[3], members[2]],
        [*members[:3], (members[3][0], members[3][1][:-1])],
        [*members[:3], (members[3][0], members[3][1] + b"!")],
        [(members[0][0], members[0][1][:-1]), *members[1:]],
        [(members[0][0], members[0][1].replace(b"1200 ", b"x ")), *members[1:]],
        [(members[0][0], members[0][1].replace(b"1200 ", b"120 ")), *members[1:]],
        [(members[0][0], members[0][1].replace(b" 3000 ", b" 30000 ")), *members[1:]],
    ):
        with SevenZipFile(tmp_path / "b.7z", "w", filters=[{"id": FILTER_COPY}]) as archive:
            for name, data in changed:
                archive.writestr(data, name)
        with pytest.raises(ValueError):
            unpacked(tmp_path / "b.7z")
        (tmp_path / "b.7z").unlink()
    with SevenZipFile(tmp_path / "b.7z", "w", filters=[{"id": FILTER_COPY}]) as archive:
        for name, data in members:
            archive.writestr(data, name)
    assert unpacked(tmp_path / "b.7z") == DATA


def test_what_py7zr_writes_in_several_folders_or_otherwise_packed(tmp_path: Path) -> None:
    """An archive that no segment looks like is refused, whatever else could read it."""
    with SevenZipFile(tmp_path / "b.7z", "w") as archive:  # a filter for programs, and LZMA2
        for member in segment().members():
            archive.writestr(member.source.read(), member.name)
    with pytest.raises(ValueError):
        unpacked(tmp_path / "b.7z")


@pytest.mark.parametrize(("method", "level"), METHODS)
def test_stopping_in_the_middle(tmp_path: Path, method: str, level: int) -> None:
    """What the segment's `check` raises comes out of `pack`, and no thread is left."""

    class Stop(Exception):
        pass

    reads = iter(range(3))

    def check() -> None:
        if next(reads, None) is None:
            raise Stop

    with (tmp_path / "a.7z").open("w+b") as file, pytest.raises(Stop):
        SevenZip().pack(segment(check=check), file, method=method, level=level, workers=2)


def test_the_codecs_of_containers() -> None:
    """`--codec` is read for the container; each has a default; what another container has is refused with its names."""
    assert parse_packing("7z", None, stream_codec="gzip:9") == Packing("7z", "lzma2", 0)
    assert parse_packing("7z", "deflate:9", stream_codec="zstd") == Packing("7z", "deflate", 9)
    assert parse_packing("7z", "copy", stream_codec="zstd") == Packing("7z", "copy", 0)
    assert parse_packing("tar", None, stream_codec="gzip:9") == Packing("tar", "gzip", 9)
    assert parse_packing("tar", "lz4", stream_codec="gzip:9") == Packing("tar", "lz4", 0)
    for container, codec in (("7z", "zstd:3"), ("7z", "deflate:0"), ("7z", "copy:1"), ("tar", "lzma2"), ("zip", None)):
        with pytest.raises(InvalidValue):
            parse_packing(container, codec, stream_codec="zstd")
    with pytest.raises(InvalidValue, match="tar, 7z"):
        find_container("rar")
