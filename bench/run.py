"""Measures the command line against its peers, side by side: `make bench ONLY=P1`, or `python bench/run.py --only P4`.

Each round runs the peer and then Capstan on the same tree, with a warm cache, into the same temporary folder; the
numbers are medians over the rounds, the ratios those of each round. Results replace their section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import corpora
from measure import Measurement, measure
from results import keep_section, machine


@dataclass(frozen=True, slots=True)
class Work:
    """One line of the table of targets."""

    title: str
    build: Callable[[Path], None]


WORKS = {
    "P1": Work("2 GiB in 8 large files, zstd 3, against `tar | zstd -T2 -3`", corpora.large_files),
    "P4": Work(
        "100,000 files of 1 to 8 KiB in 1,000 directories, zstd 3, against `tar | zstd -T2 -3`", corpora.small_files
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(WORKS), action="append", help="default: all")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    parser.add_argument("--capstan", default=str(Path(sys.executable).parent / "capstan"))
    arguments = parser.parse_args()
    for name in arguments.only or sorted(WORKS):
        with tempfile.TemporaryDirectory(prefix="capstan-bench-", dir=arguments.folder) as folder:
            print(f"{name}: building the tree …", flush=True)
            source = Path(folder) / "source"
            load = os.getloadavg()[0]
            WORKS[name].build(source)
            pairs = [_pair(arguments.capstan, source, Path(folder), name) for _ in range(arguments.pairs)]
        section = _section(name, pairs, load)
        print(section)
        keep_section(name, section)


def _pair(capstan: str, source: Path, folder: Path, name: str) -> tuple[Measurement, Measurement]:
    """The peer, then Capstan in a fresh home with one virtual library."""
    log = folder / "log"
    archive = folder / "peer.tar.zst"
    peer = measure(["sh", "-c", 'tar -C "$0" -cf - . | zstd -T2 -3 -q -f -o "$1"', str(source), str(archive)], log=log)
    archive.unlink()
    home = folder / "home"
    in_home = [capstan, "--home", str(home), "--json"]
    subprocess.run([*in_home, "library", "create", "bench", "--virtual"], check=True, stdout=subprocess.DEVNULL)
    backup = ["backup", str(source), "--library", "bench", "--name", name, "--codec", "zstd:3"]
    ours = measure([*in_home, *backup], log=log)
    shutil.rmtree(home)
    print(f"{name}: peer {peer.wall:.2f} s, capstan {ours.wall:.2f} s", flush=True)
    return peer, ours


def _section(name: str, pairs: list[tuple[Measurement, Measurement]], load: float) -> str:
    peers, ours = [peer for peer, _ in pairs], [own for _, own in pairs]
    wall = sorted(peer.wall / own.wall for peer, own in pairs)
    cpu = sorted(peer.cpu / own.cpu for peer, own in pairs)
    lines = [
        f"## {name}: {WORKS[name].title}",
        "",
        "| | wall, s | CPU, s | peak memory, MiB |",
        "|---|---|---|---|",
        _line("`tar \\| zstd -T2 -3`", peers),
        _line("`capstan backup`", ours),
        f"| **ratio** | **{median(wall):.2f}** ({wall[0]:.2f} to {wall[-1]:.2f}) "
        f"| **{median(cpu):.2f}** ({cpu[0]:.2f} to {cpu[-1]:.2f}) | |",
        "",
        f"`make bench ONLY={name}`, {len(pairs)} pairs, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load {load:.1f} at its "
        f"beginning, {machine()}.",
        "",
    ]
    return "\n".join(lines)


def _line(who: str, runs: list[Measurement]) -> str:
    memory = max(run.memory for run in runs) / (1 << 20)
    return f"| {who} | {median(run.wall for run in runs):.2f} | {median(run.cpu for run in runs):.2f} | {memory:.0f} |"


if __name__ == "__main__":
    main()
