"""Which INDEXes of a set belong together (docs/design/tape-format.md, 9.6).

A set has one history: the INDEXes that its backup wrote, each known by the digest of its header record. All copies of
an interval carry that digest of the original's INDEX. Two INDEXes with the same sequence and another digest are of two
histories, and must never be read as one set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from capstan.core.backup import Commit

History = Mapping[int, str]  # sequence → `header-sha256` of the original's INDEX


def history_of(commits: Iterable[Commit]) -> dict[int, str]:
    """What these commit points, of the original and of copies, say of the history. They agree."""
    return {commit.sequence: commit.interval_sha256 for commit in commits}


def agree(one: History, other: History) -> bool:
    """Whether two histories say the same of all that both know."""
    return all(other.get(sequence, digest) == digest for sequence, digest in one.items())
