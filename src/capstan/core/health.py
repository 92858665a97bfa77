"""What drives and cartridges went through together, and which of two that failed together is to blame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

DAMAGED = "damaged"  # the code of a load in which something was not what it should be


class DriveState(StrEnum):
    """Whether jobs may use a drive."""

    ENABLED = "enabled"
    DRAINED = "drained"  # an operator wants it left alone; what runs in it goes on
    QUARANTINED = "quarantined"  # it is to blame for failures, and is left alone until an operator enables it


@dataclass(slots=True)
class Drive:
    """One drive, by its serial number, wherever it is built in. `reason`: why it is not enabled."""

    serial: str
    library: str
    element: int
    created_at: datetime
    product: str = ""  # vendor, product and revision of INQUIRY
    state: DriveState = DriveState.ENABLED
    reason: str = ""
    loads: int = 0
    wants_cleaning: bool = False
    cleaned_at: datetime | None = None


@dataclass(slots=True)
class Load:
    """One stay of a cartridge in a drive. `unloaded_at` is None while it lasts, and when the process died in it.

    `error`, `code`: what failed, "" for nothing; `medium`: it was the medium that could not be read or written, which
    either may be to blame for. `state_before`: that of the cartridge before this load made it suspect, else "".
    `settled`: the failure counts no more, since an operator has looked at it, or the other one was to blame. `alerts`:
    TapeAlert flags that the drive gave; `counters`: of this load, by names of `tape.drive.DriveCounters`.
    """

    id: str
    drive: str
    barcode: str
    job_id: str
    loaded_at: datetime
    unloaded_at: datetime | None = None
    code: str = ""
    error: str = ""
    medium: bool = False
    state_before: str = ""
    settled: bool = False
    alerts: list[int] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether it ended with a failure that still counts."""
        return bool(self.code) and not self.settled

    @property
    def accuses(self) -> bool:
        """Whether that failure may be the drive's. Records that can be read, and are not what was written, were bad
        before they came there."""
        return self.failed and self.code != DAMAGED


class Blame(StrEnum):
    """Who is to blame for a failure of the medium."""

    DRIVE = "drive"
    CARTRIDGE = "cartridge"
    UNKNOWN = "unknown"


def blame(loads: Iterable[Load], drive: str, barcode: str) -> Blame:
    """Who is to blame for the failure of a cartridge in a drive; `loads` have it, and all others that failed.

    A drive that fails with several cartridges, none of which failed elsewhere, is; so is a cartridge that fails in
    several drives which work with all others. Everything else is not known yet.
    """
    failed = [load for load in loads if load.accuses]
    cartridges = {load.barcode for load in failed if load.drive == drive}
    drives = {load.drive for load in failed if load.barcode == barcode and load.medium}
    if len(drives) > 1 and cartridges == {barcode}:
        return Blame.CARTRIDGE
    if len(cartridges) > 1 and drives <= {drive}:
        return Blame.DRIVE
    return Blame.UNKNOWN


def failures_of(loads: Sequence[Load], drive: str) -> list[str]:
    """The barcodes that failed in a drive, each once, in order."""
    return sorted({load.barcode for load in loads if load.accuses and load.drive == drive})
