"""Runs one command and measures it: wall time, processor time, and the peak memory of its whole process tree."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_INTERVAL = 0.02  # seconds between two looks at the process tree


@dataclass(frozen=True, slots=True)
class Measurement:
    """Seconds, and bytes. `memory` adds up the resident sets, so what processes share counts more than once."""

    wall: float
    cpu: float
    memory: int


def measure(command: Sequence[str], *, log: Path) -> Measurement:
    """Run `command` to its end; raises CalledProcessError if it fails. Its output goes to `log`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    peak = 0
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, _resident(root))
            try:
                process.wait(_INTERVAL)
            except subprocess.TimeoutExpired:
                pass
        wall = time.perf_counter() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, log.read_bytes()[-4000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Measurement(wall, cpu, peak)


def _resident(root: psutil.Process) -> int:
    total = 0
    try:
        for process in (root, *root.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.NoSuchProcess:
        pass
    return total
