"""Which bytes of a segment are the content of which file, by the rows of the members in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from capstan.core.files import FileFlag, FileType, Row
from capstan.format.frames import OpenMember
from capstan.format.layout import TAR_BLOCK
from capstan.format.segment_archive import Content
from capstan.format.tar import content_bytes, padded


@dataclass(slots=True)
class SegmentContents:
    """Gathers the contents of a segment that begins at `tar_offset` in the stream.

    `parts`: in how many earlier segments of the set there is content of the member that is open at its beginning. A row
    whose content cannot be told from its headers (a sparse file without its map) has none here.
    """

    tar_offset: int
    parts: int = 0
    found: list[Content] = field(default_factory=list)
    _end: int = 0  # of the last content, in the segment

    def add(self, rows: Iterable[Row]) -> None:
        """Members that end in the segment, in order."""
        for row in rows:
            if row.entry.type is FileType.REGULAR and row.tar_bytes:
                self._add(row, row.tar_offset + row.tar_bytes)

    def end(self, tar_end: int, open_member: OpenMember | None) -> int:
        """The segment ends at `tar_end` in the stream; `open_member` is that of the resume point there.

        Returns how many parts of it there are by now: `parts` of the next segment.
        """
        if open_member is None or open_member.row.tar_offset + open_member.row.tar_bytes <= tar_end:
            return 0  # none, or one that has been given up, and has its row
        row = open_member.row
        before = self.parts if row.tar_offset < self.tar_offset else 0
        return before + self._add(row, tar_end)

    def _add(self, row: Row, tar_end: int) -> bool:
        entry = row.entry
        if row.flags & FileFlag.SPARSE and entry.stored_bytes < 0:
            return False
        length = content_bytes(entry)
        begin = row.tar_offset + row.tar_bytes - padded(length)
        low, high = max(begin, self.tar_offset), min(begin + length, tar_end)
        offset = low - self.tar_offset
        if begin < row.tar_offset + TAR_BLOCK or offset < self._end or high < low or (length and high == low):
            return False
        part = 0
        if high - low < length:
            part = 1 + (self.parts if row.tar_offset < self.tar_offset else 0)
        sparse = bool(row.flags & FileFlag.SPARSE)
        self.found.append(Content(offset, high - low, entry.path, part, sparse, entry.mtime_ns, entry.mode))
        self._end = offset + high - low
        return True
