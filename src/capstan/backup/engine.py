"""Runs one backup: from a request to a set that is whole on tape and known to the catalog.

The engine decides; it never touches a drive. There is one way of going back, whatever happened: `backup.resume` derives
from catalog and file index how far the set is committed, and the pipeline starts there. A job that is resumed begins
with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from capstan.backup.archive_pipeline import ArchivePipeline
from capstan.backup.changes import ChangedSource
from capstan.backup.continuity import check_same_source
from capstan.backup.estimate import SizeEstimate
from capstan.backup.pipeline import FramePipeline, Pipeline
from capstan.backup.progress import BackupProgress
from capstan.backup.register import SetRegister
from capstan.backup.request import BackupRequest
from capstan.backup.resume import Committed
from capstan.backup.session import Boundary, write_until_boundary
from capstan.backup.source import BackupSource, SourceWarning
from capstan.catalog.catalog import Catalog
from capstan.clock import Clock
from capstan.core.backup import BackupSet, Encryption, SetState
from capstan.core.job import BackupPhase
from capstan.core.media import CartridgeState
from capstan.core.mounts import Mounted, MountTable
from capstan.crypto.identities import DriveKey, Identity
from capstan.errors import (
    CapstanError,
    CartridgeTooSmall,
    DeviceError,
    IdentityNeeded,
    JobCancelled,
    Remedy,
    TransportError,
)
from capstan.fileindex.chain import ChainSet
from capstan.fileindex.store import FileIndexStore
from capstan.format.containers import STREAM
from capstan.format.writer import CommitWritten, SetChain, SetWriter, TapeEnd
from capstan.jobs.runner import JobContext
from capstan.media.ledger import Ledger
from capstan.media.manager import MountedCartridge, Purpose, TapeManager

_FRUITLESS = 3  # mounts in a row that may fail without one commit point between them


SourceFactory = Callable[[BackupRequest], BackupSource]


class BackupEngine:
    """One for a process; `run` may be called for several jobs at once."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        manager: TapeManager,
        ledger: Ledger,
        store: FileIndexStore,
        clock: Clock,
        spool: Path,
        host: str,
        workers: int,
        chain_limit: int,
        open_source: SourceFactory,
        proven_keys: Callable[[], set[str]] = set,
    ) -> None:
        self._catalog = catalog
        self._manager = manager
        self._ledger = ledger
        self._clock = clock
        self._store = store
        self._spool = spool
        self._workers = workers
        self._open_source = open_source
        self._sets = SetRegister(
            catalog, store, clock, host=host, chain_limit=chain_limit, proven_keys=proven_keys, drive_keys=manager.keys
        )

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
        began = self._clock.monotonic()
        work = _Work(self, request, context, backup_set, resumed=resumed)
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
        return _result(finished, self._clock.monotonic() - began)


class _Work:
    """The moving parts of one run."""

    def __init__(
        self,
        engine: BackupEngine,
        request: BackupRequest,
        context: JobContext,
        backup_set: BackupSet,
        *,
        resumed: bool,
    ) -> None:
        self._engine = engine
        self._request = request
        self._context = context
        self._set = backup_set
        self.begun = resumed  # a tape may have something of the set
        self._chain = SetChain()
        self._before = MountTable()
        # What of the source has changed cannot be counted beforehand.
        estimate = None if backup_set.parent_id else SizeEstimate(engine._open_source(request))
        self._progress = BackupProgress(context, engine._clock, estimate)
        self._pipeline = self._new_pipeline(Committed(), [])

    async def run(self) -> None:
        """All phases from SCAN to UNLOAD."""
        context, progress = self._context, self._progress
        async with self._engine._catalog.snapshot() as catalog:
            previous = await catalog.backups.latest(self._request.name)
        await context.phase(BackupPhase.SCAN)
        committed = await self._go_back()
        like = previous is not None and previous.type is self._set.type
        progress.start(
            expected=previous.bytes if previous and like else None, bytes_before=committed.resume.totals.bytes
        )
        await asyncio.to_thread(self._pipeline.wait_first)
        await context.phase(BackupPhase.COMPRESS)
        fruitless = 0
        while True:
            before = self._chain.sequence
            try:
                if await self._use_one_cartridge():
                    return
            except (DeviceError, TransportError) as error:
                if error.remedy not in (Remedy.NEW_CARTRIDGE, Remedy.REPOSITION):
                    raise
                fruitless = 0 if self._chain.sequence > before else fruitless + 1
                if fruitless >= _FRUITLESS:
                    raise
                await context.warning("cartridge-failed", detail=str(error))
                if (await self._go_back()).final:
                    return  # it was the way home that failed

    async def close(self) -> None:
        """Stop threads and tasks; harmless twice."""
        await self._progress.close()
        await asyncio.to_thread(self._pipeline.stop)

    async def _use_one_cartridge(self) -> bool:
        """Mount a cartridge of the pool and write until it is full; True when the set is finished."""
        engine, context = self._engine, self._context
        await context.phase(BackupPhase.GET_CARTRIDGE)
        async with engine._manager.mount(
            self._request.library, pool=self._request.pool, purpose=Purpose.WRITE, context=context
        ) as mounted:
            await engine._manager.position_for_append(mounted)
            if await self._take_over():
                await context.phase(BackupPhase.UNLOAD)
                return True
            self._progress.mounted(mounted.cartridge, self._chain.stored_bytes)
            await context.phase(BackupPhase.WRITE, cartridge=mounted.cartridge.barcode)
            try:
                boundary = await self._write(mounted)
            except (DeviceError, TransportError) as error:
                await self._mark_failed(mounted, error)
                raise
            finally:
                self._progress.unmounted()
            if boundary is Boundary.FINISHED:
                await context.phase(BackupPhase.UNLOAD)
        if boundary is Boundary.CANCELLED:
            raise JobCancelled(job=context.job_id)
        return boundary is Boundary.FINISHED

    async def _write(self, mounted: MountedCartridge) -> Boundary:
        """Write to one cartridge and enter each commit point in the ledger as soon as it is on the medium."""
        engine, context = self._engine, self._context
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
                    await engine._manager.mark(
                        cartridge.barcode, CartridgeState.FULL, "the end of the tape was reached"
                    )
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
        async with self._engine._catalog.snapshot() as catalog:
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
            spool=self._engine._spool,
            clock=self._engine._clock,
            drive_key=self._drive_key(),
            announce=partial(self._engine._store.announce, self._set.id),
        )

    def _drive_key(self) -> DriveKey | None:
        if self._set.encryption is not Encryption.DRIVE:
            return None
        [key_id] = self._set.keys
        secret = self._engine._manager.keys.of(self._context.job_id).get(key_id)
        if secret is None:
            raise IdentityNeeded(what=f"set {self._set.id}", keys=key_id)
        return DriveKey(secret, key_id)

    async def _enter(self, written: CommitWritten, *, writing: bool) -> None:
        await self._engine._ledger.enter(written.commit, written.manifest, written.part, writing=writing)
        self._chain = written.chain
        await self._context.committed(sequence=written.commit.sequence, cartridge=written.commit.barcode)

    async def _mark_failed(self, mounted: MountedCartridge, error: CapstanError) -> None:
        """Keep a cartridge that failed from being chosen again, and stop if none can ever do."""
        manager, cartridge = self._engine._manager, mounted.cartridge
        if error.remedy is not Remedy.NEW_CARTRIDGE:
            return
        if error.code == "end-of-medium":
            await manager.mark(cartridge.barcode, CartridgeState.FULL, "the end of the tape was reached")
            if mounted.cartridge.index_block < 0 and not self._commits_on(cartridge.barcode):
                raise CartridgeTooSmall(barcode=cartridge.barcode) from error
        else:
            await manager.mark(cartridge.barcode, CartridgeState.SUSPECT, str(error))

    def _commits_on(self, barcode: str) -> bool:
        return any(link.barcode == barcode for link in self._chain.commits)

    async def _go_back(self) -> Committed:
        """Start the pipeline behind the last commit point; of what is not committed, nothing is used again."""
        await asyncio.to_thread(self._pipeline.stop)
        committed, parent, self._before = await self._engine._sets.read_committed(self._set.id)
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
        source = self._engine._open_source(self._request)
        return check_same_source(source, MountTable.from_plain(self._set.mounts), committed.resume.after)

    def _new_pipeline(self, committed: Committed, parent: Sequence[ChainSet]) -> Pipeline:
        source = self._engine._open_source(self._request)
        if parent:
            source = ChangedSource(
                source,
                parent,
                before=self._before,
                started_ns=self._set.started_ns,
                kept=committed.unlisted,
                stored_firsts=committed.stored_firsts,
            )
        parameters, engine = self._request.parameters, self._engine
        make: Callable[..., Pipeline] = FramePipeline
        if parameters.container != STREAM:
            cancelled = self._context.cancelled
            make = partial(ArchivePipeline, spool=engine._spool, parts=committed.open_parts, cancelled=cancelled)
        return make(
            source,
            parameters,
            workers=engine._workers,
            resume=committed.resume,
            links=committed.links,
            on_warning=self._warn,
            counters=self._progress.counters,
        )

    def _warn(self, warning: SourceWarning) -> None:
        """Called from the packing thread."""
        self._context.warn(warning.code, path=warning.path, detail=warning.detail)


def _result(backup_set: BackupSet, seconds: float) -> dict[str, Any]:
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
        "seconds": round(seconds, 3),
    }
