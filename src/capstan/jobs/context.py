"""What a running piece of work has of its job: it tells what it does, and hears when it shall stop."""

from __future__ import annotations

import threading
from typing import Any, Protocol

from capstan.clock import Clock
from capstan.core.job import BackupPhase, Job, RestorePhase
from capstan.errors import JobCancelled
from capstan.jobs.warning_log import WarningLog

_PROGRESS_SECONDS = 1.0  # between two saves of the progress


class JobEvents(Protocol):
    """Where a job's events go: the catalog keeps them, listeners hear them."""

    async def tell(self, kind: str, job_id: str, data: dict[str, Any], *, keep: bool = True) -> None:
        """`keep` False: only for those who listen now."""
        ...

    async def save(self, job: Job, kind: str = "", data: dict[str, Any] | None = None) -> None:
        """Write the running job's row; in the same transaction, an event of that kind about it."""
        ...


class JobContext:
    """Belongs to one run of one job. All methods are for the event loop's thread, but `warn` and `cancel` for any."""

    def __init__(self, job: Job, events: JobEvents, clock: Clock, warnings: WarningLog) -> None:
        self.job = job
        self.cancelled = threading.Event()
        self._events = events
        self._clock = clock
        self._warnings = warnings
        self._warnings_told = 0
        self._saved_at = -_PROGRESS_SECONDS

    @property
    def job_id(self) -> str:
        return self.job.id

    async def phase(self, phase: BackupPhase | RestorePhase | str, **data: Any) -> None:
        """A new phase of the work begins."""
        self.check_cancelled()
        await self._tell_warnings()
        self.job.phase = str(phase)
        await self._events.save(self.job, "job.phase", {"phase": str(phase), **data})

    async def progress(self, **data: Any) -> None:
        """How far it is. Listeners hear each; about one a second is saved with the job."""
        await self._tell_warnings()
        self.job.progress = {**data, "warning_codes": self._warnings.counts}
        await self._events.tell("job.progress", self.job_id, self.job.progress, keep=False)
        now = self._clock.monotonic()
        if now - self._saved_at >= _PROGRESS_SECONDS:
            self._saved_at = now
            self._warnings.flush()
            await self._events.save(self.job)

    async def warning(self, code: str, *, path: bytes | None = None, detail: str = "") -> None:
        """Something went wrong, and the work goes on. All are counted and written down; the first become events."""
        self.warn(code, path=path, detail=detail)
        await self._tell_warnings()

    def warn(self, code: str, *, path: bytes | None = None, detail: str = "") -> None:
        """The same from any thread. The event comes with whatever the job tells next."""
        self._warnings.add(code, path, detail)

    async def tell(self, kind: str, **data: Any) -> None:
        """Any other event of this job: a cartridge was loaded, a commit point was written."""
        await self._events.tell(kind, self.job_id, data)

    async def set_created(self, set_id: str) -> None:
        """The backup has its set."""
        self.job.set_id = set_id
        await self._events.save(self.job)

    async def committed(self, **data: Any) -> None:
        """A commit point is on tape and in the catalog: what lies before it is acknowledged."""
        self._warnings.flush()
        await self.tell("job.committed", **data)

    async def conclude(self, result: dict[str, Any]) -> dict[str, Any]:
        """The work has ended: write its warnings down, and return its result with their counts."""
        self._warnings.flush()
        await self._tell_warnings()
        result = {**result, "warning_codes": self._warnings.counts}
        if self._warnings.unwritten:
            result["warnings_not_kept"] = {"count": self._warnings.unwritten, "reason": self._warnings.trouble}
        return result

    async def _tell_warnings(self) -> None:
        self.job.warning_count = self._warnings.total
        while (number := self._warnings_told) < len(self._warnings.first):
            self._warnings_told += 1  # before the wait: another task may come here meanwhile
            await self._events.tell("job.warning", self.job_id, self._warnings.first[number])

    def cancel(self) -> None:
        """Ask the work to stop at the next good place. From any thread or signal handler."""
        self.cancelled.set()

    def check_cancelled(self) -> None:
        """Raise JobCancelled if that was asked for."""
        if self.cancelled.is_set():
            raise JobCancelled(job=self.job_id)
