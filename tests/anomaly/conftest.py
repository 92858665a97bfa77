"""The anomaly suite: one scene for all, copied for each case; counts for the soak."""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))
sys.path.insert(0, str(Path(__file__).parent))

import figures
import scene as scenes


@pytest.fixture(scope="session")
def scene() -> Iterator[scenes.Scene]:
    """The scene that cases copy; the counts are written down when the process has done all of its cases."""
    with tempfile.TemporaryDirectory(prefix="capstan-anomaly-", dir=scenes.scratch_folder()) as folder:
        built = scenes.build(Path(folder))
        gc.freeze()  # thousands of runs need not look again through what was imported for the first
        yield built
        gc.unfreeze()  # or extension modules complain at the end that theirs was not collected
    figures.write_down("anomaly")


@pytest.fixture
def bench(scene: scenes.Scene) -> Iterator[Path]:
    """A folder for the cases of one test."""
    with tempfile.TemporaryDirectory(prefix="cases-", dir=scene.root) as folder:
        yield Path(folder)
