"""Runs one restore: from a request to files whose digests agree.

What can be restored is restored, whatever is damaged or missing beside it; the error comes at the end and carries the
whole result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from capstan.catalog.catalog import Catalog
from capstan.catalog.chains import Shortfall, chain_of, find_shortfall, index_chain
from capstan.clock import Clock
from capstan.core.backup import BackupSet
from capstan.core.files import display_path
from capstan.core.job import RestorePhase
from capstan.core.mounts import MountTable
from capstan.errors import NotFound, TargetError
from capstan.fileindex.store import FileIndexStore
from capstan.jobs.context import JobContext
from capstan.media.manager import TapeManager
from capstan.recovery.assemble import Outcome, Outcomes
from capstan.recovery.earlier import EarlierRun, boot_id
from capstan.recovery.phases import Phases
from capstan.recovery.plan import ChainPlan, RestorePlan
from capstan.recovery.reading import SetReading, read_sets
from capstan.recovery.report import TOLD, Problem, RecoveryReport, counts, raise_if_unsound
from capstan.recovery.rows import SetTable, kept_parts
from capstan.recovery.select import RestoreRequest, Selector, make_selector, resolve_set
from capstan.recovery.selection import RestoredBefore, Selection, select_chain
from capstan.recovery.target import Placement, RecoveryTarget, Tell

_BOOT = "boot"  # in a job's parameters: which run of the machine the restore began in; "": what it wrote may be lost
_TICK = 0.5  # seconds between two looks at the counters


class TargetFactory(Protocol):
    """Opens the target of a restore. `earlier`: the restore goes on where that run ended. `job_id` names its files."""

    def __call__(
        self, request: RestoreRequest, tell: Tell, *, job_id: str, earlier: EarlierRun | None
    ) -> RecoveryTarget: ...


@dataclass(slots=True)
class Piece:
    """What is read of one set."""

    backup_set: BackupSet
    table: SetTable
    selection: Selection
    plan: RestorePlan


@dataclass(slots=True)
class Prepared:
    """A request, looked up and planned. `libraries`: where each cartridge was seen last; `present`:
    barcodes that are there, as far as the catalog knows; `shortfall`: what the set lacks of its time."""

    backup_set: BackupSet
    selector: Selector
    pieces: list[Piece]
    plan: ChainPlan
    libraries: dict[str, str]
    present: set[str]
    shortfall: Shortfall | None = None
    before: RestoredBefore | None = None

    @property
    def files(self) -> int:
        return self.backup_set.files if self._whole_set else sum(piece.selection.files for piece in self.pieces)

    @property
    def content_bytes(self) -> int:
        if self._whole_set:
            return self.backup_set.bytes
        return sum(piece.selection.content_bytes for piece in self.pieces)

    @property
    def _whole_set(self) -> bool:
        return self.selector.everything and len(self.pieces) == 1 and self.before is None

    def readings(self, target: RecoveryTarget | None, report: RecoveryReport, **more: Any) -> list[SetReading]:
        """A reading for each set of the chain."""
        linkable = self.before.linkable if self.before else {}
        outcomes: Outcomes = {path: Outcome(Placement.WRITTEN, file) for path, file in linkable.items()}
        return [
            SetReading(
                piece.table,
                piece.selection,
                piece.plan,
                codec=piece.backup_set.codec.partition(":")[0],
                target=target,
                report=report,
                outcomes=outcomes,
                **more,
            )
            for piece in self.pieces
        ]


async def prepare(
    catalog: Catalog,
    store: FileIndexStore,
    reference: str,
    selector: Selector,
    library: str = "",
    *,
    with_parents: bool = True,
    before: RestoredBefore | None = None,
) -> Prepared:
    """Find the set and what it builds on, read their tables, and plan what was not restored `before`. NotFound when
    nothing is selected; ParentMissing."""
    async with catalog.snapshot() as repositories:
        backup_set = await resolve_set(repositories, reference)
        chain = await chain_of(repositories, backup_set) if with_parents else [backup_set]
        indexes = await index_chain(repositories, store, chain)
        commits = [await repositories.backups.list_commits(set_id=item.id) for item in chain]
        barcodes = dict.fromkeys(barcode for item in chain for barcode in item.cartridges)
        cartridges = [await repositories.media.find(barcode) for barcode in barcodes]
    libraries = {
        found.barcode: found.library or library for found in cartridges if found and (found.library or library)
    }
    present = {found.barcode for found in cartridges if found and found.place}

    def plan() -> list[Piece]:
        tables = [SetTable(kept_parts(store, item.id, of)) for item, of in zip(chain, commits, strict=True)]
        if len(chain) == 1 and before is None:
            selections = [Selection(tables[0], selector)]
        else:
            selections = select_chain(tables, indexes, selector, before)
        return [
            Piece(item, table, selection, selection.plan())
            for item, table, selection in zip(chain, tables, selections, strict=True)
        ]

    pieces = await asyncio.to_thread(plan)
    planned = ChainPlan([piece.plan for piece in pieces])
    shortfall = await asyncio.to_thread(find_shortfall, chain, indexes)
    prepared = Prepared(backup_set, selector, pieces, planned, libraries, present, shortfall, before)
    nothing = not selector.everything and before is None
    if nothing and not prepared.files and not any(piece.plan.frames.count for piece in pieces):
        wanted = " ".join(display_path(path) for path in selector.paths) or " ".join(selector.patterns)
        hint = f"`capstan set files {backup_set.id[:8]}` lists what there is, `capstan find` looks in all sets"
        raise NotFound(what=f"file in set {backup_set.id}", name=wanted, hint=hint)
    return prepared


def stopwatch(clock: Clock) -> Callable[[], float]:
    """Tells the seconds since it was made."""
    began = clock.monotonic()
    return lambda: clock.monotonic() - began


@asynccontextmanager
async def ticking(tick: Callable[[], Any]) -> AsyncIterator[None]:
    """Call `tick` twice a second while the block runs."""

    async def loop() -> None:
        while True:
            await asyncio.sleep(_TICK)
            await tick()

    task = asyncio.create_task(loop())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class RestoreEngine:
    """One for a process; `run` may be called for several jobs at once."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        manager: TapeManager,
        store: FileIndexStore,
        clock: Clock,
        open_target: TargetFactory,
    ) -> None:
        self._catalog = catalog
        self._manager = manager
        self._store = store
        self._clock = clock
        self._open_target = open_target

    async def plan(self, request: RestoreRequest) -> dict[str, Any]:
        """What `run` would do: set, files, bytes, cartridges, what is missing, what is read. Touches no drive."""
        prepared = await self._prepare(request)
        return {
            "set_id": prepared.backup_set.id,
            "files": prepared.files,
            "bytes": prepared.content_bytes,
            **prepared.plan.as_dict(),
            "missing": prepared.plan.missing(prepared.present),
            **({"shortfall": str(prepared.shortfall)} if prepared.shortfall else {}),
        }

    async def run(self, request: RestoreRequest, context: JobContext) -> dict[str, Any]:
        """Restore and return the result object of the command line.

        Raises VerificationFailed (or CartridgeMissing, when nothing else is wrong) after all else was restored, with
        the result in its attribute `result`; JobCancelled; and what ended the restore as a whole.
        """
        context.job.parameters[_BOOT] = boot_id()
        return await self._restore(request, context, None)

    async def resume(self, request: RestoreRequest, context: JobContext) -> dict[str, Any]:
        """Go on with the restore of a job that ended early; result and errors are as of `run`.

        What that run has put into the target is neither read nor written again, unless the machine was restarted since.
        It is the same set, whatever a name in the request means by now.
        """
        job = context.job
        assert job.started_at is not None
        trusted = bool(boot_id()) and job.parameters.get(_BOOT) == boot_id()
        earlier = EarlierRun(int(job.started_at.timestamp() * 1e6) * 1000, trusted)
        return await self._restore(replace(request, reference=job.set_id or request.reference), context, earlier)

    async def _restore(
        self, request: RestoreRequest, context: JobContext, earlier: EarlierRun | None
    ) -> dict[str, Any]:
        elapsed = stopwatch(self._clock)
        phases = Phases(context)
        await phases.enter(RestorePhase.SEARCH)
        report = new_report(context)
        if earlier is None:  # nothing is made in the target for a set that is not there
            prepared = await self._prepare(request)
            target = await self._open(request, report, context, earlier)
        else:
            target = await self._open(request, report, context, earlier)
        try:
            if earlier is not None:
                prepared = await self._prepare(request, RestoredBefore(target.restored))
            await context.set_created(prepared.backup_set.id)
            await phases.enter(RestorePhase.SELECT, files=prepared.files, bytes=prepared.content_bytes)
            await phases.enter(RestorePhase.CREATE)
            await read_prepared(prepared, target, report, phases, context, manager=self._manager, elapsed=elapsed)
            for path in sorted(prepared.selector.unmatched):
                report.error("not-found", path, "it is not in this set")
            try:
                await asyncio.to_thread(target.finish, whole=report.sound)
            except TargetError:
                context.job.parameters[_BOOT] = ""  # whoever goes on must not trust what is there, as after a restart
                raise
        finally:
            await asyncio.to_thread(target.close)
        if any(problem.code == "lost" for problem in report.problems):
            gone = {barcode for piece in prepared.pieces for barcode in piece.backup_set.missing}
            report.missing.extend(sorted(gone - set(report.missing)))
        await phases.complete()
        await tell_damage(report, context)
        result = {
            "set_id": prepared.backup_set.id,
            "name": prepared.backup_set.name,
            **counts(report),
            "seconds": round(elapsed(), 3),
        }
        if prepared.before is not None:
            result["restored_before"] = prepared.before.count
        raise_if_unsound(report, result)
        return result

    async def _open(
        self, request: RestoreRequest, report: RecoveryReport, context: JobContext, earlier: EarlierRun | None
    ) -> RecoveryTarget:
        def open_target() -> RecoveryTarget:
            return self._open_target(request, report.warn, job_id=context.job_id, earlier=earlier)

        return await asyncio.to_thread(open_target)

    async def _prepare(self, request: RestoreRequest, before: RestoredBefore | None = None) -> Prepared:
        selector = make_selector(request.paths, request.patterns)
        return await prepare(
            self._catalog,
            self._store,
            request.reference,
            selector,
            request.library,
            with_parents=not request.only_this_set,
            before=before,
        )


async def read_prepared(
    prepared: Prepared,
    target: RecoveryTarget | None,
    report: RecoveryReport,
    phases: Phases,
    context: JobContext,
    *,
    manager: TapeManager,
    elapsed: Callable[[], float],
    digests: bool = False,
) -> None:
    """Read all that was planned, and tell of the progress meanwhile. `target` None: into nothing. `elapsed`: seconds
    since the job began. Errors as of `read_sets`."""
    if prepared.shortfall is not None:
        report.fall_short(prepared.shortfall)
    for mount in MountTable.from_plain(prepared.backup_set.mounts):
        if mount.absent and target is not None:
            report.warn(
                "kept", mount.path, "its file system was not mounted then: below it all is as in an earlier set"
            )
    readings = prepared.readings(target, report, context=context, digests=digests, on_step=phases.begin)

    async def tick() -> None:
        await phases.catch_up()
        await context.progress(**progress(report, prepared.plan.bytes_to_read, max(elapsed(), 1e-6)))

    async with ticking(tick):
        await read_sets(
            readings,
            manager=manager,
            libraries=prepared.libraries,
            report=report,
            context=context,
            phases=phases,
        )


def progress(report: RecoveryReport, total: int, seconds: float) -> dict[str, Any]:
    """The counters of a running restore or verification that reads `total` bytes from tape."""
    done = report.bytes_read
    rate = done / seconds
    return {
        "files": report.files,
        "bytes": report.content_bytes,
        "bytes_read_from_tape": done,
        "total_bytes": total,
        "rate": round(rate),
        "current": display_path(report.current),
        "seconds_left": round((total - done) / rate) if rate and total > done else None,
    }


def new_report(context: JobContext) -> RecoveryReport:
    """A report whose problems and warnings are the job's."""

    def hear(problem: Problem) -> None:
        place = f"{problem.trouble.barcode}, block {problem.trouble.block}: " if problem.trouble else ""
        context.warn(problem.code, path=problem.path or None, detail=place + problem.what)

    return RecoveryReport(hear)


async def tell_damage(report: RecoveryReport, context: JobContext) -> None:
    """Make warnings of the damaged places."""
    for trouble in report.damage[:TOLD]:
        await context.warning("damage", detail=f"{trouble.barcode}, block {trouble.block}: {trouble.what}")
