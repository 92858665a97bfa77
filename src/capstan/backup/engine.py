"""Runs one backup: from a request to a set that is whole on tape and known to the catalog.

The engine decides; it never touches a drive. What it keeps between two cartridges, and falls back to when a cartridge
fails, is one value: the last commit point (`_Committed`). Going back is starting the pipeline there again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capstan.backup.estimate import SizeEstimate
from capstan.backup.pipeline import FramePipeline, PackCounters
from capstan.backup.request import BackupRequest
from capstan.backup.session import Boundary, StoredBytes, write_until_boundary
from capstan.backup.source import BackupSource, SourceWarning
from capstan.catalog.catalog import Catalog
from capstan.clock import Clock
from capstan.core.backup import BackupSet, SetState, SetType
from capstan.core.files import display_path
from capstan.core.ids import new_uuid
from capstan.core.job import BackupPhase
from capstan.core.media import CartridgeState
from capstan.errors import CapstanError, CartridgeTooSmall, DeviceError, JobCancelled, Remedy, TransportError
from capstan.format.frames import ResumePoint
from capstan.format.writer import CommitWritten, SetChain, SetWriter, TapeEnd
from capstan.jobs.runner import JobContext
from capstan.media.ledger import Ledger
from capstan.media.manager import MountedCartridge, Purpose, TapeManager

_FRUITLESS = 3  # mounts in a row that may fail without one commit point between them
_LONG = 5.0  # seconds after which a backup is worth an estimate
_TICK = 0.5  # seconds between two looks at the counters

SourceFactory = Callable[[BackupRequest], BackupSource]


@dataclass(slots=True)
class _Committed:
    """The last commit point of the set in hand."""

    chain: SetChain = field(default_factory=SetChain)
    resume: ResumePoint = field(default_factory=ResumePoint)


class BackupEngine:
    """One for a process; `run` may be called for several jobs at once."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        manager: TapeManager,
        ledger: Ledger,
        clock: Clock,
        spool: Path,
        host: str,
        workers: int,
        open_source: SourceFactory,
    ) -> None:
        self._catalog = catalog
        self._manager = manager
        self._ledger = ledger
        self._clock = clock
        self._spool = spool
        self._host = host
        self._workers = workers
        self._open_source = open_source

    async def run(self, request: BackupRequest, context: JobContext) -> dict[str, Any]:
        """Back up and return the result object of the command line.

        On an error or a cancel the set stays as INCOMPLETE with what was committed, and the error goes on up. A set
        that no cartridge was ever opened for is not kept.
        """
        began = self._clock.monotonic()
        await context.phase(BackupPhase.CREATE)
        source = self._open_source(request)
        backup_set = await self._create_set(request, context)
        await context.phase(BackupPhase.ACCEPT, set_id=backup_set.id)
        work = _Work(self, request, context, source, backup_set)
        try:
            await work.run()
        except BaseException:
            await self._close_set(backup_set.id, begun=work.begun)
            raise
        finally:
            await work.close()
        async with self._catalog.snapshot() as catalog:
            finished = await catalog.backups.get(backup_set.id)
        return {
            "set_id": finished.id,
            "name": finished.name,
            "type": finished.type.value,
            "state": finished.state.value,
            "files": finished.files,
            "bytes": finished.bytes,
            "stored_bytes": finished.stored_bytes,
            "cartridges": finished.cartridges,
            "warnings": finished.warning_count,
            "seconds": round(self._clock.monotonic() - began, 3),
        }

    async def _create_set(self, request: BackupRequest, context: JobContext) -> BackupSet:
        async with self._catalog.transaction() as catalog:
            backup_set = BackupSet(
                id=new_uuid(),
                number=await catalog.backups.next_number(),
                name=request.name,
                type=SetType.FULL,
                state=SetState.WRITING,
                created_at=self._clock.now(),
                sources=[display_path(path) for path in request.sources],
                job_id=context.job_id,
                host=self._host,
                pool=request.pool,
                codec=f"{request.parameters.codec}:{request.parameters.level}",
            )
            await catalog.backups.add(backup_set)
        await context.set_created(backup_set.id)
        return backup_set

    async def _close_set(self, set_id: str, *, begun: bool) -> None:
        """A set that ended early is INCOMPLETE from now on; what it committed restores. `begun`: something of it may be
        on tape, so the catalog must go on knowing it for its own."""
        with suppress(CapstanError):
            async with self._catalog.transaction() as catalog:
                backup_set = await catalog.backups.get(set_id)
                if not begun:
                    await catalog.backups.remove(set_id)
                elif backup_set.state is SetState.WRITING:
                    backup_set.state = SetState.INCOMPLETE
                    await catalog.backups.save(backup_set)


class _Work:
    """The moving parts of one run."""

    def __init__(
        self,
        engine: BackupEngine,
        request: BackupRequest,
        context: JobContext,
        source: BackupSource,
        backup_set: BackupSet,
    ) -> None:
        self._engine = engine
        self._request = request
        self._context = context
        self._source = source
        self._set = backup_set
        self.begun = False  # a tape may have something of the set
        self._committed = _Committed()
        self._counters = PackCounters()
        self._stored = StoredBytes()
        self._pipeline = self._new_pipeline()
        self._previous: BackupSet | None = None
        self._estimate = SizeEstimate(engine._open_source(request))
        self._mounted: MountedCartridge | None = None
        self._attempted: CommitWritten | None = None
        self._ticker: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """All phases from SCAN to UNLOAD."""
        context = self._context
        async with self._engine._catalog.snapshot() as catalog:
            self._previous = await catalog.backups.latest(self._request.name)
        await context.phase(BackupPhase.SCAN)
        self._ticker = asyncio.create_task(self._tick())
        self._pipeline.start()
        await asyncio.to_thread(self._pipeline.wait_first)
        await context.phase(BackupPhase.COMPRESS)
        fruitless = 0
        while True:
            before = self._committed.chain.sequence
            try:
                if await self._use_one_cartridge():
                    return
            except (DeviceError, TransportError) as error:
                if error.remedy not in (Remedy.NEW_CARTRIDGE, Remedy.REPOSITION):
                    raise
                fruitless = 0 if self._committed.chain.sequence > before else fruitless + 1
                if fruitless >= _FRUITLESS:
                    raise
                await context.warning("cartridge-failed", detail=str(error))
                await self._go_back()

    async def close(self) -> None:
        """Stop threads and tasks; harmless twice."""
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker
        await asyncio.to_thread(self._estimate.stop)
        await asyncio.to_thread(self._pipeline.stop)

    async def _use_one_cartridge(self) -> bool:
        """Mount a cartridge of the pool and write until it is full; True when the set is finished."""
        engine, context = self._engine, self._context
        await context.phase(BackupPhase.GET_CARTRIDGE)
        async with engine._manager.mount(
            self._request.library, pool=self._request.pool, purpose=Purpose.WRITE, context=context
        ) as mounted:
            await engine._manager.position_for_append(mounted)
            if await self._take_over() is Boundary.FINISHED:
                await context.phase(BackupPhase.UNLOAD)
                return True
            self._mounted = mounted
            await context.phase(BackupPhase.WRITE, cartridge=mounted.cartridge.barcode)
            try:
                boundary = await self._write(mounted)
            except (DeviceError, TransportError) as error:
                await self._mark_failed(mounted, error)
                raise
            finally:
                self._mounted = None
            if boundary is Boundary.FINISHED:
                await context.phase(BackupPhase.UNLOAD)
        if boundary is Boundary.CANCELLED:
            raise JobCancelled(job=context.job_id)
        return boundary is Boundary.FINISHED

    async def _write(self, mounted: MountedCartridge) -> Boundary:
        """Write to one cartridge and enter each commit point in the ledger as soon as it is on the medium."""
        engine, context = self._engine, self._context
        cartridge = mounted.cartridge
        tape = TapeEnd(
            cartridge=cartridge.uuid,
            barcode=cartridge.barcode,
            record_bytes=cartridge.record_bytes,
            end_block=cartridge.end_block,
            tape_files=cartridge.tape_files,
            index_block=cartridge.index_block,
            index_sha256=cartridge.index_sha256,
        )
        writer: SetWriter | None = None
        try:
            writer = await mounted.lane.run(self._open_writer, tape)
            self.begun = True
            while True:
                boundary, written = await mounted.lane.run(
                    write_until_boundary, writer, self._pipeline, context.cancelled, self._stored
                )
                if boundary is Boundary.FINISHED:
                    await context.phase(BackupPhase.RECORD_SET)
                await self._enter(written, writing=boundary is not Boundary.CANCELLED)
                if written.early_warning:
                    await engine._manager.mark(
                        cartridge.barcode, CartridgeState.FULL, "the end of the tape was reached"
                    )
                if boundary is not Boundary.COMMITTED:
                    return boundary
        finally:
            if writer is not None:
                self._attempted = writer.attempted
                writer.discard()

    async def _take_over(self) -> Boundary | None:
        """If the commit whose answer was lost turns out to be on the medium (the append rule has entered it then), go
        on from there instead of writing it again."""
        attempted, self._attempted = self._attempted, None
        if attempted is None:
            return None
        async with self._engine._catalog.snapshot() as catalog:
            commits = await catalog.backups.list_commits(set_id=self._set.id)
        if all(commit.header_sha256 != attempted.commit.header_sha256 for commit in commits):
            return None
        self._committed = _Committed(attempted.chain, attempted.resume)
        await self._context.committed(sequence=attempted.commit.sequence, cartridge=attempted.commit.barcode)
        if attempted.commit.final:
            return Boundary.FINISHED
        await self._go_back()
        return Boundary.COMMITTED

    def _open_writer(self, drive: Any, tape: TapeEnd) -> SetWriter:
        return SetWriter(
            drive,
            backup_set=self._set,
            chain=self._committed.chain,
            tape=tape,
            parameters=self._request.parameters,
            spool=self._engine._spool,
            clock=self._engine._clock,
        )

    async def _enter(self, written: CommitWritten, *, writing: bool) -> None:
        await self._engine._ledger.enter(written.commit, written.manifest, written.part, writing=writing)
        self._committed = _Committed(written.chain, written.resume)
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
        return any(link.barcode == barcode for link in self._committed.chain.commits)

    async def _go_back(self) -> None:
        """Start the pipeline again behind the last commit point."""
        await asyncio.to_thread(self._pipeline.stop)
        self._pipeline = self._new_pipeline()
        self._pipeline.start()

    def _new_pipeline(self) -> FramePipeline:
        return FramePipeline(
            self._source,
            self._request.parameters,
            workers=self._engine._workers,
            resume=self._committed.resume,
            on_warning=self._warn,
            counters=self._counters,
        )

    async def _tick(self) -> None:
        """Tell progress while the threads work."""
        clock, began = self._engine._clock, self._engine._clock.monotonic()
        estimating = False
        while True:
            await asyncio.sleep(_TICK)
            seconds = max(clock.monotonic() - began, 1e-6)
            if seconds >= _LONG and not estimating:
                estimating = True
                self._estimate.start()
            counters, total = self._counters, self._total_bytes()
            rate = counters.bytes / seconds
            mounted = self._mounted
            await self._context.progress(
                files=counters.files,
                bytes=counters.bytes,
                stored_bytes=self._stored.value,
                rate=round(rate),
                current=display_path(counters.current),
                total_bytes=total,
                seconds_left=round(max(total - counters.bytes, 0) / rate) if total and rate else None,
                cartridge=mounted.cartridge.barcode if mounted else None,
                tape_fill=_fill(mounted, self._stored.value - self._committed.chain.stored_bytes),
            )

    def _total_bytes(self) -> int | None:
        """What was counted, or until then what the series' last set held."""
        if self._estimate.total_bytes is not None:
            return self._estimate.total_bytes
        return self._previous.bytes if self._previous else None

    def _warn(self, warning: SourceWarning) -> None:
        """Called from the packing thread."""
        self._context.warn(warning.code, path=warning.path, detail=warning.detail)


def _fill(mounted: MountedCartridge | None, uncommitted: int) -> float | None:
    """How full the cartridge is, from 0 to 1."""
    if mounted is None or not mounted.cartridge.capacity_bytes:
        return None
    return round(min((mounted.cartridge.written_bytes + uncommitted) / mounted.cartridge.capacity_bytes, 1.0), 3)
