"""One run of a copy: mounts, moves segments, writes commit points, until nothing is lacking that can be read.

With two free drives segments go from drive to drive. With one they go through the spool, as many at a time as half of
what is free there can hold.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from capstan.catalog.catalog import Catalog
from capstan.clock import Clock
from capstan.core.backup import BackupSet
from capstan.errors import (
    CapstanError,
    CartridgeTooSmall,
    DeviceError,
    EndOfMedium,
    NoDriveAvailable,
    TransportError,
)
from capstan.fileindex.store import FileIndexStore
from capstan.format.copy_writer import Copied, CopyWriter
from capstan.format.writer import TapeEnd
from capstan.jobs.context import JobContext
from capstan.media.attempts import Attempts
from capstan.media.ledger import Ledger
from capstan.media.manager import MountedCartridge, Purpose, TapeManager
from capstan.recovery.copy_source import CopySource
from capstan.recovery.copy_work import CopyWork, IntervalWork, kept_checksums, look_for_work
from capstan.recovery.engine import stopwatch, ticking
from capstan.tape.drive import TapeDrive


class CopyRun:
    """`segments` and `bytes` count what was copied; `lost` has what can be read nowhere, with why, by number."""

    def __init__(
        self,
        backup_set: BackupSet,
        context: JobContext,
        *,
        catalog: Catalog,
        manager: TapeManager,
        ledger: Ledger,
        store: FileIndexStore,
        clock: Clock,
        spool: Path,
        library: str,
        pool: str,
    ) -> None:
        self.segments = 0
        self.bytes = 0
        self._set = backup_set
        self._context = context
        self._catalog = catalog
        self._manager = manager
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._spool = spool
        self._library = library
        self._pool = pool
        self._commits = 0
        self._total = 0
        self._elapsed = stopwatch(clock)
        self._source = CopySource(manager, context, spool, library)

    @property
    def lost(self) -> dict[int, str]:
        return self._source.lost

    async def run(self) -> None:
        """Errors as of `CopyEngine.run`."""
        work = await self._look()
        self._total = work.lacking_bytes
        attempts = Attempts(self._context)
        async with ticking(self._tick):
            while work.intervals:
                self._context.check_cancelled()
                before = self._commits
                try:
                    await self._use_one_cartridge(work)
                except CapstanError as error:
                    await attempts.go_on(error, fruitful=self._commits > before)
                work = await self._look()

    async def close(self) -> None:
        """Bring the source's cartridge home. Harmless twice."""
        await self._source.leave()

    async def _look(self) -> CopyWork:
        """What is lacking, and can be read as far as is known."""
        async with self._catalog.snapshot() as catalog:
            work = await look_for_work(catalog, self._store, self._set, self._pool)
        await self._source.know(work)
        return self._source.without_lost(work)

    async def _use_one_cartridge(self, work: CopyWork) -> None:
        """Mount a cartridge of the pool, and write to it until it is full, or all is copied, or the spool is empty."""
        if self._source.spooling:
            await self._source.fill_spool(work.lacking)
        async with self._manager.mount(
            self._library, pool=self._pool, purpose=Purpose.WRITE, context=self._context, avoid=work.avoid
        ) as mounted:
            if not self._source.spooling:
                try:
                    await self._source.open_first(work.lacking)
                except NoDriveAvailable:
                    self._source.spooling = True  # there is no second drive: come again with the spool filled
                    return
            await self._manager.position_for_append(mounted)
            work = await self._look()  # the append rule may have taken in what a killed process wrote
            await self._context.phase("write", cartridge=mounted.cartridge.barcode)
            try:
                await self._write(mounted, work)
            except EndOfMedium as error:
                await self._check_used(mounted.cartridge.barcode, error)
                raise

    async def _write(self, mounted: MountedCartridge, work: CopyWork) -> None:
        cartridge = mounted.cartridge
        tape = TapeEnd.of(cartridge)
        before = self._commits
        writer = await mounted.lane.run(self._open_writer, tape, work)
        try:
            for interval in work.intervals:
                if not await self._write_interval(mounted, writer, interval):
                    break
        finally:
            writer.discard()
        if writer.early_warning:
            await self._manager.cartridges.mark_full(cartridge.barcode)
            if cartridge.index_block < 0 and self._commits == before:
                raise CartridgeTooSmall(barcode=cartridge.barcode)

    async def _write_interval(self, mounted: MountedCartridge, writer: CopyWriter, work: IntervalWork) -> bool:
        """Write what is lacking of an interval, and its INDEX; whether to go on with the next one."""
        known = work.known.get(mounted.cartridge.uuid)
        kept = kept_checksums(self._store, known) if known else b""
        writer.begin_interval(known.segments if known else (), kept)
        ended = True
        stopped: CapstanError | None = None
        for segment in work.segments:
            try:
                self._context.check_cancelled()
                copied = await self._source.copy(segment, mounted.lane, writer)
            except (DeviceError, TransportError):
                raise  # of the drive that is written with
            except CapstanError as error:
                ended, stopped = False, error
                break
            if copied is Copied.WHOLE:
                self.segments += 1
                self.bytes += segment.payload_bytes
            elif segment.number not in self.lost:
                ended = False  # the cartridge is full, the spool is empty, or the job is cancelled
                break
            if writer.early_warning:
                ended = segment is work.segments[-1]
                break
        if writer.uncommitted or (ended and work.without_index):
            written = await mounted.lane.run(_commit, writer, work)
            await self._ledger.enter_copy(written)
            self._commits += 1
            await self._context.committed(sequence=written.commit.sequence, cartridge=written.commit.barcode)
        if stopped is not None:
            raise stopped
        self._context.check_cancelled()
        return ended and not writer.early_warning

    def _open_writer(self, drive: TapeDrive, tape: TapeEnd, work: CopyWork) -> CopyWriter:
        return CopyWriter(
            drive,
            backup_set=work.backup_set,
            copy=work.copy,
            links=work.links,
            tape=tape,
            spool=self._spool,
            clock=self._clock,
            announce=partial(self._store.announce, self._set.id),
        )

    async def _check_used(self, barcode: str, error: EndOfMedium) -> None:
        """Stop if no cartridge can ever do."""
        await self._manager.cartridges.mark_full(barcode)
        async with self._catalog.snapshot() as catalog:
            if (await catalog.media.get(barcode)).index_block < 0:
                raise CartridgeTooSmall(barcode=barcode) from error

    async def _tick(self) -> None:
        seconds, done = max(self._elapsed(), 1e-6), self.bytes
        rate = done / seconds
        facts: dict[str, Any] = {
            "segments": self.segments,
            "bytes": done,
            "total_bytes": self._total,
            "rate": round(rate),
            "seconds_left": round((self._total - done) / rate) if rate and self._total > done else None,
        }
        await self._context.progress(**facts)


def _commit(drive: TapeDrive, writer: CopyWriter, work: IntervalWork) -> Any:
    del drive
    return writer.commit(work.interval)
