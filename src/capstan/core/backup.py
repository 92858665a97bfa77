"""Backup sets, their segments and their commit points."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SetType(StrEnum):
    """What a set holds: everything, or what changed since its parent (incremental) or since the last full one."""

    FULL = "full"
    INCREMENTAL = "incremental"
    DIFFERENTIAL = "differential"


class SetState(StrEnum):
    """WRITING until its final INDEX is on tape. PARTIAL: was whole, and cartridges of it are gone. LOCKED: only
    what its header records say is known; the rest is sealed, and nobody has given the key yet."""

    WRITING = "writing"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"  # ended early; what was committed restores
    PARTIAL = "partial"
    LOCKED = "locked"


class Encryption(StrEnum):
    """Who encrypts a set: nobody, the writer (an age file for each segment), or the drive."""

    NONE = "none"
    AGE = "age"
    DRIVE = "drive"


class Conflicts(StrEnum):
    """What a restore does where a file already is."""

    SKIP = "skip"
    OVERWRITE = "overwrite"
    KEEP_NEWER = "keep-newer"
    RENAME = "rename"  # what is restored gets a new name


@dataclass(slots=True)
class BackupSet:
    """One backup set. `number` orders sets of one home; `parent_id` is the set an incremental builds on.

    `bytes` counts the files' content, `stored_bytes` the payload on tape. `missing` names the cartridges that a
    PARTIAL set lacks. `excludes` (in the JSON-safe form of `core.plain`) and `one_file_system`: what of the sources was
    left out. `mounts`: the file systems that it was made of (`core.mounts.MountTable`). `recipients`: whom it is sealed
    for, where `encryption` is AGE; `keys`: the ids of the keys that open it.
    """

    id: str
    number: int
    name: str
    type: SetType
    state: SetState
    created_at: datetime
    sources: list[str] = field(default_factory=list)
    excludes: list[Any] = field(default_factory=list)
    one_file_system: bool = False
    mounts: list[dict[str, Any]] = field(default_factory=list)
    parent_id: str = ""
    job_id: str = ""
    host: str = ""
    pool: str = ""
    codec: str = ""
    container: str = "tar"
    encryption: Encryption = Encryption.NONE
    recipients: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    finished_at: datetime | None = None
    files: int = 0
    bytes: int = 0
    stored_bytes: int = 0
    warning_count: int = 0
    cartridges: list[str] = field(default_factory=list)  # barcodes, in the order written
    missing: list[str] = field(default_factory=list)

    @property
    def started_ns(self) -> int:
        """`created_at` in nanoseconds since the epoch: nothing of it was looked at before."""
        return (self.created_at - _EPOCH) // _MICROSECOND * 1000


@dataclass(frozen=True, slots=True)
class Segment:
    """One tape file of a set's stream. `block` is that of its header record; its first payload record is `block + 1`.

    `tar_offset` and `tar_bytes`: which part of the set's tar stream it holds, before compression. `payload_bytes` and
    `payload_sha256` are of what lies on tape; `age_beginning`, in base64, is what of it stands before the sealed
    chunks, "" where nothing is sealed. `copy`: 0 in what the backup wrote; in a copy of that, the copy's number from 1.
    """

    set_id: str
    number: int  # from 0, in the order of the stream
    cartridge: str  # uuid
    barcode: str
    tape_file: int
    block: int
    records: int  # payload records, header not counted
    record_bytes: int
    payload_bytes: int
    payload_sha256: str
    tar_offset: int
    tar_bytes: int
    stream: int = 0
    age_beginning: str = ""
    copy: int = 0


@dataclass(frozen=True, slots=True)
class Commit:
    """One INDEX on tape: everything before it is safe. `sequence` counts the INDEXes of the set from 1.

    `files`, `bytes` and `tar_end` are totals of the set up to here. `final`: the set is whole. `locked`: only the
    header record could be read; totals and segments are not known.

    `copy` is 0 for what the backup wrote. A copy has INDEXes of the same sequences, one on each cartridge that holds
    segments of that interval; the set is whole in a copy when all of them together have every segment.
    `original_sha256`: in a copy, the `header_sha256` of the INDEX that the backup wrote at the end of that interval.
    """

    set_id: str
    sequence: int
    cartridge: str  # uuid
    barcode: str
    tape_file: int
    block: int  # of the INDEX's header record
    end_block: int  # behind its filemark: where the next tape file begins
    header_sha256: str  # of its header record: the link of the chain of INDEXes
    payload_bytes: int
    payload_sha256: str
    final: bool
    files: int
    bytes: int
    tar_end: int
    committed_at: datetime
    segments: tuple[Segment, ...] = ()
    locked: bool = False
    copy: int = 0
    original_sha256: str = ""

    @property
    def interval_sha256(self) -> str:
        """What names the interval that it ends, in the original and in all copies (`core.history`)."""
        return self.original_sha256 if self.copy else self.header_sha256
