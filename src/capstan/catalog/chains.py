"""The chain of sets that a set builds on, by its parent links: never by names or clocks."""

from __future__ import annotations

from collections.abc import Sequence

from capstan.catalog.catalog import Repositories
from capstan.core.backup import BackupSet, SetState, SetType
from capstan.errors import ParentMissing
from capstan.fileindex.chain import ChainSet
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


async def index_chain(catalog: Repositories, store: FileIndexStore, chain: Sequence[BackupSet]) -> list[ChainSet]:
    """The file indexes of a chain. HomeDamaged when a part of one is gone."""
    found = []
    for item in chain:
        commits = await catalog.backups.list_commits(set_id=item.id)
        parts = store.parts(item.id, sorted({commit.sequence for commit in commits}))
        found.append(ChainSet(item.id, item.started_ns, tuple(parts)))
    return found
