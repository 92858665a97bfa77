"""Runs everything exhaustively, part by part, and writes what was done into docs/soak.md.

usage: soak.py run [PART[@TESTS][/N]…] (parts: devices, kills, disks, properties, histories, lives; all by default)
       soak.py report          (write docs/soak.md from the parts that have been run)

`devices/8` runs one of each eight cases that follow one another, drawn by a seed: `CAPSTAN_ANOMALY_SEED`, or the day's
date. The report says so. Only the loops over faults (devices, kills, disks) can be cut that way. `devices@rebuild` runs
only the tests of the part whose names have that in them, and has a row of its own.

A part leaves its figures in `.soak/`; it may be run again by itself, also on another day: the rows of those that were
not run here stay on the page as they are. Each runs on two processes.
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

    @property
    def divisible(self) -> bool:
        return "CAPSTAN_ANOMALY" in self.environment


_ALL = {"CAPSTAN_ANOMALY": "all"}
_MANY = {"CAPSTAN_HYPOTHESIS_PROFILE": "soak"}
PARTS = {
    "devices": Part("every SCSI command fails, in every kind", "tests/anomaly/test_device_faults.py", _ALL),
    "kills": Part("kill -9 at every command and every change of a file", "tests/anomaly/test_kills.py", _ALL),
    "disks": Part("every write, sync, rename and open fails", "tests/anomaly/test_disk_faults.py", _ALL),
    "properties": Part("properties, with many examples", "tests/property", _MANY),
    "histories": Part(
        "any history of sets restores", "tests/e2e/test_histories.py", _MANY | {"CAPSTAN_HISTORIES": "60"}
    ),
    "lives": Part(
        "any life of tapes, sets, copies and the home", "tests/e2e/test_lives_of_tapes.py", {"CAPSTAN_LIVES": "200"}
    ),
}
COLUMNS = (
    "faults injected",
    "kills",
    "cases run",
    "states proven",
    "states proven before",
    "runs",
    "files compared",
    "bytes compared",
    "lost bytes",
    "illegal states",
)


def run(wanted: list[str]) -> int:
    """Run the parts; the exit code of the worst of them. ValueError, before any runs, for what is none."""
    chosen = []
    for item in wanted:
        whole, slash, of = item.partition("/")
        name, _, only = whole.partition("@")
        if name not in PARTS or (slash and not (PARTS[name].divisible and of.isdecimal() and int(of))):
            raise ValueError(f"{item} is no part of the soak: {' '.join(PARTS)}, and /N behind the first three")
        chosen.append((name, only, int(of or 1)))
    return max(_run(name, only, PARTS[name], of) for name, only, of in chosen)


def _run(name: str, only: str, part: Part, of: int) -> int:
    environment, cases = part.environment, "all" if part.divisible else "-"
    if of > 1:
        seed = os.environ.get("CAPSTAN_ANOMALY_SEED") or f"{datetime.now(UTC):%Y%m%d}"
        environment = {"CAPSTAN_ANOMALY": f"1/{of}", "CAPSTAN_ANOMALY_SEED": seed}
        cases = f"1 of {of}, seed {seed}"
    folder = FIGURES / (f"{name}@{only}" if only else name)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", part.tests, "-q", "-n", "2", "--timeout", "0", "--tb", "short", "-k", only],
        cwd=ROOT,
        env={**os.environ, **environment, "CAPSTAN_SOAK_FIGURES": str(folder)},
        check=False,
    )
    facts = {
        "cases": cases,
        "seconds": round(time.monotonic() - began),
        "passed": done.returncode == 0,
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else ""),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    (folder / "facts.json").write_text(json.dumps(facts))
    return done.returncode


def report() -> int:
    """Write docs/soak.md. Parts that were never run are said to be missing."""
    known = _known_rows()
    rows, totals = [], Counter[str]()
    for name, title in _rows(known):
        folder = FIGURES / name
        if not (folder / "facts.json").exists():
            cells = known.get(title, [title, "was not run", *[""] * (len(COLUMNS) + 4)])
            totals.update({column: _figure(cell) for column, cell in zip(COLUMNS, cells[3:], strict=False)})
            rows.append("| " + " | ".join(cells) + " |")
            continue
        facts = json.loads((folder / "facts.json").read_text())
        counts = Counter[str]()
        for path in folder.glob("*.json"):
            if path.name != "facts.json":
                counts.update(json.loads(path.read_text()))
        totals.update(counts)
        cells = [title, "passed" if facts["passed"] else "**failed**"]
        cells.append(facts["cases"])
        cells += [_number(counts[column]) if counts else "-" for column in COLUMNS]
        cells += [f"{facts['seconds']} s", facts["commit"], facts["date"]]
        rows.append("| " + " | ".join(cells) + " |")
    cells = ["all", "", "", *(_number(totals[column]) for column in COLUMNS), "", "", ""]
    rows.append("| " + " | ".join(cells) + " |")
    head = ("part", "result", "cases", *COLUMNS, "time", "commit", "date")
    REPORT.write_text(_TEXT.format(
        machine=f"{os.cpu_count()} processors, Python {platform.python_version()}",
        table="\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *rows]),
    ))  # fmt: skip
    return 0


def _rows(known: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Folder and title of each row: every part, and below it what was run of it alone, here or before."""
    found = []
    for name, part in PARTS.items():
        found.append((name, part.title))
        alone = {folder.name.partition("@")[2] for folder in FIGURES.glob(f"{name}@*")}
        alone |= {title[len(part.title) + 2 : -6] for title in known if title.startswith(f"{part.title}: ")}
        found += [(f"{name}@{only}", f"{part.title}: {only} alone") for only in sorted(alone)]
    return found


def _known_rows() -> dict[str, list[str]]:
    """The rows of the page as it is, by their titles."""
    lines = REPORT.read_text().splitlines() if REPORT.exists() else []
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {cells[0]: cells for cells in rows if len(cells) == len(COLUMNS) + 6}


def _figure(cell: str) -> int:
    return int(cell.replace(",", "")) if cell.replace(",", "").isdecimal() else 0


_TEXT = """\
# The soak

`make soak` runs the anomaly loops, the properties and the histories exhaustively (`make soak PART=kills` one part of
them, `make soak PART="kills/8 disks/8"` one of each eight cases of two) and writes this page; nothing here is written
by hand. "1 of 8, seed 7" are the cases that a generator with that seed draws, one out of each eight that follow one
another; `CAPSTAN_ANOMALY_SEED=7` draws the same again. "States proven": a case
leaves a state behind (cartridges, catalog, file indexes, target); what follows from that alone, that it restores, that
the same command runs again and that a rebuild finds all, is proven once for all cases that leave an equal one ("states
proven before"); `tests/anomaly/states.py` says what counts as equal. What is promised after each fault stands in
`tests/anomaly/promises.py`. A commit with a `+` had changes that were not committed.

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
