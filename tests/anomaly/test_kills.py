"""kill -9 at every moment of every operation: what was acknowledged is there, nothing is stuck, and the operation run
again ends well.

A process dies before or behind its n-th SCSI command (behind: a commit point is on the medium and nobody was told of
it), and at its n-th change of anything in the home or the target, with half of that change made.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import child
import pytest
from child import DIES, Moment
from figures import FIGURES
from loop import go_through
from operations import OPERATIONS, Operation
from promises import prove
from scene import Scene

pytestmark = [pytest.mark.slow, pytest.mark.requires("gcc")]

MOMENTS = ("before-command", "behind-command", "in-home", "in-target")
CASES = [
    pytest.param(operation, where, id=f"{operation.name}-{where}")
    for operation in OPERATIONS.values()
    for where in MOMENTS
    if operation.name != "verify-damaged" and (where != "in-target" or operation.restores)
]


def moment(scene: Scene, where: str, number: int) -> Moment:
    """That moment in the life of a child that works on `scene`."""
    if where.startswith("in-"):
        return Moment(number, below=scene.home if where == "in-home" else scene.target, error=DIES, partly=True)
    return Moment(number, behind=where == "behind-command")


@cache
def moments_of(scene: Scene, operation: Operation, where: str) -> int:
    """How many such moments a run has that nobody kills."""
    copy = scene.new_copy()
    operation.prepare(copy)
    ended = child.run(operation, copy, moment(copy, where, 1_000_000))
    assert not ended.crash, ended.crash
    return ended.count


@pytest.mark.parametrize(("operation", "where"), CASES)
def test_killed(scene: Scene, bench: Path, operation: Operation, where: str) -> None:
    """Whenever it dies: a home that opens, legal states, everything acknowledged, and the next run works."""

    def case(copy: Scene, number: int) -> bool:
        operation.prepare(copy)
        ended = child.run(operation, copy, moment(copy, where, number))
        assert not ended.crash, ended.crash
        FIGURES["kills"] += ended.came
        prove(copy, operation, ended.outcome)
        return ended.came

    count = moments_of(scene, operation, where)
    go_through(scene, bench, case, name=f"{operation.name} {where}", count=count, sample=1)
