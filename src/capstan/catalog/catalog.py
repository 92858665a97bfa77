"""The port to the catalog: what Capstan knows. An index of the tapes, never the truth.

`transaction()` commits when its block ends without an exception, and is durable when it has ended; nobody below the
edge commits in the middle. `snapshot()` reads a consistent state and never waits for a writer. Both may be used
while another process writes. The files of sets are not here but in `fileindex`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from capstan.core.backup import BackupSet, Commit, Segment, SetState
from capstan.core.health import Drive, Load
from capstan.core.job import Event, Job, JobState
from capstan.core.media import Cartridge, CartridgeState, Pool

# `get_*` raises NotFound, `find_*` returns None, `list_*` returns all that match, in a stable order.


class JobRepository(Protocol):
    async def add(self, job: Job) -> None:
        """AlreadyExists if the id is taken."""
        ...

    async def get(self, job_id: str) -> Job:
        """By id or a unique prefix of at least two digits; NotFound, or InvalidValue when the prefix is ambiguous."""
        ...

    async def list(
        self, *, states: Sequence[JobState] = (), limit: int = 100, before: datetime | None = None
    ) -> Sequence[Job]:
        """Newest first; `before` pages on by `created_at`."""
        ...

    async def replace(self, job: Job, *, was: JobState) -> None:
        """Write `job` if its state in the catalog is still `was`, else Conflict: nobody runs a job twice.

        `cancel_requested` is not written by it (only `request_cancel` sets it), except that a job that had ended and
        runs again begins without a request."""
        ...

    async def request_cancel(self, job_id: str) -> Job:
        """Mark a job that has not ended; Refused when it has. Returns the job as it is then."""
        ...

    async def cancel_requested(self, job_id: str) -> bool: ...


class MediaRepository(Protocol):
    async def add_pool(self, pool: Pool) -> None: ...
    async def get_pool(self, name: str) -> Pool: ...
    async def find_pool(self, name: str) -> Pool | None: ...
    async def save_pool(self, pool: Pool) -> None:
        """Update the row with this name, or add it."""
        ...

    async def list_pools(self) -> Sequence[Pool]: ...
    async def add(self, cartridge: Cartridge) -> None: ...
    async def get(self, barcode: str) -> Cartridge: ...
    async def find(self, barcode: str) -> Cartridge | None: ...
    async def find_by_uuid(self, uuid: str) -> Cartridge | None:
        """The cartridge with this label; None for the empty uuid, which all unlabelled ones have."""
        ...

    async def list(
        self, *, library: str | None = None, pool: str | None = None, states: Sequence[CartridgeState] = ()
    ) -> Sequence[Cartridge]:
        """In barcode order."""
        ...

    async def save(self, cartridge: Cartridge) -> None:
        """Update the row with this barcode, or add it."""
        ...

    async def remove(self, barcode: str) -> None: ...


class HealthRepository(Protocol):
    async def get_drive(self, serial: str) -> Drive:
        """By serial number."""
        ...

    async def find_drive(self, serial: str) -> Drive | None: ...
    async def list_drives(self, *, library: str | None = None) -> Sequence[Drive]:
        """In order of library and element."""
        ...

    async def save_drive(self, drive: Drive) -> None:
        """Update the row with this serial number, or add it."""
        ...

    async def save_load(self, load: Load) -> None:
        """Update the row with this id, or add it."""
        ...

    async def list_loads(
        self, *, drive: str | None = None, barcode: str | None = None, failed: bool = False, limit: int | None = None
    ) -> Sequence[Load]:
        """Oldest first, those of the drive or of the cartridge (of either, when both are given); with `limit` the
        newest of them; `failed`: only those with a failure that still counts."""
        ...


class BackupRepository(Protocol):
    async def next_number(self) -> int:
        """The next set number: larger than any that was ever in this catalog, also of sets that were removed."""
        ...

    async def add(self, backup_set: BackupSet) -> None: ...

    async def get(self, set_id: str) -> BackupSet:
        """By id or a unique prefix of at least four characters."""
        ...

    async def find(self, set_id: str) -> BackupSet | None: ...

    async def list(
        self, *, name: str | None = None, states: Sequence[SetState] = (), limit: int | None = None
    ) -> Sequence[BackupSet]:
        """Oldest first (by number); with `limit` the newest `limit` of them, still oldest first."""
        ...

    async def latest(self, name: str, *, at: datetime | None = None) -> BackupSet | None:
        """The newest COMPLETE set of the series `name`, by number; with `at`: that had ended at or before it, so that
        nothing in it is from later."""
        ...

    async def save(self, backup_set: BackupSet) -> None:
        """Update the row with this id, or add it."""
        ...

    async def remove(self, set_id: str) -> None:
        """The set, its segments and its commits."""
        ...

    async def add_commit(self, commit: Commit) -> None:
        """Record a commit point and its segments. The same (set, sequence, cartridge) again replaces it: adopting
        is idempotent."""
        ...

    async def remove_commits(self, cartridge: str) -> None:
        """Forget every commit point and segment on this cartridge (uuid); the sets stay."""
        ...

    async def remove_commit(self, commit: Commit) -> None:
        """Forget one commit point and its segments. Harmless when it is not there."""
        ...

    async def list_commits(self, *, set_id: str | None = None, cartridge: str | None = None) -> Sequence[Commit]:
        """What the backup wrote of a set, or all that lies on a cartridge (a uuid), copies too; with neither, all there
        is. In order of set number, copy and sequence. Segments are filled in."""
        ...

    async def list_copies(self, set_id: str) -> Sequence[Commit]:
        """The commit points of all copies of a set, in order of copy, sequence and time. Segments are filled in."""
        ...

    async def list_segments(self, set_id: str) -> Sequence[Segment]:
        """Those that the backup wrote, in the order of the stream."""
        ...

    async def sets_on(self, cartridge: str) -> Sequence[BackupSet]:
        """Every set with a segment or an INDEX on this cartridge (uuid)."""
        ...


class EventRepository(Protocol):
    async def append(self, event: Event) -> int:
        """Keep it and return its sequence number, which is larger than all before."""
        ...

    async def list(self, *, after: int = 0, job_id: str | None = None, limit: int = 1000) -> Sequence[Event]: ...


class Repositories(Protocol):
    """What one transaction or snapshot gives access to."""

    @property
    def jobs(self) -> JobRepository: ...
    @property
    def media(self) -> MediaRepository: ...
    @property
    def health(self) -> HealthRepository: ...
    @property
    def backups(self) -> BackupRepository: ...
    @property
    def events(self) -> EventRepository: ...

    async def get_setting(self, key: str) -> str | None: ...
    async def put_setting(self, key: str, value: str) -> None: ...


class Catalog(Protocol):
    async def open(self) -> None:
        """Create or migrate the schema. HomeTooNew, HomeDamaged, StorageFailed."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Repositories]: ...

    def snapshot(self) -> AbstractAsyncContextManager[Repositories]: ...

    async def clear(self) -> None:
        """Forget sets, commits, segments, cartridges and pools (before a rebuild); jobs and events stay."""
        ...

    async def close(self) -> None: ...
