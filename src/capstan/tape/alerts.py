"""What the TapeAlert flags of a drive mean (log page 2Eh): names and severities of SSC-5, table A.2, and what to do.

Flags that the standard calls obsolete or leaves reserved are told by their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """As the standard has it."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFORMATION = "information"


class Concerns(StrEnum):
    """What a flag speaks of."""

    DRIVE = "drive"
    CARTRIDGE = "cartridge"
    CLEANING = "cleaning"
    EITHER = "drive or cartridge"
    LIBRARY = "library"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class TapeAlert:
    """One flag. `remedy`: what an operator should do."""

    flag: int
    name: str
    severity: Severity
    concerns: Concerns
    remedy: str

    def __str__(self) -> str:
        return f"TapeAlert {self.flag}, {self.name}: {self.remedy}"


CLEAN_NOW, CLEAN_PERIODIC, CLEANING_EXPIRED, INVALID_CLEANING = 20, 21, 22, 23
WANTS_CLEANING = frozenset({CLEAN_NOW, CLEAN_PERIODIC})

_C, _W, _I = Severity.CRITICAL, Severity.WARNING, Severity.INFORMATION
_DRIVE, _TAPE, _EITHER = Concerns.DRIVE, Concerns.CARTRIDGE, Concerns.EITHER
_CLEANING, _LIBRARY, _HOST = Concerns.CLEANING, Concerns.LIBRARY, Concerns.HOST
_COPY = "copy what is on the cartridge to another one, and retire it"
_REPAIR = "have the drive repaired"
_RESET = "switch the drive off and on; if it comes again, have it repaired"
_LOOK = "look at the library's own display and log"

_TABLE: tuple[tuple[int, str, Severity, Concerns, str], ...] = (
    (
        1,
        "read warning",
        _W,
        _EITHER,
        "verify the cartridge in another drive; if it comes again there, copy and retire it",
    ),
    (
        2,
        "write warning",
        _W,
        _EITHER,
        "verify the cartridge in another drive; if it comes again there, copy and retire it",
    ),
    (3, "hard error", _W, _EITHER, "verify the cartridge in another drive"),
    (4, "medium", _C, _TAPE, _COPY),
    (5, "read failure", _C, _EITHER, "try the cartridge in another drive; if it fails there too, it is damaged"),
    (6, "write failure", _C, _EITHER, "try the drive with a cartridge that is known to be good"),
    (7, "medium life", _W, _TAPE, _COPY),
    (8, "not data grade", _W, _TAPE, _COPY),
    (9, "write protect", _C, _TAPE, "slide the write-protect tab, or use another cartridge"),
    (10, "medium removal prevented", _I, _HOST, "wait for the job that uses the drive"),
    (11, "cleaning medium", _I, _CLEANING, "wait until the drive has been cleaned"),
    (12, "unsupported format", _I, _TAPE, "use a cartridge of a generation that the drive knows"),
    (13, "recoverable mechanical cartridge failure", _C, _TAPE, _COPY),
    (
        14,
        "unrecoverable mechanical cartridge failure",
        _C,
        _TAPE,
        "do not pull at it: have the cartridge taken out by service",
    ),
    (15, "cartridge memory failure", _W, _TAPE, _COPY),
    (16, "forced eject", _C, _HOST, "do not take cartridges out while a job uses them"),
    (17, "read-only format", _W, _TAPE, "use a cartridge of a generation that the drive writes"),
    (
        18,
        "tape directory corrupted on load",
        _W,
        _TAPE,
        "read the cartridge to its end once: the drive makes its directory anew",
    ),
    (19, "nearing medium life", _I, _TAPE, "plan to copy what is on the cartridge to another one"),
    (CLEAN_NOW, "clean now", _C, _CLEANING, "clean the drive: `capstan drive clean SERIAL`"),
    (CLEAN_PERIODIC, "clean periodic", _W, _CLEANING, "clean the drive: `capstan drive clean SERIAL`"),
    (CLEANING_EXPIRED, "expired cleaning medium", _C, _CLEANING, "put a new cleaning cartridge into the library"),
    (
        INVALID_CLEANING,
        "invalid cleaning medium",
        _C,
        _CLEANING,
        "use a cleaning cartridge that is made for this drive",
    ),
    (24, "retension requested", _W, _TAPE, "verify the cartridge: the drive winds it from end to end"),
    (25, "multi-port interface error on a primary port", _W, _HOST, "look at the cable and the adapter of the drive"),
    (26, "cooling fan failure", _W, _DRIVE, _REPAIR),
    (27, "power supply failure", _W, _DRIVE, _REPAIR),
    (28, "power consumption", _W, _DRIVE, _REPAIR),
    (29, "drive preventive maintenance required", _W, _DRIVE, _REPAIR),
    (30, "hardware A", _C, _DRIVE, _RESET),
    (31, "hardware B", _C, _DRIVE, _REPAIR),
    (32, "primary interface", _W, _HOST, "look at the cable and the adapter of the drive"),
    (33, "eject medium", _C, _EITHER, "unload the cartridge, and load it again"),
    (34, "microcode update fail", _W, _DRIVE, "update the firmware once more, with the file for this drive"),
    (35, "drive humidity", _W, _DRIVE, "bring the room's humidity back into the drive's range"),
    (36, "drive temperature", _W, _DRIVE, "look at the cooling of the drive and the room"),
    (37, "drive voltage", _W, _DRIVE, _REPAIR),
    (38, "predictive failure", _C, _DRIVE, _REPAIR),
    (39, "diagnostics required", _W, _DRIVE, "run the drive's diagnostics"),
    (50, "lost statistics", _W, _TAPE, "nothing needs to be done: counters of the cartridge begin anew"),
    (
        51,
        "tape directory invalid at unload",
        _W,
        _TAPE,
        "read the cartridge to its end once: the drive makes its directory anew",
    ),
    (52, "tape system area write failure", _C, _TAPE, _COPY),
    (53, "tape system area read failure", _C, _TAPE, _COPY),
    (
        54,
        "no start of data",
        _C,
        _TAPE,
        "check that it is a data cartridge; label it anew only if its content may be lost",
    ),
    (55, "loading or threading failure", _C, _EITHER, "try the drive with a cartridge that is known to be good"),
    (56, "unrecoverable unload failure", _C, _DRIVE, "do not pull at it: have the cartridge taken out by service"),
    (57, "automation interface failure", _C, _LIBRARY, _LOOK),
    (58, "microcode failure", _W, _DRIVE, _RESET),
    (59, "WORM medium: integrity check failed", _W, _TAPE, "check that nobody has tampered with the cartridge"),
    (60, "WORM medium: overwrite attempted", _W, _TAPE, "use a rewritable cartridge for what is to be overwritten"),
    (
        61,
        "encryption policy violation",
        _W,
        _HOST,
        "look at who sets keys in the drive: this program, another one, or the library",
    ),
)

ALERTS = {row[0]: TapeAlert(*row) for row in _TABLE}


def alert_of(flag: int) -> TapeAlert:
    """The meaning of a flag, 1 to 64."""
    return ALERTS.get(flag) or TapeAlert(flag, "unknown", _W, _DRIVE, "see the drive's own manual")
