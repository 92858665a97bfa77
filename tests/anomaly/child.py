"""Runs an operation in a process of its own, that dies or whose disk fails at a chosen moment.

The processes are forked from a server that has imported everything: a case costs no interpreter's start. The server
runs with `failing_disk.c` in LD_PRELOAD, which does nothing until a child arms it.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from operations import OPERATIONS, Operation, Outcome, perform
from scene import Scene, scratch_folder

from capstan.bootstrap import open_home
from capstan.core.job import JobKind
from capstan.scsi.virtual.target import VirtualTransport

gc.freeze()  # what is imported stays: no child looks through it again

_WARM = "CAPSTAN_ANOMALY_WARM"
PATIENCE = 60  # seconds that a child may take; it needs less than one
DIES = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """When what happens, counted from 1.

    With `below` the `number`th call that changes something below that path fails with `error`, or the process dies
    where that is DIES. Without, it dies at the `number`th SCSI command: before it is delivered, or `behind` it.
    """

    number: int
    below: Path | None = None
    error: int = DIES
    partly: bool = False
    for_good: bool = False
    behind: bool = False

    def __str__(self) -> str:
        what = errno.errorcode[self.error] if self.error else "death"
        words = ("partly" * self.partly, "for good" * self.for_good, "behind" * self.behind)
        return " ".join(filter(None, (what, *words)))


@dataclass(slots=True)
class Ended:
    """How a child ended: `outcome` None when it was killed. `came`: its moment did. `crash`: what no one should see."""

    outcome: Outcome | None
    came: bool
    count: int = 0
    crash: str = ""


def run(operation: Operation, scene: Scene, moment: Moment) -> Ended:
    """Perform `operation` in a child."""
    server = _server(scene.template)
    ours, its = server.Pipe(duplex=False)
    process = server.Process(target=_live, args=(its, operation.name, scene, moment))
    process.start()
    its.close()
    try:
        if not ours.poll(PATIENCE):
            process.kill()
            raise AssertionError(f"{operation.name} hangs after {moment}")
        outcome, count, crash = ours.recv()
    except EOFError:
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"the child ended with {process.exitcode}"
        return Ended(None, came=True)
    finally:
        ours.close()
        process.join()
    return Ended(outcome, count >= moment.number, count, crash)


@cache
def _server(home: Path) -> ForkServerContext:
    """The server that children are forked from, started at first use. It works once on a copy of `home`, so that what
    is made at first use is there for all of them."""
    library = Path(tempfile.mkdtemp(prefix="capstan-disk-")) / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["child"])
    # Python before 3.13 does not hand `sys.path` on to the server, which would then import nothing in advance.
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("LD_PRELOAD", str(library))
        environment.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        environment.setenv(_WARM, str(home))
        forkserver.ensure_running()
    return context


def _live(pipe: Connection, operation: str, scene: Scene, moment: Moment) -> None:
    """What the child does. Whatever it prints is nobody's business."""
    outcome, crash = None, ""
    counted = [0]
    if moment.below is None:
        _die_at_command(moment, counted)
    else:
        _disk().disk_arm(
            os.fsencode(moment.below), moment.number, moment.error, int(moment.partly), int(moment.for_good)
        )
    try:
        outcome = perform(OPERATIONS[operation], scene, repeatably=True)
    except BaseException:  # noqa: BLE001 (the parent judges it)
        crash = traceback.format_exc()
    count = counted[0] if moment.below is None else _disk().disk_seen()
    pipe.send((outcome, count, crash))


def _disk() -> Any:
    library = ctypes.CDLL(None)
    library.disk_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    library.disk_seen.restype = ctypes.c_long
    return library


def _die_at_command(moment: Moment, counted: list[int]) -> None:
    execute = VirtualTransport.execute

    def watched(self: VirtualTransport, command: Any) -> Any:
        counted[0] += 1
        last = counted[0] == moment.number
        if last and not moment.behind:
            os.kill(os.getpid(), signal.SIGKILL)
        completion = execute(self, command)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return completion

    VirtualTransport.execute = watched  # type: ignore[method-assign]


async def _warm_up(home: Path) -> None:
    """What every run does first: a job, the catalog, the library, and a look at a cartridge."""
    async with open_home(home) as capstan:
        await capstan.tidy()
        await capstan.jobs.run(JobKind.VERIFY, lambda job: capstan.verify.run_cartridge("CAP003L9", job), library="lib")


if _WARM in os.environ:
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as _folder:
        shutil.copytree(os.environ.pop(_WARM), f"{_folder}/home")
        asyncio.run(_warm_up(Path(_folder) / "home"))
    gc.collect()
    gc.freeze()
