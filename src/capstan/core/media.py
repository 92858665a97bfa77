"""Cartridges and pools as the catalog knows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class CartridgeState(StrEnum):
    """Why a cartridge may or may not be written to."""

    UNKNOWN = "unknown"  # seen by its barcode only; its content was never read
    SCRATCH = "scratch"  # may be labelled and written by any pool
    AVAILABLE = "available"  # belongs to a pool, has room
    FULL = "full"
    SUSPECT = "suspect"  # failed; read only with care
    FOREIGN = "foreign"  # holds something that is not ours
    CLEANING = "cleaning"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """What a pool demands of what is written to it, as `Pool` has it; the labels of its cartridges carry it too."""

    recipients: tuple[str, ...] = ()
    drive_key: str = ""
    require_escrow: bool = False
    copy_pool: str = ""
    verify_writes: bool = False

    @property
    def encrypts(self) -> bool:
        """Whether nothing goes to the pool in clear."""
        return bool(self.recipients or self.drive_key)


@dataclass(slots=True)
class Pool:
    """A group of cartridges that sets are written to. `scratch`: takes scratch cartridges by itself.

    `recipients`: whom its sets are sealed for, when a backup names nobody else; without any they are not. `drive_key`:
    the id of the key that the drive encrypts with, instead. `require_escrow`: nothing is written to it before an export
    of a key that opens it was proven. `copy_pool`: the pool that each of its sets is copied to; "" for none.
    `verify_writes`: each set is read again, and compared, in the job that has written it. `blocked`: why nothing is
    written to it that says not itself whom it is sealed for; "" for a pool that is well.
    """

    name: str
    created_at: datetime
    scratch: bool = True
    recipients: list[str] = field(default_factory=list)
    drive_key: str = ""
    require_escrow: bool = False
    description: str = ""
    copy_pool: str = ""
    verify_writes: bool = False
    blocked: str = ""

    @property
    def policy(self) -> PoolPolicy:
        """What it demands now."""
        return PoolPolicy(
            tuple(self.recipients), self.drive_key, self.require_escrow, self.copy_pool, self.verify_writes
        )


@dataclass(slots=True)
class Cartridge:
    """One cartridge. `barcode` is its name for people; `uuid` is its label's, "" before it is labelled.

    `end_block`, `tape_files`, `index_block`, `index_sha256`: where the last commit point ended, how many tape files
    lie before it, where its last INDEX begins (-1: none yet) and that header record's SHA-256. The append rule
    compares them with the tape.
    """

    barcode: str
    state: CartridgeState
    created_at: datetime
    reason: str = ""
    uuid: str = ""
    pool: str = ""
    library: str = ""
    place: str = ""  # "slot:1001", "" when it is outside the library
    generation: str = ""
    capacity_bytes: int = 0
    written_bytes: int = 0
    record_bytes: int = 0
    end_block: int = 0
    tape_files: int = 0
    index_block: int = -1
    index_sha256: str = ""
    loads: int = 0
    labelled_at: datetime | None = None
    written_at: datetime | None = None
    verified_at: datetime | None = None
    verify_result: str = ""
