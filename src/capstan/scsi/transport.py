"""The port through which SCSI commands reach a logical unit.

Obligation of an implementation: deliver exactly the bytes of one command, once, and return whatever the logical
unit answered. Never retry: a WRITE that got no answer may have moved the tape. Promise to the caller: every status
is a value; only the lack of an answer is an exception, and it says whether the command can have been delivered.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol


class Direction(Enum):
    """Which way data moves, seen from the initiator (SAM-5, 5.4.2)."""

    NONE = "none"
    IN = "in"
    OUT = "out"


class Status(IntEnum):
    """Status codes (SAM-5, table 41)."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    TASK_ABORTED = 0x40


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """What one command can carry. `max_transfer` in bytes; `alignment` of the data buffer in bytes."""

    max_transfer: int = 1 << 20
    max_cdb: int = 16
    alignment: int = 1


@dataclass(slots=True)
class Command:
    """One command. `data` is owned by the caller; for IN it is filled, for OUT it is read, during `execute` only.

    `data` is a writable buffer for IN, any buffer for OUT, and None for NONE. `timeout` in seconds, never implied.
    """

    cdb: bytes
    direction: Direction
    data: memoryview | None
    timeout: float


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer. `sense` is empty unless status is CHECK_CONDITION; `residual` = bytes asked for less moved."""

    status: Status
    sense: bytes = b""
    residual: int = 0


class ScsiTransport(Protocol):
    """One path to one logical unit. Not thread-safe: a lane owns it."""

    address: str
    limits: TransportLimits

    def execute(self, command: Command) -> Completion:
        """Deliver `command` and return the answer, whatever its status.

        Raises TransportError(delivery=NOT_DELIVERED) when the logical unit certainly did not see the command,
        and TransportError(delivery=UNKNOWN) when it may have: after that the caller's idea of the position is void.
        """
        ...

    def close(self) -> None:
        """Release the path. Twice is harmless. After it, `execute` raises TransportError(NOT_DELIVERED)."""
        ...
