"""Which file a further name belongs to. Its row names a path, and another file may have that path by now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from capstan.core.files import FileEntry
from capstan.fileindex.chain import ChainSet, state_rows
from capstan.recovery.rows import prefilter
from capstan.recovery.select import make_selector


class FileId(NamedTuple):
    """What a file system says of a file, whatever name it has; all 0 where it said nothing."""

    device: int
    inode: int
    ctime_ns: int

    @classmethod
    def of(cls, entry: FileEntry) -> FileId:
        return cls(entry.device, entry.inode, entry.ctime_ns)

    def is_same(self, other: FileId) -> bool:
        """Whether both are one file. Device numbers may change with a restart of the machine: then the time of change,
        which all names of a file share, speaks for them."""
        return self.inode == other.inode and (self.device == other.device or self.ctime_ns == other.ctime_ns)


@dataclass(slots=True)
class Loan:
    """The selected further names of `file`, which is not restored under its first name: the first of these gets the
    data, and the others are linked to it."""

    file: FileId
    names: list[bytes] = field(default_factory=list)


Loans = dict[bytes, Loan]  # by the first name


@dataclass(slots=True)
class LinkPlan:
    """Hard links of the selection. `firsts`: names that others are linked to; what became of them is remembered.
    `borrowed`: what comes under another name than its first."""

    firsts: set[bytes] = field(default_factory=set)
    borrowed: Loans = field(default_factory=dict)

    def borrow(self, entry: FileEntry, loan: Loan | None = None) -> Loan:
        """Note that `entry` is a further name of a file whose first name is not restored."""
        loan = self.borrowed.setdefault(entry.target, loan or Loan(FileId.of(entry)))
        loan.names.append(entry.path)
        self.firsts.add(loan.names[0])
        return loan


def find_holders(chain: Sequence[ChainSet], firsts: Mapping[bytes, FileId]) -> dict[bytes, int]:
    """Which set of the chain holds the data of each of these first names, as the last set of the chain means them.

    Where another file has the name by then, the latest set counts that knew the very file there, not changed since. A
    file that no set holds is not among them. HomeDamaged when a table cannot be read.
    """
    holders: dict[bytes, int] = {}
    for end in range(len(chain), 0, -1):
        wanted = {path: file for path, file in firsts.items() if path not in holders}
        if not wanted:
            break
        for found in state_rows(chain[:end], prefilter(make_selector(tuple(wanted)))):
            meant, file = wanted.get(found.row.entry.path), FileId.of(found.row.entry)
            if meant is None or not file.is_same(meant):
                continue
            if end == len(chain) or file.ctime_ns == meant.ctime_ns:
                holders[found.row.entry.path] = found.place
    return holders
