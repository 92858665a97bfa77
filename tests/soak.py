"""Runs everything exhaustively, part by part, and writes what was done into docs/soak.md.

usage: soak.py run [PART…]     (parts: devices, kills, disks, properties; all by default)
       soak.py report          (write docs/soak.md from the parts that have been run)

A part leaves its figures in `.soak/`; it may be run again by itself, also on another day. Each runs on two processes.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / ".soak"
REPORT = ROOT / "docs" / "soak.md"


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the tests, and how they are made exhaustive."""

    title: str
    tests: str
    environment: dict[str, str]


_ALL = {"CAPSTAN_ANOMALY": "all"}
PARTS = {
    "devices": Part("every SCSI command fails, in every kind", "tests/anomaly/test_device_faults.py", _ALL),
    "kills": Part("kill -9 at every command and every change of a file", "tests/anomaly/test_kills.py", _ALL),
    "disks": Part("every write, sync, rename and open fails", "tests/anomaly/test_disk_faults.py", _ALL),
    "properties": Part("properties, with many examples", "tests/property", {"CAPSTAN_HYPOTHESIS_PROFILE": "soak"}),
}
COLUMNS = (
    "faults injected",
    "kills",
    "runs",
    "files compared",
    "bytes compared",
    "lost bytes",
    "illegal states",
)


def run(names: list[str]) -> int:
    """Run the parts; the exit code of the worst of them."""
    worst = 0
    for name in names:
        worst = max(worst, _run(name, PARTS[name]))
    return worst


def _run(name: str, part: Part) -> int:
    folder = FIGURES / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", part.tests, "-q", "-n", "2", "--timeout", "0", "--tb", "short"],
        cwd=ROOT,
        env={**os.environ, **part.environment, "CAPSTAN_SOAK_FIGURES": str(folder)},
        check=False,
    )
    facts = {
        "seconds": round(time.monotonic() - began),
        "passed": done.returncode == 0,
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else ""),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    (folder / "facts.json").write_text(json.dumps(facts))
    return done.returncode


def report() -> int:
    """Write docs/soak.md. Parts that were not run are said to be missing."""
    rows, totals = [], Counter[str]()
    for name, part in PARTS.items():
        folder = FIGURES / name
        if not (folder / "facts.json").exists():
            rows.append(f"| {part.title} | was not run |" + " |" * (len(COLUMNS) + 3))
            continue
        facts = json.loads((folder / "facts.json").read_text())
        counts = Counter[str]()
        for path in folder.glob("*.json"):
            if path.name != "facts.json":
                counts.update(json.loads(path.read_text()))
        totals.update(counts)
        cells = [part.title, "passed" if facts["passed"] else "**failed**"]
        cells += [_number(counts[column]) if counts else "-" for column in COLUMNS]
        cells += [f"{facts['seconds']} s", facts["commit"], facts["date"]]
        rows.append("| " + " | ".join(cells) + " |")
    cells = ["all", "", *(_number(totals[column]) for column in COLUMNS), "", "", ""]
    rows.append("| " + " | ".join(cells) + " |")
    head = ("part", "result", *COLUMNS, "time", "commit", "date")
    REPORT.write_text(_TEXT.format(
        machine=f"{os.cpu_count()} processors, Python {platform.python_version()}",
        table="\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *rows]),
    ))  # fmt: skip
    return 0


_TEXT = """\
# The soak

`make soak` runs the anomaly loops and the properties exhaustively (`make soak PART=kills` one part of them) and writes
this page; nothing here is written by hand. What is promised after each fault stands in `tests/anomaly/promises.py`.
A commit with a `+` had changes that were not committed.

{machine}.

{table}
"""


def _number(value: int) -> str:
    return f"{value:,}"


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()  # fmt: skip


if __name__ == "__main__":
    command, *names = sys.argv[1:] or ["run"]
    sys.exit(report() if command == "report" else run(names or list(PARTS)))
