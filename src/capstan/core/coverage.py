"""Whether some commit points hold all of a set: a pure rule, for originals, copies, and both together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from capstan.core.backup import Commit, Segment


def covers(segments: Iterable[Segment], tar_end: int) -> bool:
    """Whether segments, of any copies and in any order, hold the whole stream up to `tar_end`."""
    reached = 0
    for segment in sorted(segments, key=lambda segment: segment.tar_offset):
        if segment.tar_offset > reached:
            return False
        reached = max(reached, segment.tar_offset + segment.tar_bytes)
    return reached >= tar_end


def is_whole(commits: Sequence[Commit]) -> bool:
    """Whether these commit points have every INDEX and every segment of a set that is finished."""
    final = next((commit for commit in commits if commit.final and not commit.locked), None)
    return final is not None and holds_up_to(commits, final)


def holds_up_to(commits: Sequence[Commit], last: Commit) -> bool:
    """Whether these commit points have every INDEX and every segment up to the interval that `last` ends."""
    readable = [commit for commit in commits if not commit.locked]
    present = {commit.sequence for commit in readable}
    if not present.issuperset(range(1, last.sequence + 1)):
        return False
    return covers((segment for commit in readable for segment in commit.segments), last.tar_end)
