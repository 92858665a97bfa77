"""What a run of the anomaly suite has done, counted; `soak.py` adds the counts of all processes up."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

FIGURES: Counter[str] = Counter()
FOLDER = os.environ.get("CAPSTAN_SOAK_FIGURES", "")


def write_down(part: str) -> None:
    """Leave this process's counts where the soak gathers them; nothing where there is none."""
    if FOLDER and FIGURES:
        Path(FOLDER).mkdir(parents=True, exist_ok=True)
        (Path(FOLDER) / f"{part}-{os.getpid()}.json").write_text(json.dumps(FIGURES))
