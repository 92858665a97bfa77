"""What one restore handles: the selected rows of a set, or of a chain of sets, with the data that their hard links
need."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from capstan.core.backup import Segment
from capstan.core.files import FileEntry, FileFlag, FileType, Row
from capstan.core.ordinals import OrdinalSet
from capstan.fileindex.chain import ChainSet, state_rows
from capstan.format.tar import content_bytes
from capstan.recovery.hard_links import FileId, LinkPlan, Loans, find_holders
from capstan.recovery.plan import DEFAULT_GAP_BYTES, RestorePlan, plan_restore
from capstan.recovery.rows import SetTable, prefilter
from capstan.recovery.select import Selector, make_selector


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
        lent: Loans | None = None,
    ) -> None:
        self._table = table
        self._selector = selector
        self._chosen = chosen
        self.links = links or LinkPlan()
        self.files = 0
        self.content_bytes = 0
        if links is None:
            for entry in table.hard_links(selector):
                if selector.matches(entry.target):
                    self.links.firsts.add(entry.target)
                else:
                    self.links.borrow(entry)
        self._lent = self.links.borrowed if lent is None else lent

    def rows(self) -> Iterator[Row]:
        """By `tar_offset`. The row of a borrowed first name comes under the name it is restored by."""
        selected = self._table.rows(self._selector, self._chosen)
        if not self._lent:
            return selected
        return heapq.merge(selected, self._borrowed(), key=lambda row: row.tar_offset)

    def plan(self, *, segments: Mapping[int, Segment] | None = None, gap_bytes: int = DEFAULT_GAP_BYTES) -> RestorePlan:
        """What must be read for it, of `segments` (those of the table). For the whole of a set that builds on no other
        no row is looked at."""
        places = self._table.segments if segments is None else segments
        whole = [(0, max((segment.tar_offset + segment.tar_bytes for segment in places.values()), default=0))]
        extents = whole if self._selector.everything and self._chosen is None else self._extents()
        return plan_restore(extents, self._table.frames(), places, gap_bytes=gap_bytes)

    def _borrowed(self) -> Iterator[Row]:
        for row in self._table.rows(make_selector(tuple(self._lent))):
            loan = self._lent.get(row.entry.path)
            if loan is not None and loan.file.is_same(FileId.of(row.entry)):
                yield row._replace(entry=replace(row.entry, path=loan.names[0]))

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
    `linkable` the names among them that others may be linked to, each with its file."""

    check: Callable[[FileEntry], bool]
    count: int = 0
    linkable: dict[bytes, FileId] = field(default_factory=dict)


def select_chain(
    tables: Sequence[SetTable], chain: Sequence[ChainSet], selector: Selector, before: RestoredBefore | None = None
) -> list[Selection]:
    """What is selected of the state that a chain describes, set by set, oldest first, without what was restored
    `before`.

    Each path comes from one set only. Memory: a bit for each row, and what is known of hard links.
    """
    chosen = [OrdinalSet() for _ in chain]
    links = [LinkPlan() for _ in chain]
    lent: list[Loans] = [{} for _ in chain]
    placed: dict[bytes, tuple[int, FileId]] = {}  # names of files with several links: which set holds which file there
    lost: list[list[FileEntry]] = [[] for _ in chain]  # further names of what is not restored under its first one
    for found in state_rows(chain, prefilter(selector)):
        entry = found.row.entry
        if not selector.matches(entry.path):
            continue
        further = entry.type is FileType.HARDLINK
        first = placed.get(entry.target) if further else None
        # Under its first name there may be another file by now, or an older one that was stored when this could not be.
        linked = first is not None and first[0] <= found.place and first[1].is_same(FileId.of(entry))
        # A further name whose first name is not restored carries the data itself: it is never taken for restored.
        restored = before is not None and before.check(entry) and (linked or not further)
        if not further and entry.links > 1:
            placed[entry.path] = found.place, FileId.of(entry)
        if restored and before is not None:
            selector.note(entry.path)
            before.count += 1
            if entry.path in placed:
                before.linkable[entry.path] = placed[entry.path][1]
            continue
        chosen[found.place].add(found.ordinal)
        if linked and first is not None:
            links[found.place].firsts.add(entry.target)
            links[first[0]].firsts.add(entry.target)
        elif further:
            lost[found.place].append(entry)
    for place, entries in enumerate(lost):
        holders = find_holders(chain[: place + 1], {entry.target: FileId.of(entry) for entry in entries})
        for entry in entries:
            holder = holders.get(entry.target)
            if holder is not None:
                loan = lent[holder][entry.target] = links[place].borrow(entry, lent[holder].get(entry.target))
                links[holder].firsts.add(loan.names[0])
    return [
        Selection(table, selector, chosen=rows, links=plan, lent=lends)
        for table, rows, plan, lends in zip(tables, chosen, links, lent, strict=True)
    ]
