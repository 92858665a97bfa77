"""What one restore handles: the selected rows of a set, with the data that their hard links need."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from capstan.core.files import FileFlag, FileType, Row
from capstan.format.tar import content_bytes
from capstan.recovery.plan import DEFAULT_GAP_BYTES, RestorePlan, plan_restore
from capstan.recovery.rows import SetTable
from capstan.recovery.select import Selector, make_selector


@dataclass(slots=True)
class LinkPlan:
    """Hard links of the selection. `firsts`: names that others are linked to; what became of them is remembered.

    `borrowed`: first names that were not selected, with the selected further names: the data comes under the first of
    these, and the others are linked to it.
    """

    firsts: set[bytes] = field(default_factory=set)
    borrowed: dict[bytes, list[bytes]] = field(default_factory=dict)

    def add(self, path: bytes, first: bytes, *, selected: bool) -> None:
        """Note that `path` is a further name of `first`."""
        if selected:
            self.firsts.add(first)
            return
        names = self.borrowed.setdefault(first, [])
        names.append(path)
        self.firsts.add(names[0])


class Selection:
    """Rows and extents of a selection, each call a new pass in the order of the stream.

    `files` and `content_bytes` count what was planned; they are known after `plan` of anything but the whole set.
    """

    def __init__(self, table: SetTable, selector: Selector) -> None:
        self._table = table
        self._selector = selector
        self.links = LinkPlan()
        self.files = 0
        self.content_bytes = 0
        for path, first in table.hard_links(selector):
            self.links.add(path, first, selected=selector.matches(first))

    def rows(self) -> Iterator[Row]:
        """By `tar_offset`. The row of a borrowed first name comes under the name it is restored by."""
        selected = self._table.rows(self._selector)
        if not self.links.borrowed:
            return selected
        return heapq.merge(selected, self._borrowed(), key=lambda row: row.tar_offset)

    def plan(self, *, gap_bytes: int = DEFAULT_GAP_BYTES) -> RestorePlan:
        """What must be read for it. For the whole set no row is looked at."""
        segments = self._table.segments.values()
        whole = [(0, max((segment.tar_offset + segment.tar_bytes for segment in segments), default=0))]
        extents = whole if self._selector.everything else self._extents()
        return plan_restore(extents, self._table.frames(), self._table.segments, gap_bytes=gap_bytes)

    def _borrowed(self) -> Iterator[Row]:
        borrowed = self.links.borrowed
        for row in self._table.rows(make_selector(tuple(borrowed))):
            if row.entry.path in borrowed:
                yield row._replace(entry=replace(row.entry, path=borrowed[row.entry.path][0]))

    def _extents(self) -> Iterator[tuple[int, int]]:
        self.files = self.content_bytes = 0
        for row in self.rows():
            self._selector.note(row.entry.path)
            if row.flags & FileFlag.CONTINUES:
                continue
            self.files += row.entry.type is not FileType.DIRECTORY
            self.content_bytes += content_bytes(row.entry)
            yield row.tar_offset, row.tar_offset + row.tar_bytes
