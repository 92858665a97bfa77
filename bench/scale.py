"""What a million files take, in two shapes: `make bench ONLY=scale` (`--help`).

All in one directory, and in 1,000 directories. Each command is a process of its own on a warm cache; memory is the peak
of its whole process tree, interpreter and libraries included. The table replaces its section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from measure import Measurement, measure
from results import keep_section, machine

CHANGED = 100  # every so many files, one is written again before the second incremental


def fill(top: Path, files: int, directories: int) -> None:
    """Names are made in another order than the one they sort in, as in any directory that has a history."""
    for directory in range(directories):
        folder = top / f"directory-{directory:04d}" if directories > 1 else top
        folder.mkdir(parents=True)
        at = os.open(folder, os.O_RDONLY)
        for number in range(files // directories):
            name = f"file-{number * 7919 % 1_000_003:07d}.dat"
            descriptor = os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=at)
            os.write(descriptor, b"%08d %04d " % (number, directory) * 8)
            os.close(descriptor)
        os.close(at)


def change(top: Path) -> None:
    """Write some files again, and remove some."""
    for number, (folder, _, names) in enumerate(os.walk(top)):
        for position, name in enumerate(sorted(names)):
            if position % CHANGED == number % CHANGED:
                path = Path(folder) / name
                if position % (2 * CHANGED) < CHANGED:
                    path.write_bytes(b"changed since")
                else:
                    path.unlink()


def measured(capstan: str, work: Path) -> Iterator[tuple[str, Measurement]]:
    """Each command with what it took."""
    source, home = work / "source", work / "home"

    def run(*arguments: str | Path) -> Measurement:
        return measure([capstan, "--json", "--home", str(home), *map(str, arguments)], log=work / "log")

    run("library", "create", "lib", "--virtual", "--capacity", "100GB")
    yield "full backup", run("backup", source, "--name", "t")
    yield "incremental, nothing changed", run("backup", source, "--name", "t", "--type", "incremental")
    change(source)
    yield "incremental, 1 % changed or gone", run("backup", source, "--name", "t", "--type", "incremental")
    yield "`find`, one name in three sets", run("find", "file-0777777.dat")
    yield "`set files` of the last set", run("set", "files", "latest:t")
    full = _first_set(capstan, home)
    yield "`set diff` of first and last", run("set", "diff", full, "latest:t")
    yield "verify the full set", run("verify", full)
    yield "restore the last state", run("restore", "latest:t", "--to", work / "out")
    for path in home.glob("catalog.db*"):
        path.unlink()
    yield "rebuild", run("rebuild", "--library", "lib")


def _first_set(capstan: str, home: Path) -> str:
    command = [capstan, "--json", "--home", str(home), "sets"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return str(json.loads(found)[0]["set_id"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    parser.add_argument("--capstan", default=str(Path(sys.executable).parent / "capstan"))
    arguments = parser.parse_args()
    title = f"Scale: {arguments.files:,} files of 112 bytes, in 1,000 directories and in one"
    head = "| | 1,000 directories: wall, s | CPU, s | memory, MiB | one: wall, s | CPU, s | memory, MiB |"
    lines = [f"## {title}", "", head, "|---|---|---|---|---|---|---|"]
    rows: dict[str, list[str]] = {}
    load = os.getloadavg()[0]
    for directories in (1000, 1):
        with tempfile.TemporaryDirectory(prefix="capstan-scale-", dir=arguments.folder) as folder:
            work = Path(folder)
            print(f"{directories} directories: building the tree …", flush=True)
            fill(work / "source", arguments.files, directories)
            for name, took in measured(arguments.capstan, work):
                cells = [f"{took.wall:.1f}", f"{took.cpu:.1f}", f"{took.memory / 2**20:.0f}"]
                rows.setdefault(name, []).extend(cells)
                print(f"  {name}: {' | '.join(cells)}", flush=True)
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    made = f"`make bench ONLY=scale`, {when}, load {load:.1f} at its beginning, {machine()}."
    keep_section("Scale", "\n".join([*lines, "", made]))


if __name__ == "__main__":
    main()
