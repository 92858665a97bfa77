"""A plan of faults for a virtual library: which command fails, how, once or for good.

Used to prove that nothing acknowledged is lost: run a piece of work with the n-th command failing, for every n, until
`triggered` stays False.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from capstan.scsi.sense import Key, Sense


class FaultKind(Enum):
    """What happens to a command."""

    NOT_DELIVERED = "not-delivered"  # the device never sees it
    ANSWER_LOST = "answer-lost"  # the device carries it out, and the answer does not come back
    MEDIUM_ERROR = "medium-error"
    HARDWARE_ERROR = "hardware-error"
    EARLY_WARNING = "early-warning"  # carried out, and the drive says that the end is near
    UNIT_ATTENTION = "unit-attention"  # a reset: the tape is rewound, the command is not carried out
    STUCK_ROBOT = "stuck-robot"
    BUSY = "busy"
    UNKNOWN_COMMAND = "unknown-command"  # as from a device that has no such command
    DEFERRED = "deferred"  # not carried out: something written earlier has not reached the medium
    SENSE = "sense"  # it is not carried out, and ends with the fault's own sense data


SENSES = {
    FaultKind.MEDIUM_ERROR: Sense(Key.MEDIUM_ERROR, 0x0C, 0x00),
    FaultKind.HARDWARE_ERROR: Sense(Key.HARDWARE_ERROR, 0x44, 0x00),
    FaultKind.UNIT_ATTENTION: Sense(Key.UNIT_ATTENTION, 0x29, 0x00),
    FaultKind.STUCK_ROBOT: Sense(Key.HARDWARE_ERROR, 0x15, 0x01),
    FaultKind.DEFERRED: Sense(Key.MEDIUM_ERROR, 0x0C, 0x00, deferred=True),
    FaultKind.UNKNOWN_COMMAND: Sense(Key.ILLEGAL_REQUEST, 0x20, 0x00),
    FaultKind.EARLY_WARNING: Sense(Key.NO_SENSE, 0x00, 0x02, end_of_medium=True),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """The `nth` command (from 1) that matches fails; with `permanent`, all that follow and match fail too.

    `sense`: for `FaultKind.SENSE`. `unit` is `changer`, `drive0`, `drive1`, … or "" for all; `opcodes` empty for all.
    """

    kind: FaultKind
    nth: int = 1
    unit: str = ""
    opcodes: frozenset[int] = frozenset()
    permanent: bool = False
    sense: Sense | None = None

    @property
    def answer(self) -> Sense:
        """The sense data with which the command ends."""
        return self.sense or SENSES[self.kind]


@dataclass(slots=True)
class FaultPlan:
    """Faults and what became of them. Counts the commands of all units in the order they come."""

    faults: tuple[Fault, ...] = ()
    commands_seen: int = 0
    triggered: bool = False
    _matched: dict[int, int] = field(default_factory=dict)

    def next_fault(self, unit: str, opcode: int) -> Fault | None:
        """Count one command and return what shall happen to it."""
        self.commands_seen += 1
        for index, fault in enumerate(self.faults):
            if (fault.unit and fault.unit != unit) or (fault.opcodes and opcode not in fault.opcodes):
                continue
            matched = self._matched[index] = self._matched.get(index, 0) + 1
            if matched == fault.nth or (fault.permanent and matched > fault.nth):
                self.triggered = True
                return fault
        return None
