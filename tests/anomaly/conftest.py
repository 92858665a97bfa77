"""The anomaly suite: one scene for all, copied for each case; counts for the soak."""

from __future__ import annotations

import fcntl
import gc
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))
sys.path.insert(0, str(Path(__file__).parent))

import figures
import scene as scenes


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[scenes.Scene]:
    """The scene that cases copy; the counts are written down when the process has done all of its cases."""
    base = tmp_path_factory.getbasetemp()  # below that of the whole run, where several processes share it
    with _shared(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) as built:
        gc.freeze()  # thousands of runs need not look again through what was imported for the first
        yield built
        gc.unfreeze()  # or extension modules complain at the end that theirs was not collected
    figures.write_down("anomaly")


@pytest.fixture
def bench(scene: scenes.Scene) -> Iterator[Path]:
    """A folder for the cases of one test."""
    with tempfile.TemporaryDirectory(dir=scene.cases) as folder:
        yield Path(folder)


@contextmanager
def _shared(base: Path) -> Iterator[scenes.Scene]:
    """The one scene of all processes of this run, so that what one has proven is proven for all.

    Whoever comes first builds it, and whoever goes last removes it.
    """
    folder = base / "anomaly"
    folder.mkdir(mode=0o700, exist_ok=True)
    user, known = folder / f"user-{os.getpid()}", folder / "scene"
    with _locked(folder):
        user.touch()
        if not known.exists():
            root = Path(tempfile.mkdtemp(prefix="capstan-anomaly-", dir=scenes.scratch_folder()))
            known.write_bytes(pickle.dumps(scenes.build(root)))
    built: scenes.Scene = pickle.loads(known.read_bytes())
    try:
        yield built
    finally:
        with _locked(folder):
            user.unlink()
            if not list(folder.glob("user-*")):
                shutil.rmtree(built.root)
                known.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
