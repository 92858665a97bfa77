"""What one restore handles: the selected rows of a set, or of a chain of sets, with the data that their hard links
need."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from capstan.core.files import FileEntry, FileFlag, FileType, Row
from capstan.core.ordinals import OrdinalSet
from capstan.fileindex.chain import ChainSet, state_rows
from capstan.format.tar import content_bytes
from capstan.recovery.plan import DEFAULT_GAP_BYTES, RestorePlan, plan_restore
from capstan.recovery.rows import SetTable, prefilter
from capstan.recovery.select import Selector, make_selector

Names = dict[bytes, list[bytes]]


@dataclass(slots=True)
class LinkPlan:
    """Hard links of the selection. `firsts`: names that others are linked to; what became of them is remembered.

    `borrowed`: first names whose data is not restored under their own name, with the selected further names: the data
    comes under the first of these, and the others are linked to it.
    """

    firsts: set[bytes] = field(default_factory=set)
    borrowed: Names = field(default_factory=dict)

    def borrow(self, path: bytes, first: bytes, names: list[bytes] | None = None) -> list[bytes]:
        """Note that `path` is a further name of `first`, which is not restored itself; returns all such names."""
        names = self.borrowed.setdefault(first, [] if names is None else names)
        names.append(path)
        self.firsts.add(names[0])
        return names


class Selection:
    """Rows and extents of what is selected in one set, each call a new pass in the order of the stream.

    `files` and `content_bytes` count what was planned; they are known after `plan` of anything but the whole set.
    `chosen`, `links` and `lent` come from `select_chain`: which rows count, and which first names lend their data.
    """

    def __init__(
        self,
        table: SetTable,
        selector: Selector,
        *,
        chosen: OrdinalSet | None = None,
        links: LinkPlan | None = None,
        lent: Names | None = None,
    ) -> None:
        self._table = table
        self._selector = selector
        self._chosen = chosen
        self.links = links or LinkPlan()
        self.files = 0
        self.content_bytes = 0
        if links is None:
            for path, first in table.hard_links(selector):
                if selector.matches(first):
                    self.links.firsts.add(first)
                else:
                    self.links.borrow(path, first)
        self._lent = self.links.borrowed if lent is None else lent

    def rows(self) -> Iterator[Row]:
        """By `tar_offset`. The row of a borrowed first name comes under the name it is restored by."""
        selected = self._table.rows(self._selector, self._chosen)
        if not self._lent:
            return selected
        return heapq.merge(selected, self._borrowed(), key=lambda row: row.tar_offset)

    def plan(self, *, gap_bytes: int = DEFAULT_GAP_BYTES) -> RestorePlan:
        """What must be read for it. For the whole of a set that builds on no other no row is looked at."""
        segments = self._table.segments.values()
        whole = [(0, max((segment.tar_offset + segment.tar_bytes for segment in segments), default=0))]
        extents = whole if self._selector.everything and self._chosen is None else self._extents()
        return plan_restore(extents, self._table.frames(), self._table.segments, gap_bytes=gap_bytes)

    def _borrowed(self) -> Iterator[Row]:
        for row in self._table.rows(make_selector(tuple(self._lent))):
            if row.entry.path in self._lent:
                yield row._replace(entry=replace(row.entry, path=self._lent[row.entry.path][0]))

    def _extents(self) -> Iterator[tuple[int, int]]:
        self.files = self.content_bytes = 0
        for row in self.rows():
            self._selector.note(row.entry.path)
            if row.flags & FileFlag.CONTINUES:
                continue
            self.files += row.entry.type is not FileType.DIRECTORY
            self.content_bytes += content_bytes(row.entry)
            yield row.tar_offset, row.tar_offset + row.tar_bytes


@dataclass(slots=True)
class RestoredBefore:
    """What an earlier run of a restore has done: `check` tells of each entry, `count` how many there are, and
    `linkable` the names among them that others may be linked to."""

    check: Callable[[FileEntry], bool]
    count: int = 0
    linkable: set[bytes] = field(default_factory=set)


def select_chain(
    tables: Sequence[SetTable], chain: Sequence[ChainSet], selector: Selector, before: RestoredBefore | None = None
) -> list[Selection]:
    """What is selected of the state that a chain describes, set by set, oldest first, without what was restored
    `before`.

    Each path comes from one set only. Memory: a bit for each row, and what is known of hard links.
    """
    chosen = [OrdinalSet() for _ in chain]
    links = [LinkPlan() for _ in chain]
    lent: list[Names] = [{} for _ in chain]
    placed: dict[bytes, int] = {}  # names of files with several links: which set holds them
    lost: list[dict[bytes, list[bytes]]] = [{} for _ in chain]  # first names that are not restored, and further ones
    for found in state_rows(chain, prefilter(selector)):
        entry = found.row.entry
        if not selector.matches(entry.path):
            continue
        linked = entry.type is FileType.HARDLINK and placed.get(entry.target, len(chain)) <= found.place
        # A further name whose first name is not restored carries the data itself: it is never taken for restored.
        if before is not None and before.check(entry) and (linked or entry.type is not FileType.HARDLINK):
            selector.note(entry.path)
            before.count += 1
            if entry.links > 1 and entry.type is not FileType.HARDLINK:
                before.linkable.add(entry.path)
                placed[entry.path] = found.place
            continue
        chosen[found.place].add(found.ordinal)
        if entry.type is FileType.HARDLINK:
            if linked:
                links[found.place].firsts.add(entry.target)
                links[placed[entry.target]].firsts.add(entry.target)
            else:
                lost[found.place].setdefault(entry.target, []).append(entry.path)
        elif entry.links > 1:
            placed[entry.path] = found.place
    for place, names in enumerate(lost):
        for first, holder in _holders(chain[: place + 1], names).items():
            for path in names[first]:
                lent[holder][first] = links[place].borrow(path, first, lent[holder].get(first))
            links[holder].firsts.add(lent[holder][first][0])
    return [
        Selection(table, selector, chosen=rows, links=plan, lent=lends)
        for table, rows, plan, lends in zip(tables, chosen, links, lent, strict=True)
    ]


def _holders(chain: Sequence[ChainSet], firsts: Names) -> dict[bytes, int]:
    """Which set of the chain holds the data of each of these first names."""
    if not firsts:
        return {}
    found = state_rows(chain, prefilter(make_selector(tuple(firsts))))
    return {row.row.entry.path: row.place for row in found if row.row.entry.path in firsts}
