"""Scans a million empty files and says what it takes: `python bench/scan_million.py` (`--help`).

Two shapes: all files in one directory, and in 1,000 directories. Each scan is a process of its own; memory is its peak
above that of the interpreter before anything of Capstan is imported.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SCAN = """
import json, re, sys, time
from pathlib import Path

def peak():  # bytes; getrusage would count what the parent had before this program was loaded
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10

start = peak()
from capstan.backup.filesystem import FilesystemSource
wall, cpu = time.perf_counter(), time.process_time()
count = sum(1 for _ in FilesystemSource([sys.argv[1].encode()]).scan())
times = time.perf_counter() - wall, time.process_time() - cpu
print(json.dumps({"count": count, "wall": times[0], "cpu": times[1], "memory": peak() - start}))
"""


def fill(top: Path, files: int, directories: int) -> None:
    """Names are made in another order than the one they sort in, as in any directory that has a history."""
    for directory in range(directories):
        folder = top / f"directory-{directory:04d}" if directories > 1 else top
        folder.mkdir(parents=True)
        at = os.open(folder, os.O_RDONLY)
        for number in range(files // directories):
            os.close(os.open(f"file-{number * 7919 % 1_000_003:07d}.dat", os.O_CREAT | os.O_WRONLY, dir_fd=at))
        os.close(at)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--directories", type=int, choices=(1, 1000), help="default: both")
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    arguments = parser.parse_args()
    for directories in (arguments.directories,) if arguments.directories else (1, 1000):
        with tempfile.TemporaryDirectory(prefix="capstan-scan-", dir=arguments.folder) as folder:
            top = Path(folder) / "source"
            fill(top, arguments.files, directories)
            done = subprocess.run([sys.executable, "-c", SCAN, str(top)], check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)
            print(
                f"{arguments.files:,} files in {directories:,} directories: {found['wall']:.1f} s,"
                f" {found['cpu'] / found['count'] * 1e6:.1f} µs of processor time each,"
                f" peak memory {found['memory'] / 2**20:.0f} MiB above the interpreter"
            )


if __name__ == "__main__":
    main()
