"""Runs one restore: from a request to files whose digests agree.

What can be restored is restored, whatever is damaged or missing beside it; the error comes at the end and carries the
whole result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from capstan.catalog.catalog import Catalog
from capstan.clock import Clock
from capstan.core.files import display_path
from capstan.core.job import RestorePhase
from capstan.core.mounts import MountTable
from capstan.crypto.identities import Identity
from capstan.errors import TargetError
from capstan.fileindex.store import FileIndexStore
from capstan.jobs.context import JobContext
from capstan.media.manager import TapeManager
from capstan.recovery.earlier import EarlierRun, boot_id
from capstan.recovery.phases import Phases
from capstan.recovery.preparation import Prepared, prepare
from capstan.recovery.reading import read_sets
from capstan.recovery.report import TOLD, Problem, RecoveryReport, counts, raise_if_unsound
from capstan.recovery.select import RestoreRequest, make_selector
from capstan.recovery.selection import RestoredBefore
from capstan.recovery.target import RecoveryTarget, Tell

_BOOT = "boot"  # in a job's parameters: which run of the machine the restore began in; "": what it wrote may be lost
_TICK = 0.5  # seconds between two looks at the counters


class TargetFactory(Protocol):
    """Opens the target of a restore. `earlier`: the restore goes on where that run ended. `job_id` names its files."""

    def __call__(
        self, request: RestoreRequest, tell: Tell, *, job_id: str, earlier: EarlierRun | None
    ) -> RecoveryTarget: ...


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
        spool: Path,
        open_target: TargetFactory,
    ) -> None:
        self._catalog = catalog
        self._manager = manager
        self._store = store
        self._clock = clock
        self._spool = spool
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

    async def run(
        self, request: RestoreRequest, context: JobContext, identities: Sequence[Identity] = ()
    ) -> dict[str, Any]:
        """Restore and return the result object of the command line. `identities` open what is sealed.

        Raises VerificationFailed (or CartridgeMissing, when nothing else is wrong) after all else was restored, with
        the result in its attribute `result`; IdentityNeeded, JobCancelled; and what ended the restore as a whole.
        """
        context.job.parameters[_BOOT] = boot_id()
        with self._manager.keys.lend(context.job_id, identities):
            return await self._restore(request, context, None, identities)

    async def resume(
        self, request: RestoreRequest, context: JobContext, identities: Sequence[Identity] = ()
    ) -> dict[str, Any]:
        """Go on with the restore of a job that ended early; result and errors are as of `run`.

        What that run has put into the target is neither read nor written again, unless the machine was restarted since.
        It is the same set, whatever a name in the request means by now.
        """
        job = context.job
        assert job.started_at is not None
        trusted = bool(boot_id()) and job.parameters.get(_BOOT) == boot_id()
        earlier = EarlierRun(int(job.started_at.timestamp() * 1e6) * 1000, trusted)
        request = replace(request, reference=job.set_id or request.reference)
        with self._manager.keys.lend(context.job_id, identities):
            return await self._restore(request, context, earlier, identities)

    async def _restore(
        self,
        request: RestoreRequest,
        context: JobContext,
        earlier: EarlierRun | None,
        identities: Sequence[Identity],
    ) -> dict[str, Any]:
        elapsed = stopwatch(self._clock)
        phases = Phases(context)
        await phases.enter(RestorePhase.SEARCH)
        report = new_report(context)
        if earlier is None:  # nothing is made in the target for a set that is not there
            prepared = await self._prepare(request, identities=identities)
            target = await self._open(request, report, context, earlier)
        else:
            target = await self._open(request, report, context, earlier)
        try:
            if earlier is not None:
                before = RestoredBefore(target.restored)
                prepared = await self._prepare(request, before, identities=identities)
            await context.set_created(prepared.backup_set.id)
            await phases.enter(RestorePhase.SELECT, files=prepared.files, bytes=prepared.content_bytes)
            await phases.enter(RestorePhase.CREATE)
            await read_prepared(
                prepared,
                target,
                report,
                phases,
                context,
                manager=self._manager,
                elapsed=elapsed,
                spool=self._spool,
                identities=identities,
            )
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
            "copies_used": prepared.copies_used(),
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

    async def _prepare(
        self,
        request: RestoreRequest,
        before: RestoredBefore | None = None,
        *,
        identities: Sequence[Identity] | None = None,
    ) -> Prepared:
        selector = make_selector(request.paths, request.patterns)
        return await prepare(
            self._catalog,
            self._store,
            request.reference,
            selector,
            request.library,
            with_parents=not request.only_this_set,
            before=before,
            identities=identities,
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
    **how: Any,
) -> None:
    """Read all that was planned, and tell of the progress meanwhile. `target` None: into nothing. `elapsed`: seconds
    since the job began. `how`: see `SetReading`. Errors as of `read_sets`."""
    if prepared.shortfall is not None:
        report.fall_short(prepared.shortfall)
    for mount in MountTable.from_plain(prepared.backup_set.mounts):
        if mount.absent and target is not None:
            report.warn(
                "kept", mount.path, "its file system was not mounted then: below it all is as in an earlier set"
            )
    readings = prepared.readings(target, report, context=context, on_step=phases.begin, **how)

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
