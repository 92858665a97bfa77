"""Which bytes of a segment are whose content: at the edges of segments, and where it cannot be told."""

from __future__ import annotations

from capstan.core.files import FileEntry, FileFlag, FileType, Row
from capstan.format.contents import SegmentContents
from capstan.format.frames import OpenMember
from capstan.format.segment_archive import Content

HEADERS = 1536


def row(path: bytes, at: int, size: int, *, flags: int = 0, stored_bytes: int = -1) -> Row:
    entry = FileEntry(path, FileType.REGULAR, 0o600, 0, 0, size, 5, stored_bytes=stored_bytes)
    stored = size if stored_bytes < 0 else stored_bytes
    return Row(entry, at, HEADERS + -(-stored // 512) * 512, None, flags)


def content(path: bytes, offset: int, length: int, part: int = 0, *, sparse: bool = False) -> Content:
    return Content(offset, length, path, part, sparse, 5, 0o600)


def test_a_file_over_three_segments() -> None:
    """Its parts count from 1; the segment in the middle is nothing but the second."""
    large = row(b"large", 512, 20_000)
    first = SegmentContents(0)
    assert first.end(8192, OpenMember(large, HEADERS)) == 1
    assert first.found == [content(b"large", 2048, 6144, 1)]
    middle = SegmentContents(8192, 1)
    assert middle.end(16_384, OpenMember(large, HEADERS)) == 2
    assert middle.found == [content(b"large", 0, 8192, 2)]
    last = SegmentContents(16_384, 2)
    last.add([large, row(b"next", 512 + HEADERS + 20_480, 10)])
    assert last.end(40_960, None) == 0
    assert last.found == [content(b"large", 0, 5664, 3), content(b"next", 7680, 10)]


def test_a_segment_that_ends_with_the_headers() -> None:
    """All of the content is in the next one: it is whole there, and no part. Padding is none."""
    member = row(b"a", 0, 5000)
    first = SegmentContents(0)
    assert first.end(HEADERS, OpenMember(member, HEADERS)) == 0
    assert first.found == []
    second = SegmentContents(HEADERS, 0)
    second.add([member])
    assert second.found == [content(b"a", 0, 5000)]
    behind = SegmentContents(HEADERS + 5000, 0)
    behind.add([member])
    assert behind.found == []


def test_a_member_that_was_given_up() -> None:
    """It has its row, and the resume point still names it: its content is there once, and the next file has no part."""
    member = row(b"a", 0, 5000, flags=int(FileFlag.DAMAGED))
    contents = SegmentContents(0)
    contents.add([member])
    end = member.tar_bytes
    assert contents.end(end, OpenMember(member, HEADERS)) == 0
    assert contents.found == [content(b"a", HEADERS, 5000)]


def test_what_has_no_content_of_its_own() -> None:
    """An empty file has an empty one. A sparse file without its map, a member that could not be read and other types
    have none."""
    contents = SegmentContents(1024)
    sparse = int(FileFlag.SPARSE)
    contents.add(
        [
            row(b"empty", 1024, 0),
            row(b"sparse", 2560, 1 << 20, flags=sparse, stored_bytes=1024),
            row(b"lost", 5120, 4096)._replace(tar_bytes=0, flags=int(FileFlag.UNREADABLE)),
            row(b"unknown", 5120, 512, flags=sparse),
            Row(FileEntry(b"d", FileType.DIRECTORY, 0o755, 0, 0, 4096, 5), 7168, 512, None),
        ]
    )
    assert contents.found == [content(b"empty", 1536, 0), content(b"sparse", 3072, 1024, sparse=True)]
