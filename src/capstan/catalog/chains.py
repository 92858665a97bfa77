"""The chain of sets that a set builds on, by its parent links: never by names or clocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capstan.catalog.catalog import Repositories
from capstan.core.backup import BackupSet, Commit, SetState, SetType
from capstan.core.files import display_path
from capstan.core.history import history_of
from capstan.errors import ParentMissing
from capstan.fileindex.chain import ChainSet, last_path
from capstan.fileindex.store import FileIndexStore


async def chain_of(catalog: Repositories, backup_set: BackupSet) -> list[BackupSet]:
    """The set with all that it builds on, the full one first. ParentMissing when one of them is not known, or is not
    whole: what it stored is then not the whole state."""
    chain = [backup_set]
    while chain[-1].type is not SetType.FULL:
        child = chain[-1]
        parent = await catalog.backups.find(child.parent_id)
        if parent is None or any(parent.id == known.id for known in chain):
            raise ParentMissing(set=backup_set.id, parent=child.parent_id, reason="it is not known")
        if parent.state is not SetState.COMPLETE:
            raise ParentMissing(set=backup_set.id, parent=parent.id, reason=f"it is {parent.state.value}")
        chain.append(parent)
    return chain[::-1]


async def all_commits(catalog: Repositories, set_id: str) -> list[Commit]:
    """What the backup wrote of a set, and all copies of that."""
    return [*await catalog.backups.list_commits(set_id=set_id), *await catalog.backups.list_copies(set_id)]


async def index_chain(catalog: Repositories, store: FileIndexStore, chain: Sequence[BackupSet]) -> list[ChainSet]:
    """The file indexes of a chain. HomeDamaged when a part of one is gone."""
    found = []
    for item in chain:
        commits = await all_commits(catalog, item.id)
        parts = store.parts(item.id, history_of(commit for commit in commits if not commit.locked))
        found.append(ChainSet(item.id, item.started_ns, tuple(parts)))
    return found


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Why what a chain describes is not all of the time of its last set. `code`: `incomplete-set` (it ended early, or
    is being written) or `partial-set` (parts of it are gone). `path`: up to where it reaches in scan order; "" where
    that is not known."""

    code: str
    set_id: str
    path: bytes
    what: str

    def __str__(self) -> str:
        return f"{self.what} (up to /{display_path(self.path)})" if self.path else self.what


def find_shortfall(chain: Sequence[BackupSet], indexes: Sequence[ChainSet]) -> Shortfall | None:
    """What the last set of a chain lacks; None when it is whole. HomeDamaged when its index cannot be read."""
    tip = chain[-1]
    if tip.state is SetState.COMPLETE:
        return None
    if tip.state is SetState.PARTIAL:
        lack = f"cartridges {', '.join(tip.missing)}" if tip.missing else "some of its commit points"
        what = f"set {tip.id} lacks {lack}: what they say of new files, newer versions and deletions is not known"
        return Shortfall("partial-set", tip.id, b"", what)
    path = last_path(indexes[-1])
    reach = "behind this path, in the order of the scan," if path else "nothing of it was committed:"
    rest = "nothing is known"
    if len(chain) > 1:
        rest = f"all is as in set {chain[-2].id}, of {chain[-2].created_at:%Y-%m-%d %H:%M} UTC"
    what = f"set {tip.id} is {tip.state.value}: {reach} {rest}"
    return Shortfall("incomplete-set", tip.id, path or b"", what)
