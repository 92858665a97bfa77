"""One pass over the tapes of a set: mounts what the plan says, in its order, and feeds the assembler.

A restore does it with a target; a verification does it without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from capstan.core.job import RestorePhase
from capstan.errors import CartridgeMissing, DeviceError, FormatError, JobCancelled, TransportError
from capstan.jobs.context import JobContext
from capstan.media.manager import MountedCartridge, Purpose, TapeManager
from capstan.recovery.assemble import MemberAssembler
from capstan.recovery.phases import Phases
from capstan.recovery.plan import CartridgeVisit, RestorePlan
from capstan.recovery.report import RecoveryReport
from capstan.recovery.rows import SetTable
from capstan.recovery.selection import Selection
from capstan.recovery.stream import FrameReader, FrameStream
from capstan.recovery.target import RecoveryTarget

_ATTEMPTS = 2  # mounts of one cartridge when the drive fails


class SetReading:
    """Reads one selection of one set. Use `start`, then `read` or `lose` for each visit of the plan, then `finish`.

    `close` ends it at any time; what the target was given stays, and no file is left half written.
    """

    def __init__(
        self,
        table: SetTable,
        selection: Selection,
        plan: RestorePlan,
        *,
        codec: str,
        target: RecoveryTarget | None,
        report: RecoveryReport,
        context: JobContext,
        digests: bool = False,
        partial: bool = False,
        on_step: Callable[[RestorePhase], None] = lambda step: None,
    ) -> None:
        self._context = context
        self._stream = FrameStream(codec)
        self._reader = FrameReader(table, plan, self._stream, report, cancelled=context.cancelled, digests=digests)
        self._assembler = MemberAssembler(
            selection.rows(), target, report, links=selection.links, partial=partial, on_step=on_step
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


async def visit_cartridges(
    reading: SetReading,
    plan: RestorePlan,
    *,
    manager: TapeManager,
    libraries: Mapping[str, str],
    report: RecoveryReport,
    context: JobContext,
    phases: Phases,
) -> None:
    """Mount and read each cartridge of the plan; one that is missing, or fails twice, is reported and costs only its
    files.

    `libraries` says in which library a barcode is. The manager tells of the phase LOAD.
    """
    for visit in plan.visits:
        for attempt in range(1, _ATTEMPTS + 1):
            context.check_cancelled()
            await phases.catch_up()
            try:
                library = libraries.get(visit.barcode)
                if library is None:
                    raise CartridgeMissing(barcodes=visit.barcode)
                async with manager.mount(
                    library, barcode=visit.barcode, purpose=Purpose.READ, context=context
                ) as mounted:
                    if mounted.cartridge.uuid != visit.cartridge:
                        raise CartridgeMissing(barcodes=f"{visit.barcode} (it was labelled anew)")
                    await phases.enter(RestorePhase.READ, cartridge=visit.barcode)
                    await reading.read(mounted, visit)
                break
            except (CartridgeMissing, FormatError, DeviceError, TransportError) as error:
                await context.warning(error.code, detail=str(error))
                if attempt < _ATTEMPTS and isinstance(error, DeviceError | TransportError):
                    continue  # another mount may get another drive
                if visit.barcode not in report.missing:
                    report.missing.append(visit.barcode)
                await reading.lose(visit, str(error))
                break
