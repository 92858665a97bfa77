"""RESULTS.md: one section for each measurement, and what machine it was made on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"
HEAD = """# Measurements

Made by `make bench`; each run replaces its section. Ratios are peer / Capstan: above 1, Capstan is faster.
"""


def machine() -> str:
    """Processor, system and versions, for the line under a table."""
    model = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    zstd = subprocess.run(["zstd", "--version"], capture_output=True, text=True, check=True).stdout.split(",")[0]
    tar = subprocess.run(["tar", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return (
        f"{os.cpu_count()} × {model}, {platform.system()} {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, {tar}, zstd {zstd.rpartition('v')[2]}"
    )


def keep_section(name: str, section: str) -> None:
    """Replace the section `## NAME: …` in RESULTS.md, or add it."""
    text = RESULTS.read_text() if RESULTS.exists() else HEAD
    head, *sections = text.split("\n## ")
    kept = {part.partition(":")[0]: part.rstrip("\n") for part in sections}
    kept[name] = section.removeprefix("## ").rstrip("\n")
    RESULTS.write_text(head.rstrip("\n") + "\n" + "".join(f"\n## {kept[key]}\n" for key in sorted(kept)))
