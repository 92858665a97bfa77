"""What a backup was told to take, as the top of a tree."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Optional

# Above the roots: the names that lead to one, or are one (None).
RootTree = dict[bytes, Optional["RootTree"]]


def stored_roots(named: Sequence[bytes]) -> frozenset[bytes]:
    """The stored paths of what was named.

    Links above a root are resolved: an entry cannot come back below a link. A root that is a link stays one.
    """
    return frozenset(_real(name).lstrip(b"/") for name in named)


def _real(name: bytes) -> bytes:
    path = os.path.join(os.getcwdb(), name).rstrip(b"/")  # noqa: PTH109, PTH118 (bytes)
    above, last = os.path.split(path)
    if last in (b"", b".", b".."):
        return os.path.realpath(path or b"/")
    return os.path.join(os.path.realpath(above), last)  # noqa: PTH118 (bytes)


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
