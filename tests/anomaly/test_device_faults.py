"""SQLite's loop: fail the n-th SCSI command of every operation, in every kind, once and for good, until the run is
clean; after each, all promises hold."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from figures import FIGURES
from loop import go_through
from operations import OPERATIONS, Operation, perform
from promises import ends_well, prove
from scene import Scene

from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan

KINDS = [kind for kind in FaultKind if kind is not FaultKind.SENSE]
TAPE_FAILED = (FaultKind.MEDIUM_ERROR, FaultKind.DEFERRED)
pytestmark = pytest.mark.slow


@cache
def commands_of(scene: Scene, operation: Operation) -> int:
    """How many SCSI commands a run on devices that are well sends."""
    plan = FaultPlan()
    copy = scene.new_copy()
    operation.prepare(copy)
    ends_well(operation, perform(operation, copy, plan, repeatably=True))
    return plan.commands_seen


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.value)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
def test_a_command_fails(scene: Scene, bench: Path, operation: Operation, kind: FaultKind) -> None:
    """Whatever command fails, in whatever way: nothing is lost, nothing is stuck, and the error is clear."""

    def case(copy: Scene, number: int) -> bool:
        operation.prepare(copy)
        # An odd number: this command fails once. The even one behind it: this command and all that follow.
        plan = FaultPlan((Fault(kind, (number + 1) // 2, permanent=number % 2 == 0),))
        outcome = perform(operation, copy, plan, repeatably=True)
        FIGURES["faults injected"] += plan.triggered
        prove(copy, operation, outcome, tape_failed=kind in TAPE_FAILED)
        return plan.triggered

    count = 2 * commands_of(scene, operation)
    go_through(scene, bench, case, name=f"{operation.name} {kind.value}", count=count, sample=1)
