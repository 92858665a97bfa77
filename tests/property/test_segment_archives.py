"""Any segment of any stream becomes an archive and comes back, byte for byte; names are for everyone's system."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from py7zr import SevenZipFile

from capstan.backup.filesystem import FilesystemSource
from capstan.format.contents import SegmentContents
from capstan.format.frames import Frame
from capstan.format.layout import ArchiveParameters
from capstan.format.member_names import MemberNames, escape
from capstan.format.segment_archive import Content, RawSegment, SegmentAssembler
from capstan.format.seven_zip import SevenZip
from capstan.testing.pipeline_run import check_rows, rows_of, run_pipeline, tar_of

FRAME = 64 << 10
CONTAINER = SevenZip()
METHODS = st.sampled_from([("copy", 0), ("deflate", 1), ("deflate", 9), ("lzma2", 0)])
NAMES = st.sampled_from(
    [
        b"a",
        b"A",
        b"b.txt",
        b"\xff\xfe",
        b"x" * 255,
        b"\xfe" * 200,
        "ü".encode(),
        b"z z ",
        b"con",
        b"a%41",
        b"~2",
        b"c:\\d",
    ]
)
SIZES = st.one_of(
    st.integers(0, 3000), st.sampled_from([0, 512, FRAME - 1024, FRAME, 2 * FRAME]), st.integers(0, 5 * FRAME)
)
KINDS = st.one_of(SIZES, SIZES, st.sampled_from(["directory", "symlink", "hardlink", "fifo", "sparse"]))
TREES = st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3), KINDS), max_size=20)
FRAMES = st.sampled_from([FRAME, FRAME + 100, 3 * FRAME])
settings.register_profile("archives", deadline=None, suppress_health_check=list(HealthCheck))


def grow(root: bytes, tree: list[tuple[list[bytes], object]]) -> None:
    """Make the tree; what cannot be where something else is already is left out."""
    first = b""
    for seed, (parts, kind) in enumerate(tree):
        path = os.path.join(root, *parts)
        try:
            os.makedirs(path if kind == "directory" else os.path.dirname(path), exist_ok=True)
            if kind == "symlink":
                os.symlink(b"somewhere/else", path)
            elif kind == "fifo":
                os.mkfifo(path)
            elif kind == "hardlink" and first:
                os.link(first, path)
            elif kind == "sparse":
                with open(path, "xb") as file:
                    file.write(b"head")
                    file.seek(3 * FRAME)
                    file.write(b"tail" * 9000)
            elif isinstance(kind, int):
                with open(path, "xb") as file:
                    file.write((b"%d of the tree; " % seed * (kind // 8 + 1))[:kind])
                first = first or path
        except OSError:
            continue


@pytest.fixture(scope="module")
def base() -> Iterator[bytes]:
    folder = tempfile.mkdtemp()
    yield os.fsencode(folder)
    shutil.rmtree(folder)


def cut(frames: list[Frame], cuts: list[bool]) -> Iterator[list[Frame]]:
    """The frames as segments: behind each frame whose `cuts` say so a new one begins."""
    segment: list[Frame] = []
    for number, frame in enumerate(frames):
        segment.append(frame)
        if frame.last or cuts[number % len(cuts)]:
            yield segment
            segment = []


def raw_of(segment: list[Frame], parts: int) -> tuple[RawSegment, bytes, int]:
    """The segment, its bytes, and the parts of the next one."""
    gathered = SegmentContents(segment[0].tar_offset, parts)
    for frame in segment:
        gathered.add(frame.rows)
    tar = b"".join(bytes(frame.payload) for frame in segment)
    begin, end = segment[0].tar_offset, segment[-1].resume.tar_offset
    parts = gathered.end(end, segment[-1].resume.open_member)
    return RawSegment(io.BytesIO(tar), begin, end - begin, gathered.found), tar, parts


def packed(segment: RawSegment, path: Path, method: tuple[str, int]) -> None:
    with path.open("w+b") as file:
        CONTAINER.pack(segment, file, method=method[0], level=method[1], workers=2)


def unpacked(path: Path, tar_offset: int, tar_bytes: int) -> bytes:
    """The tar bytes in an archive; AssertionError if a byte comes twice or not at all."""
    out, seen = bytearray(tar_bytes), bytearray(tar_bytes)

    def put(offset: int, data: bytes | bytearray | memoryview) -> None:
        assert not any(seen[offset : offset + len(data)])
        seen[offset : offset + len(data)] = b"\1" * len(data)
        out[offset : offset + len(data)] = data

    with path.open("rb") as file:
        CONTAINER.unpack(file, SegmentAssembler(tar_offset, tar_bytes, put))
    assert all(seen)
    return bytes(out)


@settings(settings.get_profile("archives"), max_examples=max(40, settings.default.max_examples // 5))
@given(
    TREES, st.sampled_from([FRAME, FRAME + 100, 3 * FRAME]), st.lists(st.booleans(), min_size=1, max_size=7), METHODS
)
def test_every_segment_comes_back(base, tree, frame_bytes, cuts, method) -> None:
    """For any tree, frame size and cut between frames: each segment's archive gives its tar bytes, each exactly once;
    py7zr finds it sound; and the contents of whole files and of parts in order are those of the files."""
    root = tempfile.mkdtemp(dir=base)
    grow(root, tree)
    run = run_pipeline(FilesystemSource([root]), ArchiveParameters(codec="none", frame_bytes=frame_bytes))
    tar, parts, found = b"", 0, {}
    for number, frames in enumerate(cut(run.frames, cuts)):
        segment, raw, parts = raw_of(frames, parts)
        path = Path(os.fsdecode(root + b".%d.7z" % number))
        packed(segment, path, method)
        assert unpacked(path, segment.tar_offset, segment.tar_bytes) == raw
        with SevenZipFile(path) as archive:
            assert archive.testzip() is None
            assert archive.getnames() == [member.name for member in segment.members()]
        for content in segment.contents:
            data = raw[content.offset : content.offset + content.length]
            before = found.get(content.path, (0, b""))
            assert content.part == (before[0] + 1 if content.part else 0)
            found[content.path] = (content.part, before[1] + data if content.part else data)
        tar += raw
    assert tar == tar_of(run.frames, "none")
    members = check_rows(tar, rows_of(run.frames))
    regular = {path: content for path, (entry, content) in members.items() if entry.type.value == "file"}
    assert {path: data for path, (_, data) in found.items()} == regular


@pytest.mark.requires("7zz")
@settings(settings.get_profile("archives"), max_examples=max(10, settings.default.max_examples // 50))
@given(TREES, METHODS)
def test_stock_7z_unpacks_the_files(base, tree, method) -> None:
    """The stock program finds the archive sound, and its files are those of the tree, with their contents."""
    root = tempfile.mkdtemp(dir=base)
    grow(root, tree)
    run = run_pipeline(FilesystemSource([root]), ArchiveParameters(codec="none", frame_bytes=FRAME))
    segment, raw, _ = raw_of(run.frames, 0)
    path, out = Path(os.fsdecode(root + b".7z")), Path(os.fsdecode(root + b".out"))
    packed(segment, path, method)
    done = subprocess.run(["7zz", "x", f"-o{out}", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for member, content in zip(list(segment.members())[2:], segment.contents, strict=True):
        file = out / member.name
        assert file.read_bytes() == raw[content.offset : content.offset + content.length]
        assert file.stat().st_mode & 0o777 == content.mode & 0o777
        assert file.stat().st_mtime_ns // 100 == content.mtime_ns // 100


COMPONENTS = st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name and b"\0" not in name)
PATHS = st.lists(st.one_of(NAMES, COMPONENTS, COMPONENTS), min_size=1, max_size=12).map(b"/".join)
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")


@given(st.lists(st.tuples(PATHS, st.integers(0, 2000), st.booleans()), max_size=30))
def test_names_are_for_every_system(paths) -> None:
    """Whatever bytes a path has: no name is given twice, not even in another case, none is also a folder, and each
    component can be on Windows: no forbidden character, no device, no dot or blank at its end, not too long."""
    names = MemberNames()
    given_names = [names.name(path, part=part, sparse=sparse) for path, part, sparse in paths]
    folded = [name.casefold() for name in given_names]
    folders = {name[:at] for name in folded for at in range(len(name)) if name[at] == "/"}
    assert len(set(folded)) == len(folded)
    assert not folders & set(folded)
    for name in given_names:
        assert len(name.encode()) < 4000
        for component in name.split("/"):
            assert 0 < len(component.encode()) < 255
            assert not re.search(r'[\x00-\x1f<>:"\\|?*]', component)
            assert not RESERVED.fullmatch(component)
            assert component[-1] not in " ."


@given(COMPONENTS, COMPONENTS)
def test_other_names_are_escaped_otherwise(one, other) -> None:
    """Two components are the same name only if they are the same bytes."""
    assert (escape(one) == escape(other)) == (one == other)


@given(st.binary(max_size=300), st.lists(st.integers(0, 100), max_size=8), st.integers(0, 10**12))
def test_contents_anywhere(data, places, tar_offset) -> None:
    """Whatever runs of bytes are taken for contents, even empty ones, all come back; what overlaps is refused."""
    bounds = sorted(min(place, len(data)) for place in places)
    contents = [
        Content(begin, end - begin, b"f%d" % number)
        for number, (begin, end) in enumerate(zip(bounds[::2], bounds[1::2], strict=False))
    ]
    segment = RawSegment(io.BytesIO(data), tar_offset, len(data), contents)
    out = bytearray(len(data))

    def put(offset: int, piece: bytes | bytearray | memoryview) -> None:
        out[offset : offset + len(piece)] = piece

    assembler = SegmentAssembler(tar_offset, len(data), put)
    for member in segment.members():
        assembler.member(member.name)
        while piece := member.source.read(7):
            assembler.write(piece)
    assembler.finish()
    assert out == data
    for beyond in (Content(0, len(data) + 1, b"f"), Content(len(data) + 1, 0, b"f")):
        with pytest.raises(ValueError, match="behind"):
            list(RawSegment(io.BytesIO(data), tar_offset, len(data), [beyond]).members())
    if contents and contents[-1].length:
        again = RawSegment(io.BytesIO(data), tar_offset, len(data), [*contents, contents[-1]])
        with pytest.raises(ValueError, match="overlap"):
            list(again.members())
