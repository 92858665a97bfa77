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
    """One line of the table of targets. `peer` is a shell line: `$0` is the tree, `$1` what to write, `$2` a public key
    of age. `options` are those of `capstan backup`, with "KEY" for that key. `prepare` are commands before it."""

    title: str
    build: Callable[[Path], None]
    peer: str = 'tar -C "$0" -cf - . | zstd -T2 -3 -q -f -o "$1"'
    options: tuple[str, ...] = ("--codec", "zstd:3")
    prepare: tuple[tuple[str, ...], ...] = ()
    pairs: int = 5

    @property
    def peer_name(self) -> str:
        """The shell line for people."""
        words = self.peer.replace(' -C "$0"', "").replace(" -q -f", "").replace("-cf - .", "")
        for word in ('"$0"', '"$1"', '"$1.2"', '"$2"', " -o", ">", "  "):
            words = words.replace(word, " " if word == "  " else "")
        return " ".join(words.split()).replace("|", "\\|")


_SEALED_PEER = 'tar -C "$0" -cf - . | zstd -T2 -3 -q | age -r "$2" > "$1"'
_TWICE_PEER = 'tar -C "$0" -cf - . | zstd -T2 -3 -q | tee "$1" > "$1.2"'
_COPY_POOL = (("pool", "create", "vault"), ("pool", "create", "default", "--copy-pool", "vault"))
_LARGE = "2 GiB in 8 large files"


def _medium_files(folder: Path) -> None:
    corpora.large_files(folder, size=256 << 20)


WORKS = {
    "P1": Work(f"{_LARGE}, zstd 3", corpora.large_files),
    "P4": Work("100,000 files of 1 to 8 KiB in 1,000 directories, zstd 3", corpora.small_files),
    "sealed": Work(
        f"{_LARGE}, zstd 3, sealed by age",
        corpora.large_files,
        _SEALED_PEER,
        ("--codec", "zstd:3", "--recipient", "KEY"),
    ),
    "twice": Work(f"{_LARGE}, zstd 3, two copies in one pass", corpora.large_files, _TWICE_PEER, prepare=_COPY_POOL),
    "7z-copy": Work(
        f"{_LARGE}, 7z, copy",
        corpora.large_files,
        '7zz a -mx0 -mmt2 -bso0 "$1" "$0"',
        ("--container", "7z", "--codec", "copy"),
    ),
    "7z-lzma2": Work(
        "256 MiB in 8 files, 7z, LZMA2 of the lowest level",
        _medium_files,
        '7zz a -m0=lzma2 -mx1 -mmt2 -bso0 "$1" "$0"',
        ("--container", "7z", "--codec", "lzma2"),
        pairs=3,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(WORKS), action="append", help="default: all")
    parser.add_argument("--pairs", type=int, help="how often each is run (default: as the work says)")
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    parser.add_argument("--capstan", default=str(Path(sys.executable).parent / "capstan"))
    arguments = parser.parse_args()
    for name in arguments.only or sorted(WORKS):
        with tempfile.TemporaryDirectory(prefix="capstan-bench-", dir=arguments.folder) as folder:
            print(f"{name}: building the tree …", flush=True)
            source = Path(folder) / "source"
            load = os.getloadavg()[0]
            WORKS[name].build(source)
            rounds = range(arguments.pairs or WORKS[name].pairs)
            pairs = [_pair(arguments.capstan, source, Path(folder), name) for _ in rounds]
        section = _section(name, pairs, load)
        print(section)
        keep_section(name, section)


def _pair(capstan: str, source: Path, folder: Path, name: str) -> tuple[Measurement, Measurement]:
    """The peer, then Capstan in a fresh home with one virtual library."""
    log, work = folder / "log", WORKS[name]
    archive, identity = folder / "peer.archive", folder / "identity"
    subprocess.run(["age-keygen", "-o", str(identity)], check=True, stderr=subprocess.DEVNULL)
    key = subprocess.run(
        ["age-keygen", "-y", str(identity)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    identity.unlink()
    peer = measure(["sh", "-c", work.peer, str(source), str(archive), key], log=log)
    for path in folder.glob("peer.archive*"):
        path.unlink()
    home = folder / "home"
    in_home = [capstan, "--home", str(home), "--json"]
    library = ["library", "create", "bench", "--virtual", "--drives", "2"]
    for command in (library, *work.prepare):
        subprocess.run([*in_home, *command], check=True, stdout=subprocess.DEVNULL)
    options = [key if option == "KEY" else option for option in work.options]
    ours = measure([*in_home, "backup", str(source), "--library", "bench", "--name", name, *options], log=log)
    shutil.rmtree(home)
    print(f"{name}: peer {peer.wall:.2f} s, capstan {ours.wall:.2f} s", flush=True)
    return peer, ours


def _section(name: str, pairs: list[tuple[Measurement, Measurement]], load: float) -> str:
    peers, ours = [peer for peer, _ in pairs], [own for _, own in pairs]
    wall = sorted(peer.wall / own.wall for peer, own in pairs)
    cpu = sorted(peer.cpu / own.cpu for peer, own in pairs)
    lines = [
        f"## {name}: {WORKS[name].title}, against `{WORKS[name].peer_name}`",
        "",
        "| | wall, s | CPU, s | peak memory, MiB |",
        "|---|---|---|---|",
        _line(f"`{WORKS[name].peer_name}`", peers),
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
