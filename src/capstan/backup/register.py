"""The set of a backup in the catalog: how it begins, is taken up again, and ends; and how far it has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from capstan.backup.continuity import mounts_on_top_of
from capstan.backup.parent import find_parent
from capstan.backup.request import BackupRequest
from capstan.backup.resume import Committed, read_committed
from capstan.backup.source import BackupSource
from capstan.catalog.catalog import Catalog
from capstan.catalog.chains import chain_of, index_chain
from capstan.clock import Clock
from capstan.core.backup import BackupSet, Encryption, SetState, SetType
from capstan.core.files import display_path
from capstan.core.ids import new_uuid
from capstan.core.mounts import MountTable
from capstan.core.pool_rules import check_writable
from capstan.crypto.key_ids import key_id
from capstan.errors import CapstanError, IdentityNeeded, KeysError, Refused
from capstan.fileindex.chain import ChainSet, holds_below
from capstan.fileindex.store import FileIndexStore
from capstan.jobs.context import JobContext
from capstan.media.drive_keys import DriveKeys

_UNLOCK = "the drive encrypts it: give what unlocks the key store that has this key, or --identity FILE with its export"


def _encryption(drive_key: str, recipients: list[str]) -> Encryption:
    if drive_key:
        return Encryption.DRIVE
    return Encryption.AGE if recipients else Encryption.NONE


class SetRegister:
    """One for a process. `chain_limit`: sets in a chain after which each further one asks for a full one.
    `proven_keys`: ids of the keys an export of which has opened something; `retired_keys`: of those that nothing new
    should be written for; `drive_keys`: what jobs were given."""

    def __init__(
        self,
        catalog: Catalog,
        store: FileIndexStore,
        clock: Clock,
        *,
        host: str,
        chain_limit: int,
        proven_keys: Callable[[], set[str]],
        retired_keys: Callable[[], set[str]],
        drive_keys: DriveKeys,
    ) -> None:
        self._proven_keys = proven_keys
        self._retired_keys = retired_keys
        self._drive_keys = drive_keys
        self._catalog = catalog
        self._store = store
        self._clock = clock
        self._host = host
        self._chain_limit = chain_limit

    async def _find_parent(self, request: BackupRequest, context: JobContext, source: BackupSource) -> BackupSet | None:
        """What an incremental or differential set builds on; None for a full one, also where it must become one."""
        if request.type is SetType.FULL:
            return None
        parent, length, why = await find_parent(self._catalog, self._store, request, source.roots, self._host)
        if parent is None:
            await context.warning("no-parent", detail=f"a full backup is made: {why}")
        elif length > self._chain_limit:
            detail = f"a restore needs {length} sets now: make a full backup (`capstan backup --type full`)"
            await context.warning("long-chain", detail=detail)
        return parent

    async def create(self, request: BackupRequest, context: JobContext, source: BackupSource) -> BackupSet:
        """A new set of what `source` is now. SourceError when a root of it cannot be looked at; EscrowUnproven."""
        parent = await self._find_parent(request, context, source)
        mounts = await self._mounts(parent, source)
        async with self._catalog.transaction() as catalog:
            pool = await catalog.media.find_pool(request.pool)
            recipients = list(request.recipients) or (pool.recipients if pool else [])
            drive_key = pool.drive_key if pool and not request.recipients else ""
            if drive_key and drive_key not in self._drive_keys.of(context.job_id):
                raise IdentityNeeded(what=f"what is written to pool {request.pool}", keys=drive_key, hint=_UNLOCK)
            keys = [drive_key] if drive_key else [key_id(recipient) for recipient in recipients]
            backup_set = BackupSet(
                id=new_uuid(),
                number=await catalog.backups.next_number(),
                name=request.name,
                type=request.type if parent else SetType.FULL,
                parent_id=parent.id if parent else "",
                state=SetState.WRITING,
                created_at=self._clock.now(),
                sources=[display_path(path) for path in request.sources],
                excludes=request.plain_excludes,
                one_file_system=request.one_file_system,
                mounts=[item.as_plain() for item in mounts],
                job_id=context.job_id,
                host=self._host,
                pool=request.pool,
                codec=f"{request.parameters.codec}:{request.parameters.level}",
                encryption=_encryption(drive_key, recipients),
                recipients=[] if drive_key else recipients,
                keys=keys,
                container=request.parameters.container,
            )
            if pool is not None:
                check_writable(pool, backup_set, self._proven_keys)
            await catalog.backups.add(backup_set)
        await context.set_created(backup_set.id)
        for key in self._retired(backup_set.keys):
            detail = f"the set is encrypted for key {key}, which is retired: name its successor (docs/keys.md)"
            await context.warning("retired-key", detail=detail)
        return backup_set

    def _retired(self, keys: Sequence[str]) -> list[str]:
        """Those that are. Only a warning: a key store that cannot be read keeps nobody from writing."""
        with suppress(KeysError):
            return sorted(self._retired_keys().intersection(keys)) if keys else []
        return []

    async def _mounts(self, parent: BackupSet | None, source: BackupSource) -> MountTable:
        if parent is None:
            return await asyncio.to_thread(source.mounts)
        async with self._catalog.snapshot() as catalog:
            chain = await index_chain(catalog, self._store, await chain_of(catalog, parent))
        before = MountTable.from_plain(parent.mounts)
        return await asyncio.to_thread(mounts_on_top_of, source, before, lambda path: holds_below(chain, path))

    async def take_up(self, context: JobContext) -> BackupSet:
        """The set of the job, as being written again if it is not whole. Refused when it cannot go on, or may not
        be written to its pool as that is by now; EscrowUnproven."""
        job = context.job
        async with self._catalog.transaction() as catalog:
            backup_set = await catalog.backups.find(job.set_id)
            if backup_set is None:
                reason = f"set {job.set_id} of job {job.id} is no longer in the catalog"
                raise Refused(reason=reason, hint="its cartridges were erased; run the backup again")
            if backup_set.state is SetState.PARTIAL:
                reason = f"set {job.set_id} of job {job.id} lacks cartridges: {', '.join(backup_set.missing)}"
                raise Refused(reason=reason, hint="what is left of it restores; run the backup again")
            originals = {commit.sequence for commit in await catalog.backups.list_commits(set_id=backup_set.id)}
            copies = await catalog.backups.list_copies(backup_set.id)
            if backup_set.state is not SetState.COMPLETE and not originals.issuperset(item.sequence for item in copies):
                reason = f"set {job.set_id} of job {job.id} is only there as a copy"
                raise Refused(reason=reason, hint="what is there of it restores; run the backup again")
            pool = await catalog.media.find_pool(backup_set.pool)
            if pool is not None and backup_set.state is not SetState.COMPLETE:
                check_writable(pool, backup_set, self._proven_keys)
            if backup_set.state is not SetState.COMPLETE:
                backup_set.state, backup_set.job_id = SetState.WRITING, job.id
                await catalog.backups.save(backup_set)
        return backup_set

    async def read_committed(self, set_id: str) -> tuple[Committed, list[ChainSet], MountTable]:
        """How far a set is committed, by catalog and file index; the chain that it builds on, and the mounts of that.

        Errors as of `backup.resume.read_committed` and `catalog.chains`.
        """
        async with self._catalog.snapshot() as catalog:
            backup_set = await catalog.backups.get(set_id)
            commits = await catalog.backups.list_commits(set_id=set_id)
            chain = (await chain_of(catalog, backup_set))[:-1]
            parent = await index_chain(catalog, self._store, chain)
        before = MountTable.from_plain(chain[-1].mounts) if chain else MountTable()
        return await asyncio.to_thread(read_committed, backup_set, commits, self._store, parent), parent, before

    async def close(self, set_id: str, context: JobContext, *, begun: bool) -> None:
        """A set that ended early is INCOMPLETE from now on; what it committed restores. `begun`: something of it may be
        on tape, from this run or an earlier one, so the catalog must go on knowing it for its own."""
        with suppress(CapstanError):
            async with self._catalog.transaction() as catalog:
                backup_set = await catalog.backups.get(set_id)
                if not begun:
                    await catalog.backups.remove(set_id)
                    context.job.set_id = ""
                elif backup_set.state is SetState.WRITING:
                    backup_set.state = SetState.INCOMPLETE
                    await catalog.backups.save(backup_set)
