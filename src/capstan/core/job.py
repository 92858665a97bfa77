"""Jobs: what states they have, which follow which, and the phases that people see."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol


class JobKind(StrEnum):
    """What a job does."""

    BACKUP = "backup"
    RESTORE = "restore"
    VERIFY = "verify"
    REBUILD = "rebuild"
    LABEL = "label"
    ERASE = "erase"
    INVENTORY = "inventory"
    MOVE = "move"
    COPY = "copy"
    CLEAN = "clean"


class JobState(StrEnum):
    """created → running → done | failed | cancelled; a job whose process died is interrupted, and may be resumed."""

    CREATED = "created"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


_FOLLOWS: dict[JobState, frozenset[JobState]] = {
    JobState.CREATED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED, JobState.INTERRUPTED}),
    JobState.RUNNING: frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.INTERRUPTED}),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset({JobState.RUNNING}),
    JobState.CANCELLED: frozenset({JobState.RUNNING}),
    JobState.INTERRUPTED: frozenset({JobState.RUNNING}),
}


def may_follow(before: JobState, after: JobState) -> bool:
    """Whether a job may go from `before` to `after`. Ended jobs run again only by being resumed."""
    return after in _FOLLOWS[before]


class BackupPhase(StrEnum):
    """The ten steps of a backup, in order. LOAD and GET_CARTRIDGE come again for each further cartridge."""

    CREATE = "create"
    ACCEPT = "accept"
    SCAN = "scan"
    COMPRESS = "group-and-compress"
    GET_CARTRIDGE = "get-cartridge"
    LOAD = "load"
    WRITE = "write"
    RECORD_SET = "record-set"
    UNLOAD = "unload"
    NOTIFY = "notify"


class RestorePhase(StrEnum):
    """The nine steps of a restore, in order."""

    SEARCH = "search"
    SELECT = "select"
    CREATE = "create"
    LOAD = "load"
    READ = "read"
    DECOMPRESS = "decompress"
    VERIFY = "verify"
    WRITE = "write"
    NOTIFY = "notify"


@dataclass(slots=True)
class Job:
    """One piece of work that touches a device. `pid` and `host` tell whose it is while it runs.

    A job that is resumed goes on as the same job: `created_at`, `started_at` (of its first run), its events and its
    count of warnings stay; `finished_at`, `progress`, `result` and `error` are those of its latest run.
    """

    id: str
    kind: JobKind
    state: JobState
    created_at: datetime
    name: str = ""
    phase: str = ""
    library: str = ""
    set_id: str = ""
    pid: int = 0
    host: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    cancel_requested: bool = False
    warning_count: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.state not in (JobState.CREATED, JobState.RUNNING)

    @property
    def resumable(self) -> bool:
        """Whether `job resume` can go on with it."""
        return (
            self.kind in (JobKind.BACKUP, JobKind.RESTORE) and may_follow(self.state, JobState.RUNNING) and self.ended
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `sequence` is given by the event stream and only grows."""

    kind: str  # "job.phase", "job.progress", "job.warning", "job.ended", "cartridge.loaded", …
    at: datetime
    data: dict[str, Any]
    job_id: str = ""
    sequence: int = 0


class JobReporter(Protocol):
    """What work below the job runner tells of itself; `jobs.JobContext` is the one there is."""

    @property
    def job_id(self) -> str: ...

    async def phase(self, phase: str, **data: Any) -> None:
        """A phase of the work begins. Raises JobCancelled if the job shall stop."""
        ...

    async def warning(self, code: str, *, path: bytes | None = None, detail: str = "") -> None:
        """Something went wrong, and the work goes on."""
        ...

    async def tell(self, kind: str, **data: Any) -> None:
        """Anything else that happened."""
        ...
