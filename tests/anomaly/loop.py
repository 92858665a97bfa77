"""Goes through numbered cases: all of them for a soak, a seeded sample otherwise, or the very one that is named.

`CAPSTAN_ANOMALY=all` runs every case, `CAPSTAN_ANOMALY=1/8` one out of each eight that follow one another, and
`CAPSTAN_ANOMALY=17` only number 17 of each test that is chosen: that is how a failure is looked at.
`CAPSTAN_ANOMALY_SEED` draws others.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from scene import Scene

WHICH = os.environ.get("CAPSTAN_ANOMALY", "")
EVERY = WHICH == "all"
OF = int(WHICH.removeprefix("1/")) if WHICH.startswith("1/") else 0
SEED = os.environ.get("CAPSTAN_ANOMALY_SEED", "4")


def one_is_named() -> bool:
    """Whether the very case is looked at that was named."""
    return WHICH.isdecimal()


Case = Callable[[Scene, int], bool]


def go_through(scene: Scene, bench: Path, case: Case, *, name: str, count: int, sample: int) -> None:
    """Run `case(scene, n)`, each with a fresh copy of `scene`, until one says that its fault never came.

    There are about `count` cases; outside a soak `sample` of them are drawn. All failures are raised together, each
    with its number.
    """
    if one_is_named():
        numbers = [int(WHICH)]
    elif EVERY:
        numbers = list(range(1, 10 * count))
    elif OF:
        chance = random.Random(f"{SEED} {name}")
        numbers = [start + chance.randrange(OF) for start in range(1, count + 1, OF)]
    else:
        numbers = sorted(random.Random(f"{SEED} {name}").sample(range(1, count + 1), min(sample, count)))
    failures: list[Exception] = []
    for number in numbers:
        folder = bench / str(number)
        folder.mkdir()
        try:
            came = case(scene.copy(folder), number)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is told with its number)
            error.add_note(f"{name}, number {number}")
            failures.append(error)
            came = True
        shutil.rmtree(folder, ignore_errors=True)
        if not came and EVERY:
            break
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(numbers)} cases of {name}", failures)
