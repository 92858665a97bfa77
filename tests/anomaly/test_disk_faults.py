"""A disk that is full or broken: fail the n-th change of anything in the home (settings, catalog, file indexes, spool,
cartridges) or in the target of a restore; after each, all promises hold and the error says whose disk it is."""

from __future__ import annotations

import errno
from functools import cache
from pathlib import Path

import child
import pytest
from child import Moment
from figures import FIGURES
from loop import go_through
from operations import OPERATIONS, Operation
from promises import prove
from scene import Scene

pytestmark = [pytest.mark.slow, pytest.mark.requires("gcc")]

# A write that is cut short and tells it; a disk that stays full; an error that comes once; a disk that is gone.
WAYS = {
    "short": Moment(0, error=errno.ENOSPC, partly=True),
    "full": Moment(0, error=errno.ENOSPC, for_good=True),
    "error": Moment(0, error=errno.EIO),
    "gone": Moment(0, error=errno.EIO, for_good=True),
}
CASES = [
    pytest.param(operation, where, way, id=f"{operation.name}-{where}-{way}")
    for operation in OPERATIONS.values()
    for where in ("home", "target")
    for way in WAYS
    if operation.name != "verify-damaged" and (where != "target" or operation.restores)
]


def moment(scene: Scene, where: str, way: str, number: int) -> Moment:
    """That moment for a child that works on `scene`."""
    like = WAYS[way]
    below = scene.home if where == "home" else scene.target
    return Moment(number, below=below, error=like.error, partly=like.partly, for_good=like.for_good)


@cache
def changes_of(scene: Scene, operation: Operation, where: str) -> int:
    """How many changes a run makes there when all goes well."""
    copy = scene.new_copy()
    operation.prepare(copy)
    ended = child.run(operation, copy, moment(copy, where, "error", 1_000_000))
    assert not ended.crash, ended.crash
    return ended.count


@pytest.mark.parametrize(("operation", "where", "way"), CASES)
def test_a_disk_fails(scene: Scene, bench: Path, operation: Operation, where: str, way: str) -> None:
    """Whatever write, sync, rename or open fails: a clear error, nothing acknowledged lost, and the next run works."""

    def case(copy: Scene, number: int) -> bool:
        operation.prepare(copy)
        ended = child.run(operation, copy, moment(copy, where, way, number))
        FIGURES["faults injected"] += ended.came
        assert not ended.crash, ended.crash
        prove(copy, operation, ended.outcome, tape_failed=True)
        return ended.came

    count = changes_of(scene, operation, where)
    go_through(scene, bench, case, name=f"{operation.name} {where} {way}", count=count, sample=1)
