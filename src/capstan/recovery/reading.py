"""One pass over the tapes of some sets: mounts what the plans say, in their order, and feeds the assemblers.

A restore does it with a target; a verification does it without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from capstan.core.job import RestorePhase
from capstan.crypto.identities import Identity
from capstan.errors import CartridgeMissing, DeviceError, FormatError, JobCancelled, TransportError
from capstan.jobs.context import JobContext
from capstan.media.manager import MountedCartridge, Purpose, TapeManager
from capstan.recovery.archives import ArchiveSpool
from capstan.recovery.assemble import MemberAssembler, Outcomes
from capstan.recovery.phases import Phases
from capstan.recovery.plan import CartridgeVisit, RestorePlan
from capstan.recovery.report import RecoveryReport
from capstan.recovery.rows import SetTable
from capstan.recovery.selection import Selection
from capstan.recovery.stream import FrameReader, FrameStream
from capstan.recovery.target import RecoveryTarget

_ATTEMPTS = 2  # mounts of one cartridge when the drive fails


class SetReading:
    """Reads one selection of one set. `codec`: its name, without a level. `spool`: where archives are unpacked.

    Use `start`, then `read` or `lose` for each visit of the plan, then `finish`.

    `identities` open what is sealed; with `sealed` it is only proven to be what was written, and no file is looked at.
    `close` ends it at any time; what the target was given stays, and no file is left half written.
    """

    def __init__(
        self,
        table: SetTable,
        selection: Selection,
        plan: RestorePlan,
        *,
        codec: str,
        container: str,
        spool: Path,
        target: RecoveryTarget | None,
        report: RecoveryReport,
        context: JobContext,
        digests: bool = False,
        partial: bool = False,
        outcomes: Outcomes | None = None,
        identities: Sequence[Identity] = (),
        sealed: bool = False,
        on_step: Callable[[RestorePhase], None] = lambda step: None,
    ) -> None:
        self.plan = plan
        self._context = context
        archives = ArchiveSpool(container, spool)
        self._stream = FrameStream("none" if archives.unpacks else codec)
        self._reader = FrameReader(
            table,
            plan,
            self._stream,
            report,
            archives=archives,
            cancelled=context.cancelled,
            digests=digests,
            identities=identities,
            sealed=sealed,
        )
        self._assembler = MemberAssembler(
            selection.rows(),
            target,
            report,
            links=selection.links,
            partial=partial,
            outcomes=outcomes,
            on_step=on_step,
        )
        self._assembling: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Begin to take frames, on a thread of its own."""
        self._assembling = asyncio.ensure_future(asyncio.to_thread(self._assembler.run, self._stream))

    async def read(self, mounted: MountedCartridge, visit: CartridgeVisit) -> None:
        """Read what `visit` says. Raises JobCancelled, and what the drive raises when it fails altogether."""
        complete = await mounted.lane.run(self._reader.read, visit)
        if not complete:
            if self._context.cancelled.is_set():
                raise JobCancelled(job=self._context.job_id)
            await self._assembled()  # it has ended: with an error, which this raises

    async def lose(self, visit: CartridgeVisit, what: str) -> None:
        """Give up what was not read of `visit`: the files that lie there become errors."""
        await asyncio.to_thread(self._reader.lose, visit, what)

    async def finish(self) -> None:
        """Wait until every row has been handled."""
        await asyncio.to_thread(self._stream.end)
        await self._assembled()

    async def close(self) -> None:
        """Let all threads end. Harmless twice, and behind `finish`."""
        await asyncio.to_thread(self._stream.close)
        if self._assembling is not None:
            await asyncio.wait([self._assembling])
            with suppress(Exception, asyncio.CancelledError):
                self._assembling.exception()

    async def _assembled(self) -> None:
        if self._assembling is not None:
            await asyncio.shield(self._assembling)


async def read_sets(
    readings: Sequence[SetReading],
    *,
    manager: TapeManager,
    libraries: Mapping[str, str],
    report: RecoveryReport,
    context: JobContext,
    phases: Phases,
) -> None:
    """Read one set after the other, as their plans say. A cartridge that is missing, or fails twice, is reported and
    costs only its files.

    `libraries` says in which library a barcode is. The manager tells of the phase LOAD.
    """
    async with _Mounts(manager, libraries, context) as mounts:
        for reading in readings:
            reading.start()
            try:
                for visit in reading.plan.visits:
                    await _visit(reading, visit, mounts, report, context, phases)
                await reading.finish()
            finally:
                await reading.close()


async def _visit(
    reading: SetReading,
    visit: CartridgeVisit,
    mounts: _Mounts,
    report: RecoveryReport,
    context: JobContext,
    phases: Phases,
) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        context.check_cancelled()
        await phases.catch_up()
        try:
            mounted = await mounts.mount(visit)
            await phases.enter(RestorePhase.READ, cartridge=visit.barcode)
            await reading.read(mounted, visit)
            return
        except (CartridgeMissing, FormatError, DeviceError, TransportError) as error:
            await mounts.leave(error)
            await context.warning(error.code, detail=str(error))
            if attempt < _ATTEMPTS and isinstance(error, DeviceError | TransportError):
                continue  # another mount may get another drive
            if visit.barcode not in report.missing:
                report.missing.append(visit.barcode)
            await reading.lose(visit, str(error))
            return


class _Mounts:
    """Keeps one cartridge mounted from visit to visit, while it is the same."""

    def __init__(self, manager: TapeManager, libraries: Mapping[str, str], context: JobContext) -> None:
        self._manager = manager
        self._libraries = libraries
        self._context = context
        self._stack = AsyncExitStack()
        self._mounted: MountedCartridge | None = None

    async def mount(self, visit: CartridgeVisit) -> MountedCartridge:
        """CartridgeMissing when it is not there, or is another one by now; what the manager raises."""
        if self._mounted is None or self._mounted.cartridge.uuid != visit.cartridge:
            await self.leave(None)
            library = self._libraries.get(visit.barcode)
            if library is None:
                raise CartridgeMissing(barcodes=visit.barcode)
            self._mounted = await self._stack.enter_async_context(
                self._manager.mount(library, barcode=visit.barcode, purpose=Purpose.READ, context=self._context)
            )
            if self._mounted.cartridge.uuid != visit.cartridge:
                raise CartridgeMissing(barcodes=f"{visit.barcode} (it was labelled anew)")
        return self._mounted

    async def leave(self, error: BaseException | None) -> None:
        """Bring the cartridge home. That it does not go there has been told by the manager, and costs no file."""
        stack, self._stack, self._mounted = self._stack, AsyncExitStack(), None
        with suppress(DeviceError, TransportError, FormatError, CartridgeMissing):
            await stack.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)

    async def __aenter__(self) -> _Mounts:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.leave(error)
