"""What a backup was told to take, as the top of a tree."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Optional

from capstan import file_system

# Above the roots: the names that lead to one, or are one (None).
RootTree = dict[bytes, Optional["RootTree"]]


def stored_roots(named: Sequence[bytes]) -> frozenset[bytes]:
    """The stored paths of what was named.

    Links above a root are resolved: an entry cannot come back below a link. A root that is a link stays one.
    """
    return frozenset(map(file_system.stored_path, named))


def root_tree(roots: Collection[bytes]) -> RootTree | None:
    """The tree of the directories above some stored paths; None if the top itself is among them. A root inside
    another is not in it."""
    if b"" in roots:
        return None
    tree: RootTree = {}
    for root in sorted(roots, key=len):  # a root comes before those inside it
        *above, last = root.split(b"/")
        node = tree
        for name in above:
            inner = node.setdefault(name, {})
            if inner is None:
                break
            node = inner
        else:
            node[last] = None
    return tree
