"""The work of one backup, from cartridge to cartridge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from capstan.backup.archive_pipeline import ArchivePipeline
from capstan.backup.changes import ChangedSource
from capstan.backup.continuity import check_same_source
from capstan.backup.equipment import Equipment
from capstan.backup.estimate import SizeEstimate
from capstan.backup.pipeline import FramePipeline, Pipeline
from capstan.backup.progress import BackupProgress
from capstan.backup.request import BackupRequest
from capstan.backup.resume import Committed
from capstan.backup.second_copy import SecondCopy
from capstan.backup.session import Boundary, write_until_boundary
from capstan.backup.source import SourceWarning
from capstan.core.backup import BackupSet, Encryption
from capstan.core.job import BackupPhase
from capstan.core.media import Cartridge
from capstan.core.mounts import Mounted, MountTable
from capstan.crypto.identities import DriveKey
from capstan.errors import (
    CapstanError,
    CartridgeTooSmall,
    EndOfMedium,
    IdentityNeeded,
    JobCancelled,
)
from capstan.fileindex.chain import ChainSet
from capstan.format.containers import STREAM
from capstan.format.writer import CommitWritten, SetChain, SetWriter, TapeEnd
from capstan.jobs.context import JobContext
from capstan.media.attempts import Attempts
from capstan.media.manager import MountedCartridge, Purpose


class BackupWork:
    """The moving parts of one run: what is mounted, how far the set is, the pipeline."""

    def __init__(
        self,
        equipment: Equipment,
        request: BackupRequest,
        context: JobContext,
        backup_set: BackupSet,
        *,
        resumed: bool,
    ) -> None:
        self._equipment = equipment
        self._request = request
        self._context = context
        self._set = backup_set
        self.begun = resumed  # a tape may have something of the set
        self._chain = SetChain()
        self._before = MountTable()
        # What of the source has changed cannot be counted beforehand.
        estimate = None if backup_set.parent_id else SizeEstimate(equipment.open_source(request))
        self._progress = BackupProgress(context, equipment.clock, estimate)
        self._pipeline = self._new_pipeline(Committed(), [])
        self._copy = SecondCopy(equipment, backup_set, context, request.library)

    @property
    def segments_copied(self) -> int:
        """How many segments were written to a second cartridge in the same pass, and committed there."""
        return self._copy.segments

    async def run(self) -> None:
        """All phases from SCAN to UNLOAD."""
        await self._run()
        await self._copy.finish()

    async def _run(self) -> None:
        context, progress = self._context, self._progress
        async with self._equipment.catalog.snapshot() as catalog:
            previous = await catalog.backups.latest(self._request.name)
        await context.phase(BackupPhase.SCAN)
        committed = await self._go_back()
        like = previous is not None and previous.type is self._set.type
        progress.start(
            expected=previous.bytes if previous and like else None, bytes_before=committed.resume.totals.bytes
        )
        await asyncio.to_thread(self._pipeline.wait_first)
        await context.phase(BackupPhase.COMPRESS)
        attempts = Attempts(context)
        while True:
            before = self._chain.sequence
            try:
                if await self._use_one_cartridge():
                    return
            except CapstanError as error:
                await attempts.go_on(error, fruitful=self._chain.sequence > before)
                if (await self._go_back()).final:
                    return  # it was the way home that failed

    async def close(self) -> None:
        """Stop threads and tasks; harmless twice."""
        try:
            await self._copy.abandon()
        finally:
            await self._progress.close()
            await asyncio.to_thread(self._pipeline.stop)

    async def _use_one_cartridge(self) -> bool:
        """Mount a cartridge of the pool and write until it is full; True when the set is finished."""
        equipment, context = self._equipment, self._context
        await context.phase(BackupPhase.GET_CARTRIDGE)
        async with equipment.manager.mount(
            self._request.library, pool=self._request.pool, purpose=Purpose.WRITE, context=context
        ) as mounted:
            await equipment.manager.position_for_append(mounted)
            if await self._take_over():
                await context.phase(BackupPhase.UNLOAD)
                return True
            await self._copy.start()
            self._progress.mounted(mounted.cartridge, self._chain.stored_bytes)
            await context.phase(BackupPhase.WRITE, cartridge=mounted.cartridge.barcode)
            try:
                boundary = await self._write(mounted)
            except EndOfMedium as error:
                await self._check_used(mounted.cartridge, error)
                raise
            finally:
                self._progress.unmounted()
            if boundary is Boundary.FINISHED:
                await context.phase(BackupPhase.UNLOAD)
        if boundary is Boundary.CANCELLED:
            await self._copy.finish()  # it has what it takes for the same commit point
            raise JobCancelled(job=context.job_id)
        return boundary is Boundary.FINISHED

    async def _write(self, mounted: MountedCartridge) -> Boundary:
        """Write to one cartridge and enter each commit point in the ledger as soon as it is on the medium."""
        equipment, context = self._equipment, self._context
        cartridge = mounted.cartridge
        tape = TapeEnd.of(cartridge)
        writer: SetWriter | None = None
        try:
            writer = await mounted.lane.run(self._open_writer, tape)
            self.begun = True
            while True:
                boundary, written = await mounted.lane.run(
                    write_until_boundary, writer, self._pipeline, context.cancelled, self._progress.stored
                )
                if boundary is Boundary.FINISHED:
                    await context.phase(BackupPhase.RECORD_SET)
                if written is not None:
                    await self._enter(written, writing=boundary is not Boundary.CANCELLED)
                full = boundary is Boundary.CARTRIDGE_FULL
                if full or (written is not None and written.early_warning):
                    await equipment.manager.cartridges.mark_full(cartridge.barcode)
                if full and cartridge.index_block < 0 and not self._commits_on(cartridge.barcode):
                    raise CartridgeTooSmall(barcode=cartridge.barcode)
                if boundary is not Boundary.COMMITTED:
                    return boundary
        finally:
            if writer is not None:
                writer.discard()

    async def _take_over(self) -> bool:
        """Go on behind the newest commit point that the catalog knows, if that is not the one this run works from.

        The append rule has entered what was on the medium and never acknowledged: the answer was lost, or the process
        killed. True when the set is whole with it.
        """
        async with self._equipment.catalog.snapshot() as catalog:
            commits = await catalog.backups.list_commits(set_id=self._set.id)
        if not commits or commits[-1].sequence <= self._chain.sequence:
            return False
        for commit in commits[self._chain.sequence :]:
            await self._context.committed(sequence=commit.sequence, cartridge=commit.barcode)
        return (await self._go_back()).final

    def _open_writer(self, drive: Any, tape: TapeEnd) -> SetWriter:
        return SetWriter(
            drive,
            backup_set=self._set,
            chain=self._chain,
            tape=tape,
            parameters=self._request.parameters,
            spool=self._equipment.spool,
            clock=self._equipment.clock,
            drive_key=self._drive_key(),
            announce=partial(self._equipment.store.announce, self._set.id),
            mirror=self._copy.mirror,
        )

    def _drive_key(self) -> DriveKey | None:
        if self._set.encryption is not Encryption.DRIVE:
            return None
        [key_id] = self._set.keys
        secret = self._equipment.manager.keys.of(self._context.job_id).get(key_id)
        if secret is None:
            raise IdentityNeeded(what=f"set {self._set.id}", keys=key_id)
        return DriveKey(secret, key_id)

    async def _enter(self, written: CommitWritten, *, writing: bool) -> None:
        await self._equipment.ledger.enter(written.commit, written.manifest, written.part, writing=writing)
        self._chain = written.chain
        [part] = self._equipment.store.parts(self._set.id, {written.commit.sequence: written.commit.header_sha256})
        self._copy.committed(written, part)
        await self._context.committed(sequence=written.commit.sequence, cartridge=written.commit.barcode)

    async def _check_used(self, cartridge: Cartridge, error: EndOfMedium) -> None:
        """Stop if no cartridge can ever do."""
        if cartridge.index_block < 0 and not self._commits_on(cartridge.barcode):
            await self._equipment.manager.cartridges.mark_full(cartridge.barcode)
            raise CartridgeTooSmall(barcode=cartridge.barcode) from error

    def _commits_on(self, barcode: str) -> bool:
        return any(link.barcode == barcode for link in self._chain.commits)

    async def _go_back(self) -> Committed:
        """Start the pipeline behind the last commit point; of what is not committed, nothing is used again."""
        self._copy.mirror.tear()
        await asyncio.to_thread(self._pipeline.stop)
        committed, parent, self._before = await self._equipment.sets.read_committed(self._set.id)
        self._chain = committed.chain
        if not committed.final:
            for mount in await asyncio.to_thread(self._check_source, committed):
                detail = "what is not stored yet of the file system that was there is missing in this set"
                await self._context.warning("unmounted", path=mount.path, detail=detail)
            self._pipeline = self._new_pipeline(committed, parent)
            self._pipeline.start()
        return committed

    def _check_source(self, committed: Committed) -> list[Mounted]:
        if committed.resume.after is None:
            return []
        source = self._equipment.open_source(self._request)
        return check_same_source(source, MountTable.from_plain(self._set.mounts), committed.resume.after)

    def _new_pipeline(self, committed: Committed, parent: Sequence[ChainSet]) -> Pipeline:
        source = self._equipment.open_source(self._request)
        if parent:
            source = ChangedSource(
                source,
                parent,
                before=self._before,
                started_ns=self._set.started_ns,
                kept=committed.unlisted,
                stored_firsts=committed.stored_firsts,
            )
        parameters, equipment = self._request.parameters, self._equipment
        make: Callable[..., Pipeline] = FramePipeline
        if parameters.container != STREAM:
            cancelled = self._context.cancelled
            make = partial(ArchivePipeline, spool=equipment.spool, parts=committed.open_parts, cancelled=cancelled)
        return make(
            source,
            parameters,
            workers=equipment.workers,
            resume=committed.resume,
            links=committed.links,
            on_warning=self._warn,
            counters=self._progress.counters,
        )

    def _warn(self, warning: SourceWarning) -> None:
        """Called from the packing thread."""
        self._context.warn(warning.code, path=warning.path, detail=warning.detail)
