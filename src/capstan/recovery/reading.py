"""One pass over the tapes of some sets: mounts what the plans say, in their order, and feeds the assemblers.

A restore does it with a target; a verification does it without.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from capstan.core.backup import Segment
from capstan.core.job import RestorePhase
from capstan.core.media import CartridgeState
from capstan.crypto.identities import Identity
from capstan.errors import (
    CapstanError,
    CartridgeMissing,
    Damaged,
    DeviceError,
    FormatError,
    JobCancelled,
    TransportError,
)
from capstan.jobs.context import JobContext
from capstan.media.manager import MountedCartridge, Purpose, TapeManager
from capstan.recovery.archives import ArchiveSpool
from capstan.recovery.assemble import MemberAssembler, Outcomes
from capstan.recovery.copies import CopyChoice, Health
from capstan.recovery.phases import Phases
from capstan.recovery.plan import CartridgeVisit, RestorePlan, plan_again
from capstan.recovery.report import RecoveryReport
from capstan.recovery.rows import SetTable
from capstan.recovery.selection import Selection
from capstan.recovery.stream import FrameReader, FrameStream, Spoilt
from capstan.recovery.target import RecoveryTarget

_ATTEMPTS = 2  # mounts of one cartridge when the drive fails


class SetReading:
    """Reads one selection of one set. `codec`: its name, without a level. `spool`: where archives are unpacked.

    Use `start`, then `read` or `lose` for each `next_visit`, then `finish`.

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
        choice: CopyChoice | None = None,
        on_step: Callable[[RestorePhase], None] = lambda step: None,
    ) -> None:
        self.choice = choice or CopyChoice(table.places, Health())
        self._table = table
        self._plan = plan
        self._visits = deque(plan.visits)
        self._learnt = 0
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
            choice=self.choice,
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

    async def next_visit(self) -> CartridgeVisit | None:
        """What is to be read next, by what is known of the cartridges now; None when all was read or lost."""
        if self._learnt != self.choice.health.changes:
            self._learnt = self.choice.health.changes
            self._visits = deque(await asyncio.to_thread(self._plan_again))
        return self._visits[0] if self._visits else None

    def _plan_again(self) -> list[CartridgeVisit]:
        first = self._reader.next_ordinal
        if first is None:
            return []
        needed = self._plan.frames
        frames = ((n, place) for n, place in enumerate(self._table.frames()) if n >= first and n in needed)
        return plan_again(frames, self.choice.segments(first))

    def has_other(self, visit: CartridgeVisit) -> bool:
        """Whether anything of `visit` that was not read may be read from another copy."""
        first = self._reader.next_ordinal
        if first is None:
            return False
        return any(self.choice.has_other(run.segment, first) for run in visit.runs if run.last_frame >= first)

    async def read(self, mounted: MountedCartridge, visit: CartridgeVisit) -> Spoilt | None:
        """Read what `visit` says; what ended it early, if another copy may have the rest: then plan again. Raises
        JobCancelled, and what the drive raises when it fails altogether."""
        complete = await mounted.lane.run(self._reader.read, visit)
        if complete:
            self._leave(visit)
        elif self._reader.spoilt is not None:
            self._learnt = -1
        else:
            if self._context.cancelled.is_set():
                raise JobCancelled(job=self._context.job_id)
            await self._assembled()  # it has ended: with an error, which this raises
            self._leave(visit)
        return self._reader.spoilt

    async def lose(self, visit: CartridgeVisit, what: str) -> None:
        """Give up what was not read of `visit`: the files that lie there become errors."""
        await asyncio.to_thread(self._reader.lose, visit, what)
        self._leave(visit)

    def _leave(self, visit: CartridgeVisit) -> None:
        if self._visits and self._visits[0] is visit:
            self._visits.popleft()

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
    """Read one set after the other, as their plans say. What cannot be read from one copy is read from another; a
    cartridge that is missing, or fails twice, is reported and costs only those files that no other has.

    `libraries` says in which library a barcode is. The manager tells of the phase LOAD.
    """
    async with Mounts(manager, libraries, context) as mounts:
        for reading in readings:
            reading.start()
            try:
                while (visit := await reading.next_visit()) is not None:
                    await _visit(reading, visit, mounts, report, context, phases)
                await reading.finish()
            finally:
                await reading.close()


async def _visit(
    reading: SetReading,
    visit: CartridgeVisit,
    mounts: Mounts,
    report: RecoveryReport,
    context: JobContext,
    phases: Phases,
) -> None:
    why = reading.choice.health.dead.get(visit.cartridge)
    if why is not None:
        await _lose(reading, visit, why, report)
        return
    for attempt in range(1, _ATTEMPTS + 1):
        context.check_cancelled()
        await phases.catch_up()
        try:
            mounted = await mounts.mount(visit)
            await phases.enter(RestorePhase.READ, cartridge=visit.barcode)
            spoilt = await reading.read(mounted, visit)
            if spoilt is not None:
                await mounts.doubt(reading.choice, spoilt)
            return
        except (CartridgeMissing, FormatError, DeviceError, TransportError) as error:
            await mounts.leave(error)
            await context.warning(error.code, detail=str(error))
            if attempt < _ATTEMPTS and isinstance(error, DeviceError | TransportError):
                continue  # another mount may get another drive
            if reading.has_other(visit):
                await mounts.bury(reading.choice, visit, error)
                return
            await _lose(reading, visit, str(error), report)
            return


async def _lose(reading: SetReading, visit: CartridgeVisit, why: str, report: RecoveryReport) -> None:
    if visit.barcode not in report.missing:
        report.missing.append(visit.barcode)
    await reading.lose(visit, why)


class Mounts:
    """Keeps one cartridge mounted from visit to visit, while it is the same; notes which cannot be read."""

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

    async def doubt(self, choice: CopyChoice, spoilt: Spoilt) -> None:
        """A place of a segment could not be read, and another is tried: its cartridge is suspect from now on."""
        segment, trouble = spoilt.segment, spoilt.trouble
        news = choice.fail(segment, spoilt.ordinal)
        other = choice.best(segment.number, spoilt.ordinal)
        place = f"block {trouble.block}: {trouble.what}"
        detail = f"{trouble.barcode}, {place}; segment {segment.number} of set {segment.set_id[:8]} is read on"
        await self._context.warning("other-copy", detail=f"{detail} from {other.barcode} ({_name(other)})")
        if news and self._mounted is not None:
            await self._manager.health.damaged(self._mounted.load, place)
            await self._context.tell("cartridge.suspect", cartridge=trouble.barcode, reason=place)

    async def bury(self, choice: CopyChoice, visit: CartridgeVisit, error: CapstanError) -> None:
        """A cartridge cannot be read at all, and another copy has something of what was to be read."""
        choice.health.bury(visit.cartridge, str(error))
        detail = f"{visit.barcode} cannot be read; what other copies have is read from there"
        await self._context.warning("other-copy", detail=detail)
        if isinstance(error, Damaged):
            holds_sets = (CartridgeState.AVAILABLE, CartridgeState.FULL)
            await self._manager.cartridges.mark(visit.barcode, CartridgeState.SUSPECT, str(error), was=holds_sets)
            await self._context.tell("cartridge.suspect", cartridge=visit.barcode, reason=str(error))

    async def __aenter__(self) -> Mounts:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self.leave(error)


def _name(segment: Segment) -> str:
    return f"copy {segment.copy}" if segment.copy else "the original"
