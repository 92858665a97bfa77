"""Runs jobs: gives each a row, a proof of life, events, and an end that is written down whatever happens.

The proof of life is an operating-system lock on `jobs/ID.lock`. It goes with its process, so a job whose lock is free
and that is said to run was killed: it is INTERRUPTED, and the next one who looks says so.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from capstan.catalog.catalog import Catalog
from capstan.clock import Clock
from capstan.core.ids import new_job_id
from capstan.core.job import Event, Job, JobKind, JobState
from capstan.errors import CapstanError, JobCancelled, Refused
from capstan.jobs.context import JobContext
from capstan.jobs.warning_log import WarningLog, read_warnings, warnings_path
from capstan.process_lock import ProcessLock, is_locked

__all__ = ["JobContext", "JobRunner", "Listener"]

_CANCEL_POLL_SECONDS = 1.0
_NOTIFY = "notify"  # the last phase of every job, however it ended

Work = Callable[[JobContext], Awaitable[dict[str, Any]]]
Listener = Callable[[Event], None]


class JobRunner:
    """One for a process. `listener` hears every event at once, on the event loop's thread."""

    def __init__(
        self, *, catalog: Catalog, clock: Clock, folder: Path, host: str, listener: Listener | None = None
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._folder = folder
        self._host = host
        self._listener = listener
        self._running: dict[str, JobContext] = {}

    async def run(
        self, kind: JobKind, work: Work, *, name: str = "", library: str = "", parameters: dict[str, Any] | None = None
    ) -> tuple[Job, dict[str, Any]]:
        """Create a job, run `work` in it and return the ended job and its result.

        Whatever `work` raises is written down (failed, cancelled) and raised again. A task that is cancelled
        counts as cancelled.
        """
        job = Job(
            id=new_job_id(),
            kind=kind,
            state=JobState.CREATED,
            created_at=self._clock.now(),
            name=name,
            library=library,
            pid=os.getpid(),
            host=self._host,
            parameters=parameters or {},
        )
        with self._lock(job.id) as lock:
            async with self._catalog.transaction() as catalog:
                await catalog.jobs.add(job)
            return await self._supervise(job, work, lock)

    async def resume(self, job_id: str, work: Work) -> tuple[Job, dict[str, Any]]:
        """Run `work` in a job that ended early, and return as `run` does. See `core.job.Job` for what stays of it.

        Refused when the job is done or runs; InUse or Conflict when another process resumes it at this moment: then
        it is that one's job, and nothing was changed.
        """
        await self.reap()
        job_id = (await self._resumable(job_id)).id
        with self._lock(job_id) as lock:
            job = await self._resumable(job_id)  # as it is now that nobody else can run it
            counts = (job.result or job.progress).get("warning_codes")
            job.pid, job.host, job.finished_at = os.getpid(), self._host, None
            job.progress, job.result, job.error = {}, {}, {}
            job.cancel_requested = False
            return await self._supervise(job, work, lock, counts)

    async def _resumable(self, job_id: str) -> Job:
        """The job, if it ended early; Refused, with what to do instead, if not."""
        async with self._catalog.snapshot() as catalog:
            job = await catalog.jobs.get(job_id)
        if not job.ended:
            hint = f"wait for it, or stop it with `capstan job cancel {job.id}`"
            raise Refused(reason=f"job {job.id} is {job.state.value}", hint=hint)
        if job.state is JobState.DONE:
            raise Refused(reason=f"job {job.id} is done", hint="run the command again for a new one")
        return job

    async def _supervise(
        self, job: Job, work: Work, lock: ProcessLock, counts: dict[str, int] | None = None
    ) -> tuple[Job, dict[str, Any]]:
        """Run a job that this process holds the lock of, which goes at the end, and hear meanwhile whether it shall
        stop. `counts`: of the warnings of its earlier runs."""
        warnings = WarningLog(warnings_path(self._folder, job.id), self._clock, counts)
        context = JobContext(job, self, self._clock, warnings)
        self._running[job.id] = context
        ended = asyncio.Event()
        poll = asyncio.create_task(self._poll_cancel(context, ended))
        try:
            return await self._run(context, work)
        finally:
            del self._running[job.id]
            ended.set()
            await poll
            lock.remove()

    async def _run(self, context: JobContext, work: Work) -> tuple[Job, dict[str, Any]]:
        job, was = context.job, context.job.state
        job.state, job.started_at = JobState.RUNNING, job.started_at or self._clock.now()
        kind = "job.started" if was is JobState.CREATED else "job.resumed"
        await self._replace(job, was, self._event(job, kind, {"job_kind": job.kind.value, "name": job.name}))
        try:
            result = await work(context)
        except BaseException as error:
            cancelled = isinstance(error, JobCancelled | asyncio.CancelledError)
            job.error = error.as_dict() if isinstance(error, CapstanError) else _unexpected(error)
            job.result = await context.conclude((error.result if isinstance(error, CapstanError) else None) or {})
            await self._end(context, JobState.CANCELLED if cancelled else JobState.FAILED)
            raise
        job.result = await context.conclude(result)
        await self._end(context, JobState.DONE)
        return job, job.result

    async def _end(self, context: JobContext, state: JobState) -> None:
        job = context.job
        job.phase = _NOTIFY
        job.state, job.finished_at = state, self._clock.now()
        ended = {"state": state.value, "error": job.error, "warnings": job.warning_count, "resumable": job.resumable}
        if "warnings_not_kept" in job.result:
            ended["warnings_not_kept"] = job.result["warnings_not_kept"]
        events = self._event(job, "job.phase", {"phase": _NOTIFY}), self._event(job, "job.ended", ended)
        await self._replace(job, JobState.RUNNING, *events)

    def cancel_all(self) -> None:
        """Ask all jobs of this process to stop (a signal came)."""
        for context in self._running.values():
            context.cancel()

    async def reap(self) -> list[Job]:
        """Mark the jobs whose process is gone as INTERRUPTED, and return them."""
        async with self._catalog.snapshot() as catalog:
            found = await catalog.jobs.list(states=[JobState.CREATED, JobState.RUNNING], limit=10_000)
        dead = [job for job in found if not self.is_alive(job)]
        if dead:
            async with self._catalog.transaction() as catalog:
                for job in dead:
                    was, job.state, job.finished_at = job.state, JobState.INTERRUPTED, self._clock.now()
                    with suppress(CapstanError):
                        await catalog.jobs.replace(job, was=was)
        return dead

    def warnings(self, job_id: str, code: str | None = None) -> Iterator[dict[str, Any]]:
        """The warnings of a job, as far as they are written down (see `warning_log.read_warnings`)."""
        return read_warnings(warnings_path(self._folder, job_id), code)

    def is_alive(self, job: Job) -> bool:
        """Whether the process that runs the job still lives. Jobs of other hosts are taken for alive."""
        return job.host != self._host or is_locked(self._lock_path(job.id))

    # ── JobEvents ─────────────────────────────────────────────────────────────────────────────────────

    async def tell(self, kind: str, job_id: str, data: dict[str, Any], *, keep: bool = True) -> None:
        event = Event(kind=kind, at=self._clock.now(), data=data, job_id=job_id)
        if keep:
            async with self._catalog.transaction() as catalog:
                await catalog.events.append(event)
        self._hear(event)

    async def save(self, job: Job, kind: str = "", data: dict[str, Any] | None = None) -> None:
        await self._replace(job, job.state, *([self._event(job, kind, data or {})] if kind else []))

    async def _replace(self, job: Job, was: JobState, *events: Event) -> None:
        """Write the row and what happened in one transaction: each costs a sync of the disk."""
        async with self._catalog.transaction() as catalog:
            await catalog.jobs.replace(job, was=was)
            for event in events:
                await catalog.events.append(event)
        for event in events:
            self._hear(event)

    def _event(self, job: Job, kind: str, data: dict[str, Any]) -> Event:
        return Event(kind=kind, at=self._clock.now(), data=data, job_id=job.id)

    def _hear(self, event: Event) -> None:
        if self._listener is not None:
            self._listener(event)

    async def _poll_cancel(self, context: JobContext, ended: asyncio.Event) -> None:
        """Hear a cancel that another process asked for, until the job has `ended`. Never cut off in the middle of a
        question to the catalog: its connection would be left to whoever collects garbage."""
        while not context.cancelled.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _CANCEL_POLL_SECONDS)
                return
            with suppress(CapstanError):
                async with self._catalog.snapshot() as catalog:
                    if await catalog.jobs.cancel_requested(context.job_id):
                        context.cancel()

    def _lock(self, job_id: str) -> ProcessLock:
        return ProcessLock(self._lock_path(job_id), f"job {job_id}")

    def _lock_path(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.lock"


def _unexpected(error: BaseException) -> dict[str, Any]:
    return {"code": "unexpected", "message": f"{type(error).__name__}: {error}", "hint": "", "parameters": {}}
