"""Enters commit points into what Capstan knows. Only what lies before a commit point on tape comes through here.

The file index is made durable first and the SQL catalog told after, in one transaction: if the process dies between the
two, the tape is ahead of the catalog, which the next append finds and mends by `adopt`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from capstan.catalog.catalog import Catalog, Repositories
from capstan.core.backup import BackupSet, Commit, SetState
from capstan.core.coverage import holds_up_to
from capstan.core.history import agree, history_of
from capstan.core.media import Cartridge
from capstan.errors import Refused
from capstan.fileindex.store import FileIndexStore, IndexPart
from capstan.format.copy_writer import CopyWritten
from capstan.format.index_reader import LockedIndex
from capstan.format.manifest import CommitLink, Manifest

_OTHER_HISTORY = "says of earlier ones of its set what the catalog does not: the set was written twice from there on"


class Ledger:
    """Used by the backup, by the append rule and by rebuild: the same INDEX gives the same rows, whoever reads it."""

    def __init__(self, catalog: Catalog, store: FileIndexStore) -> None:
        self._catalog = catalog
        self._store = store

    async def enter(self, commit: Commit, manifest: Manifest, part: IndexPart, *, writing: bool) -> BackupSet:
        """Record one commit point; return the set as the catalog has it then.

        `writing`: the set is being written at this moment, by this process. Entering the same INDEX again changes
        nothing. On failure the catalog is as it was; parts in the store that no commit names are replaced next time.
        """
        await asyncio.to_thread(self._store.add_part, commit.set_id, part)
        async with self._catalog.transaction() as catalog:
            backup_set = await self.enter_into(catalog, commit, manifest, writing=writing)
        await self._entered(commit)
        return backup_set

    async def enter_copy(self, written: CopyWritten) -> BackupSet:
        """Record a commit point of a copy, whose tables the store has already. As `enter`."""
        commit = written.commit
        await asyncio.to_thread(self._store.add_records, commit, written.records)
        async with self._catalog.transaction() as catalog:
            backup_set = await self.enter_into(catalog, commit, written.manifest, writing=False)
        await self._entered(commit)
        return backup_set

    async def _entered(self, commit: Commit) -> None:
        await asyncio.to_thread(self._store.entered, commit.set_id, commit.header_sha256)
        await asyncio.to_thread(self._store.keep_only, commit.set_id, history_of([commit]))

    async def enter_locked(self, catalog: Repositories, index: LockedIndex) -> None:
        """Record, as a part of the caller's transaction, an INDEX of which only the header record can be read. What the
        catalog knows of its set stays."""
        commit = index.commit()
        if await catalog.backups.find(commit.set_id) is None:
            await catalog.backups.add(index.backup_set())
        await catalog.backups.add_commit(commit)

    async def enter_into(
        self, catalog: Repositories, commit: Commit, manifest: Manifest, *, writing: bool
    ) -> BackupSet:
        """`enter` as a part of the caller's transaction, who has made the part of the file index durable.

        Refused when it is of another history of the set than what the catalog has: nothing is mixed.
        """
        others = [*await catalog.backups.list_commits(set_id=commit.set_id)]
        others += await catalog.backups.list_copies(commit.set_id)
        if not agree({**manifest.history, commit.sequence: commit.interval_sha256}, history_of(others)):
            raise Refused(reason=f"the INDEX at block {commit.block} of {commit.barcode} {_OTHER_HISTORY}")
        known = await catalog.backups.find(commit.set_id)
        backup_set = replace(manifest.backup_set) if known is None or known.state is SetState.LOCKED else known
        if known is None:
            await catalog.backups.add(backup_set)
        await catalog.backups.add_commit(commit)
        commits = await catalog.backups.list_commits(set_id=commit.set_id)
        copies = await catalog.backups.list_copies(commit.set_id)
        if commit.sequence == max(entered.sequence for entered in (*commits, *copies)):
            facts = manifest.backup_set
            backup_set.files, backup_set.bytes = facts.files, facts.bytes
            backup_set.stored_bytes, backup_set.warning_count = facts.stored_bytes, facts.warning_count
            ended_at = facts.finished_at if commit.copy else commit.committed_at
            backup_set.finished_at = ended_at if commit.final else None
        if commit.copy == 0 or backup_set.state is not SetState.WRITING:
            settle(backup_set, (*commits, *copies), manifest.commits, writing=writing)
        await catalog.backups.save(backup_set)
        cartridge = await catalog.media.find_by_uuid(commit.cartridge)
        if cartridge is not None:
            await catalog.media.save(_moved_on(cartridge, commit))
        return backup_set


def settle(
    backup_set: BackupSet, commits: Sequence[Commit], links: Sequence[CommitLink] = (), *, writing: bool = False
) -> None:
    """Set the state, cartridges and missing cartridges of a set from the commit points that are known of it, in copies
    too.

    A set is whole when its final INDEX and all before it are there, or when what is lacking of it is there in copies.
    `links` are those that its newest INDEX, and those of its copies, name.
    """
    ordered = sorted((commit for commit in commits if commit.copy == 0), key=lambda commit: commit.sequence)
    present = {commit.sequence for commit in ordered}
    named = {link.sequence: link.barcode for link in links if link.copy == 0} | {c.sequence: c.barcode for c in ordered}
    copied = [commit for commit in commits if commit.copy]
    backup_set.cartridges = list(dict.fromkeys(barcode for _, barcode in sorted(named.items())))
    if not named:
        backup_set.cartridges = list(dict.fromkeys(commit.barcode for commit in copied))
    newest = max((*ordered, *copied), key=lambda commit: (commit.sequence, not commit.locked), default=None)
    last = max([*named, *(link.sequence for link in links), newest.sequence if newest else 0], default=0)
    absent = [sequence for sequence in range(1, last + 1) if sequence not in present]
    lost = [named[sequence] for sequence in absent if sequence in named]
    locked = [commit for commit in (*ordered, *copied) if commit.locked]
    if absent and newest is not None and newest.sequence == last and holds_up_to(commits, newest):
        absent, lost = [], []  # copies have it
    elif absent and not lost:  # of what the backup wrote, nothing is known
        here = {commit.barcode for commit in copied}
        lost = [link.barcode for link in links if link.copy and link.barcode not in here]
    backup_set.missing = list(dict.fromkeys(lost))
    sequences = {commit.sequence for commit in (*ordered, *copied)}
    if absent and not (locked and sequences.issuperset(range(1, last + 1))):
        backup_set.state = SetState.PARTIAL
    elif locked and not (newest is not None and holds_up_to(commits, newest)):
        backup_set.state = SetState.LOCKED
    elif newest is not None and newest.final:
        backup_set.state = SetState.COMPLETE
    else:
        backup_set.state = SetState.WRITING if writing else SetState.INCOMPLETE


def _moved_on(cartridge: Cartridge, commit: Commit) -> Cartridge:
    """The cartridge's row with its committed end at `commit`, if that is not behind it already."""
    if commit.block <= cartridge.index_block:
        return cartridge
    fresh = (segment.payload_bytes for segment in commit.segments if segment.block >= cartridge.end_block)
    return replace(
        cartridge,
        end_block=commit.end_block,
        tape_files=commit.tape_file + 1,
        index_block=commit.block,
        index_sha256=commit.header_sha256,
        written_bytes=cartridge.written_bytes + commit.payload_bytes + sum(fresh),
        written_at=commit.committed_at,
    )
