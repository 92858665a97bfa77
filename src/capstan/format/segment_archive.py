"""A segment as an archive of its own: which members it has, and how they become its tar bytes again
(docs/design/tape-format.md, 8).

Every byte of the segment is in exactly one place: in the content of a file, or in the member `headers`. The member
`table` says where each content belongs. So whatever is taken for a content, the bytes come back as they were.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from capstan.format.member_names import MemberNames

FOLDER = ".capstan"
Data = bytes | bytearray | memoryview
_Extent = tuple[int, int]  # offset in the segment, and length, in bytes


class Content(NamedTuple):
    """One run of file content. `offset` counts from the segment's first tar byte; `path` is the stored path. `part`
    counts from 1 if the file began in an earlier segment or goes on in a later one, else it is 0. `sparse`: the
    content is map and data (3.6 there). `mode`: permission bits."""

    offset: int
    length: int
    path: bytes
    part: int = 0
    sparse: bool = False
    mtime_ns: int = 0
    mode: int = 0o644


class Member(NamedTuple):
    """One member of the archive, in its order. `source` reads its `length` bytes, is good until the next member is
    asked for, and can seek."""

    name: str
    length: int
    source: io.BufferedIOBase
    mtime_ns: int
    mode: int


@dataclass(slots=True)
class RawSegment:
    """The tar bytes of one segment in an open file, which belongs to the caller. `tar_offset`: of its first byte in
    the set's stream. `contents` ascend and do not overlap. `check` is called before each read, and may raise."""

    file: io.BufferedIOBase
    tar_offset: int
    tar_bytes: int
    contents: Sequence[Content] = field(default_factory=tuple)
    check: Callable[[], None] = lambda: None

    def members(self) -> Iterator[Member]:
        """The table, the headers, then each content. Raises ValueError for contents that are not as they must be."""
        names = MemberNames()
        stem = f"{FOLDER}/{self.tar_offset:016}"
        table_name, headers_name = names.reserve(f"{stem}.table"), names.reserve(f"{stem}.headers")
        gaps = _gaps([(content.offset, content.length) for content in self.contents], self.tar_bytes)
        named = [names.name(item.path, part=item.part, sparse=item.sparse) for item in self.contents]
        table = _encode_table(self, named)
        yield Member(table_name, len(table), io.BytesIO(table), 0, 0o644)
        yield self._member(headers_name, gaps, 0, 0o644)
        for name, item in zip(named, self.contents, strict=True):
            yield self._member(name, [(item.offset, item.length)], item.mtime_ns, item.mode)

    def _member(self, name: str, extents: Sequence[_Extent], mtime_ns: int, mode: int) -> Member:
        source = _Extents(self.file, extents, self.check)
        return Member(name, source.length, source, mtime_ns, mode)


class SegmentAssembler:
    """Takes the members of an archive in their order, and puts every byte where it belongs in the segment.

    `put` gets an offset in the segment and bytes. Everything that does not fit is a ValueError.
    """

    def __init__(self, tar_offset: int, tar_bytes: int, put: Callable[[int, Data], None]) -> None:
        """`tar_offset` and `tar_bytes` are those of the segment, as the set's manifest has them."""
        self._tar_offset = tar_offset
        self._tar_bytes = tar_bytes
        self._put = put
        self._table: bytearray | None = bytearray()
        self._coming: Iterator[tuple[str, Sequence[_Extent]]] = iter(())
        self._stem = f"{FOLDER}/{tar_offset:016}"
        self._begun = False
        self._extents: Iterator[_Extent] = iter(())
        self._at = self._room = 0

    def member(self, name: str) -> None:
        """The next member begins."""
        if not self._begun:
            self._begun = True
            if name != f"{self._stem}.table":
                raise ValueError("it is the archive of another segment, or of something else")
            return
        if self._table is not None:
            self._coming = self._read_table(bytes(self._table))
            self._table = None
        self._end_member()
        wanted, extents = next(self._coming, ("", ()))
        if name != wanted:
            raise ValueError(f"it has the member {name!r} in the place of {wanted!r}")
        self._extents = iter(extents)

    def write(self, data: Data) -> None:
        """The next bytes of the member."""
        if self._table is not None:
            self._table += data
            return
        view = memoryview(data)
        while view:
            if not self._room:
                self._at, self._room = next(self._extents, (0, 0))
                if not self._room:
                    raise ValueError("a member is longer than the table says")
            piece = view[: self._room]
            self._put(self._at, piece)
            self._at += len(piece)
            self._room -= len(piece)
            view = view[len(piece) :]

    def finish(self) -> None:
        """There are no more members."""
        if self._table is not None:
            raise ValueError("the archive lacks its members")
        self._end_member()
        if next(self._coming, None) is not None:
            raise ValueError("the archive lacks members that its table names")

    def _end_member(self) -> None:
        if self._room or any(length for _, length in self._extents):
            raise ValueError("a member is shorter than the table says")

    def _read_table(self, table: bytes) -> Iterator[tuple[str, Sequence[_Extent]]]:
        """The members behind the table, each with where its bytes go."""
        first, *lines = table.decode("utf-8").split("\n")
        if first != f"{self._tar_offset} {self._tar_bytes}" or not lines or lines.pop():
            raise ValueError("its table is that of another segment, or cut off")
        members: list[tuple[str, Sequence[_Extent]]] = []
        extents: list[_Extent] = []
        for line in lines:
            offset, length, name = line.split(" ", 2)
            if not (offset + length).isdecimal():
                raise ValueError("its table is malformed")
            extents.append((int(offset), int(length)))
            members.append((name, extents[-1:]))
        return iter([(f"{self._stem}.headers", _gaps(extents, self._tar_bytes)), *members])


def _encode_table(segment: RawSegment, names: Sequence[str]) -> bytes:
    lines = [f"{segment.tar_offset} {segment.tar_bytes}"]
    lines += [f"{item.offset} {item.length} {name}" for item, name in zip(segment.contents, names, strict=True)]
    return ("\n".join(lines) + "\n").encode()


def _gaps(extents: Sequence[_Extent], tar_bytes: int) -> list[_Extent]:
    """What lies before, between and behind `extents`. ValueError if they do not ascend, or overlap, or end too far."""
    gaps = []
    at = 0
    for offset, length in extents:
        if offset < at:
            raise ValueError("contents overlap")
        if offset > at:
            gaps.append((at, offset - at))
        at = offset + length
    if at > tar_bytes:
        raise ValueError("a content ends behind the segment")
    if at < tar_bytes:
        gaps.append((at, tar_bytes - at))
    return gaps


class _Extents(io.BufferedIOBase):
    """Some runs of a file, read as one."""

    def __init__(self, file: io.BufferedIOBase, extents: Sequence[_Extent], check: Callable[[], None]) -> None:
        self.length = sum(length for _, length in extents)
        self._file = file
        self._extents = extents
        self._check = check
        self._number = 0  # of the extent in hand
        self._done = 0  # bytes of it that were read
        self._position = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._check()
        wanted = self.length - self._position if size is None or size < 0 else size
        pieces = []
        while wanted > 0 and self._number < len(self._extents):
            offset, length = self._extents[self._number]
            count = min(wanted, length - self._done)
            self._file.seek(offset + self._done)
            piece = self._file.read(count)
            if len(piece) != count:
                raise OSError("the file of a segment is shorter than what was written to it")
            pieces.append(piece)
            self._position += count
            self._done += count
            wanted -= count
            if self._done == length:
                self._number, self._done = self._number + 1, 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """To anywhere from 0 to the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.length}[whence]
        self._position = rest = min(max(base + offset, 0), self.length)
        self._number = self._done = 0
        while self._number < len(self._extents) and rest >= self._extents[self._number][1]:
            rest -= self._extents[self._number][1]
            self._number += 1
        self._done = rest
        return self._position
