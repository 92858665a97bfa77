"""Runs one backup: from a request to a set that is whole on tape and known to the catalog.

The engine decides; it never touches a drive. There is one way of going back, whatever happened: `backup.resume` derives
from catalog and file index how far the set is committed, and the pipeline starts there. A job that is resumed begins
with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from capstan.backup.equipment import Equipment
from capstan.backup.request import BackupRequest
from capstan.backup.work import BackupWork
from capstan.core.backup import BackupSet, SetState
from capstan.core.job import BackupPhase
from capstan.crypto.identities import Identity
from capstan.jobs.runner import JobContext


class BackupEngine:
    """One for a process; `run` may be called for several jobs at once."""

    def __init__(self, equipment: Equipment) -> None:
        self._equipment = equipment
        self._catalog = equipment.catalog
        self._manager = equipment.manager
        self._sets = equipment.sets
        self._open_source = equipment.open_source

    async def run(
        self, request: BackupRequest, context: JobContext, identities: Sequence[Identity] = ()
    ) -> dict[str, Any]:
        """Back up and return the result object of the command line. `identities`: with the key that the drive encrypts
        with, where the pool says so.

        On an error or a cancel the set stays as INCOMPLETE with what was committed, and the error goes on up. A set
        that no cartridge was ever opened for is not kept.
        """
        with self._manager.keys.lend(context.job_id, identities):
            await context.phase(BackupPhase.CREATE)
            source = self._open_source(request)  # what cannot even be asked for makes no set
            return await self._back_up(request, context, await self._sets.create(request, context, source))

    async def resume(
        self, request: BackupRequest, context: JobContext, identities: Sequence[Identity] = ()
    ) -> dict[str, Any]:
        """Go on with the set of a job that ended early, behind its last commit point; the result is as of `run`.

        A set without a commit point starts over; a job that had no set yet gets one. A set that is whole already, its
        job having died before it could say so, is only said to be. On failure the set is as `run` leaves it.
        """
        with self._manager.keys.lend(context.job_id, identities):
            return await self._resume(request, context)

    async def _resume(self, request: BackupRequest, context: JobContext) -> dict[str, Any]:
        await context.phase(BackupPhase.CREATE)
        await self._manager.open(request.library)
        if not context.job.set_id:
            source = self._open_source(request)
            return await self._back_up(request, context, await self._sets.create(request, context, source))
        backup_set = await self._sets.take_up(context)
        whole = backup_set.state is SetState.COMPLETE
        await context.tell(
            "backup.resumed",
            set_id=backup_set.id,
            files=backup_set.files,
            stored_bytes=backup_set.stored_bytes,
            whole=whole,
        )
        if whole:
            return _result(backup_set, 0.0)
        result = await self._back_up(request, context, backup_set, resumed=True)
        async with self._catalog.snapshot() as catalog:
            latest = await catalog.backups.latest(request.name)
        if latest is not None and latest.id != backup_set.id:
            detail = f"set {latest.id} of the same series was begun later, and stays its latest"
            await context.warning("not-latest", detail=detail)
        return result

    async def _back_up(
        self, request: BackupRequest, context: JobContext, backup_set: BackupSet, *, resumed: bool = False
    ) -> dict[str, Any]:
        clock = self._equipment.clock
        began = clock.monotonic()
        work = BackupWork(self._equipment, request, context, backup_set, resumed=resumed)
        try:
            await context.phase(BackupPhase.ACCEPT, set_id=backup_set.id)
            await work.run()
        except BaseException:
            await self._sets.close(backup_set.id, context, begun=work.begun)
            raise
        finally:
            await work.close()
        async with self._catalog.snapshot() as catalog:
            finished = await catalog.backups.get(backup_set.id)
        return _result(finished, clock.monotonic() - began, work.segments_copied)


def _result(backup_set: BackupSet, seconds: float, copied: int = 0) -> dict[str, Any]:
    return {
        "set_id": backup_set.id,
        "name": backup_set.name,
        "type": backup_set.type.value,
        "parent_id": backup_set.parent_id,
        "state": backup_set.state.value,
        "files": backup_set.files,
        "bytes": backup_set.bytes,
        "stored_bytes": backup_set.stored_bytes,
        "cartridges": backup_set.cartridges,
        "warnings": backup_set.warning_count,
        "segments_in_same_pass": copied,
        "seconds": round(seconds, 3),
    }
