"""Which INDEXes of a set count, where the tapes and the catalog tell of more than one history of it (`core.history`).

There are two where a drive said that the filemark of an INDEX had failed, and it was on the medium all the same: the
backup then went on with another cartridge. There are also two where a home was put back to an older state, and went on
with a set that was written further already. What is whole counts before what is not, then what reaches further, then
what the backup wrote before copies, then the newest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from capstan.core.backup import Commit
from capstan.core.history import History, agree, history_of
from capstan.format.index_reader import LockedIndex, ReadIndex

Found = ReadIndex | LockedIndex
_Rank = tuple[bool, int, bool, datetime]


@dataclass(slots=True)
class Choice:
    """Of one set: `indexes` and `locked` are to be entered, in that order; `aside` are of another history; `dropped`
    are commit points of the catalog that are."""

    indexes: list[ReadIndex] = field(default_factory=list)
    locked: list[LockedIndex] = field(default_factory=list)
    aside: list[Found] = field(default_factory=list)
    dropped: list[Commit] = field(default_factory=list)


def choose_history(found: Sequence[Found], staying: Sequence[Commit] = ()) -> Choice:
    """`found`: the INDEXes of one set that were read now; `staying`: its commit points that the catalog has of other
    cartridges, which are of one history."""
    known = history_of(staying)
    candidates: list[tuple[_Rank, History, Found | None]] = [
        (_rank(index.commit()), _history(index), index) for index in found
    ]
    if staying:
        candidates.append((max(map(_rank, staying)), known, None))
    history: dict[int, str] = {}
    counted: list[Found] = []
    choice = Choice()
    for _, said, index in sorted(candidates, key=lambda candidate: candidate[0], reverse=True):
        if agree(said, history):
            history |= said
            counted += [index] if index else []
        elif index is not None:
            choice.aside.append(index)
        else:
            choice.dropped = [commit for commit in staying if history.get(commit.sequence) != commit.interval_sha256]
    choice.indexes = _latest([index for index in counted if not isinstance(index, LockedIndex)])
    choice.locked = _latest([index for index in counted if isinstance(index, LockedIndex)])
    return choice


def _rank(commit: Commit) -> _Rank:
    return (commit.final, commit.sequence, not commit.copy, commit.committed_at)


def _history(index: Found) -> dict[int, str]:
    if not isinstance(index, LockedIndex):
        return index.history
    commit, before = index.commit(), index.header.set_previous_index_sha256
    history = {commit.sequence: commit.interval_sha256}
    if before and not commit.copy:
        history[commit.sequence - 1] = before
    return history


_Some = TypeVar("_Some", ReadIndex, LockedIndex)


def _latest(indexes: Sequence[_Some]) -> list[_Some]:
    """One for each copy, sequence and cartridge, the last, in this order: of a copy, a later one takes its place."""
    found = {
        (index.header.copy or 0, index.header.sequence or 0, index.header.cartridge): index
        for index in sorted(indexes, key=lambda index: index.header.block)
    }
    return [found[key] for key in sorted(found)]
