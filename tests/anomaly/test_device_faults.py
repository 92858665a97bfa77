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

pytestmark = pytest.mark.slow


@cache
def commands_of(scene: Scene, operation: Operation) -> int:
    """How many SCSI commands a run on devices that are well sends."""
    plan = FaultPlan()
    folder = scene.root / f"count-{operation.name}"
    folder.mkdir()
    copy = scene.copy(folder)
    operation.prepare(copy)
    ends_well(operation, perform(operation, copy, plan))
    return plan.commands_seen


@pytest.mark.parametrize("permanent", [False, True], ids=["once", "for-good"])
@pytest.mark.parametrize("kind", FaultKind, ids=lambda kind: kind.value)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda operation: operation.name)
def test_a_command_fails(scene: Scene, bench: Path, operation: Operation, kind: FaultKind, permanent: bool) -> None:
    """Whatever command fails, in whatever way: nothing is lost, nothing is stuck, and the error is clear."""

    def case(copy: Scene, number: int) -> bool:
        operation.prepare(copy)
        plan = FaultPlan((Fault(kind, number, permanent=permanent),))
        outcome = perform(operation, copy, plan)
        FIGURES["faults injected"] += plan.triggered
        prove(copy, operation, outcome, tape_failed=kind is FaultKind.MEDIUM_ERROR)
        return plan.triggered

    name = f"{operation.name} {kind.value} {'for good' if permanent else 'once'}"
    go_through(scene, bench, case, name=name, count=commands_of(scene, operation), sample=1)
