"""SQLite's loop: fail the n-th SCSI command of a backup, in every kind, once and for good.

After each: the backup is whole or has said what failed; whatever the catalog calls acknowledged restores; the catalog
knows nothing that is not on tape; nothing is stuck; the next backup, on devices that are well again, is whole.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from harness import SMALL, Home, below, describe, make_tree

from capstan.backup.request import BackupRequest
from capstan.bootstrap import Capstan, open_home
from capstan.core.job import JobKind
from capstan.errors import CapstanError
from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan

pytestmark = pytest.mark.slow

COMMANDS = 260  # a few more than one backup of the tree below sends
SAMPLE = random.Random(int(os.environ.get("CAPSTAN_ANOMALY_SEED", "4")))
EVERY = os.environ.get("CAPSTAN_ANOMALY") == "all"


def cases() -> list[Any]:
    """All of them for a soak; a seeded sample otherwise, every kind among it."""
    chosen = [
        (kind, nth, permanent) for kind in FaultKind for nth in range(1, COMMANDS + 1) for permanent in (False, True)
    ]
    if not EVERY:
        by_kind = {kind: [case for case in chosen if case[0] is kind] for kind in FaultKind}
        chosen = [case for found in by_kind.values() for case in SAMPLE.sample(found, 5)]
    return [pytest.param(*case, id=f"{case[0].value}-{case[1]}{'-for-good' if case[2] else ''}") for case in chosen]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a set on tape already, and the tree that will be backed up next."""
    root = tmp_path_factory.mktemp("anomaly")
    home = Home(root / "home")
    home.configure(**SMALL, commit_bytes=1 << 20)
    home.library("6MiB", cartridges=8)
    tree = make_tree(root / "source", files=30, large=7 << 20)
    home.run("backup", tree / "deep", "--name", "before", "--codec", "none")
    return root


async def back_up(home: Path, tree: Path, plan: FaultPlan | None) -> CapstanError | None:
    """One backup under `plan`; the error that it ended with."""
    try:
        async with open_home(home, faults=plan, sleep=lambda seconds: None) as capstan:
            await capstan.tidy()
            request = BackupRequest(
                sources=(os.fsencode(tree),), name="t", library="lib", parameters=capstan.parameters("none")
            )

            async def work(context: Any, capstan: Capstan = capstan) -> dict[str, Any]:
                return await capstan.backup.run(request, context)

            await capstan.jobs.run(JobKind.BACKUP, work, name="t", library="lib")
    except CapstanError as error:
        return error
    return None


@pytest.mark.parametrize(("kind", "nth", "permanent"), cases())
def test_a_backup_under_a_fault(template: Path, tmp_path: Path, kind: FaultKind, nth: int, permanent: bool) -> None:
    """See above."""
    shutil.copytree(template / "home", tmp_path / "home")
    tree = template / "source"
    home = Home(tmp_path / "home")
    plan = FaultPlan((Fault(kind, nth, permanent=permanent),))
    error = asyncio.run(back_up(home.path, tree, plan))
    states = {item["set_id"]: item for item in home.run("sets").json}
    finished = [item for item in states.values() if item["name"] == "t"]
    if error is None:
        assert [item["state"] for item in finished] == ["complete"]
    else:
        assert all(item["state"] in ("incomplete", "complete") for item in finished)
        assert str(error)
    assert {job["state"] for job in home.run("jobs").json} <= {"done", "failed"}

    again = home.run("backup", tree, "--name", "t").json
    assert not any(item["full"] for item in home.run("library", "inventory", "lib").json if "drive" in item["place"])
    original = describe(tree)
    for set_id in {again["set_id"], *(item["set_id"] for item in finished if item["state"] == "complete")}:
        home.run("restore", set_id, "--to", tmp_path / set_id)
        assert describe(below(tmp_path / set_id, tree)) == original
    for item in [item for item in finished if item["state"] == "incomplete" and item["files"]]:
        listed = home.run("set", "files", item["set_id"]).json
        whole = [found["path"] for found in listed if not found["flags"] and found["type"] == "file"]
        named = [path for path in whole if "\\x" not in path and "large" not in path]
        home.run("restore", item["set_id"], *named, "--to", tmp_path / "part")
    first = next(item for item in states.values() if item["name"] == "before")
    assert first["state"] == "complete"
    home.run("verify", first["set_id"])
    rebuilt_is_the_same(home, tmp_path)


def rebuilt_is_the_same(home: Home, tmp_path: Path) -> None:
    """Whatever was left on the cartridges: a rebuild finds every whole set again, and it restores."""

    def whole() -> dict[str, tuple[int, int]]:
        return {
            item["set_id"]: (item["files"], item["bytes"])
            for item in home.run("sets").json
            if item["state"] == "complete"
        }

    before = whole()
    for path in home.path.glob("catalog.db*"):
        path.unlink()
    shutil.rmtree(home.path / "indexes")
    home.run("rebuild", "--library", "lib")
    assert whole() == before
    for set_id in before:
        home.run("verify", set_id)
