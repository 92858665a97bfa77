"""kill -9 at any moment of a backup: what was acknowledged stays, nothing is stuck, the next backup works."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import SMALL, Home, below, describe, make_tree

pytestmark = pytest.mark.slow

COMMITS = 4  # or more: what the tree below gives on these cartridges
KILLER = Path(__file__).parent / "killer.py"
CHANCE = random.Random(20)
MOMENTS = [
    *(("written", number) for number in range(1, COMMITS + 1)),
    *(("entered", number) for number in range(1, COMMITS + 1)),
    ("labelled", 1),
    *(("event", CHANCE.randint(1, 14)) for _ in range(3)),
]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Cartridges of 4 MiB and a commit point for each MiB."""
    home = Home(tmp_path / "home")
    home.configure(**SMALL, commit_bytes=1 << 20)
    home.library("6MiB")
    return home


def killed(home: Home, tree: Path, moment: str, number: int) -> bool:
    """Run a backup that dies; False when it ended before the moment came."""
    done = subprocess.run(
        [sys.executable, str(KILLER), str(home.path), str(tree), "t", moment, str(number)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return done.returncode != 0


@pytest.mark.parametrize(("moment", "number"), MOMENTS)
def test_killed_at(home: Home, tmp_path: Path, moment: str, number: int) -> None:
    """After the kill: no half set is whole, every acknowledged file restores, the next backup is complete, and all of
    it survives the loss of the catalog."""
    tree = make_tree(tmp_path / "source", files=80, large=4 << 20)
    first = home.run("backup", tree / "deep", "--name", "before").json["set_id"]
    assert killed(home, tree, moment, number), "the backup ended before the moment came: choose smaller numbers"

    sets = {item["set_id"]: item for item in home.run("sets").json}
    assert sets.pop(first)["state"] == "complete"
    assert all(item["state"] in ("writing", "incomplete") for item in sets.values())
    assert {job["state"] for job in home.run("jobs").json} == {"done", "interrupted"}
    assert [event for event in home.run("library", "inventory", "lib").json if event["place"] == "drive:102"]

    result = home.run("backup", tree, "--name", "t").json
    states = {item["set_id"]: item["state"] for item in home.run("sets").json}
    assert states[result["set_id"]] == states[first] == "complete"
    assert not any(place["full"] for place in home.run("library", "inventory", "lib").json if "drive" in place["place"])

    original = describe(tree)
    home.run("restore", result["set_id"], "--to", tmp_path / "out")
    assert describe(below(tmp_path / "out", tree)) == original
    for item in [item for item in home.run("sets").json if item["state"] == "incomplete" and item["files"]]:
        acknowledged(home, item, tree, tmp_path / "part")


def acknowledged(home: Home, item: dict[str, object], tree: Path, target: Path) -> None:
    """Every file that a commit point of an incomplete set names restores as it was."""
    listed = home.run("set", "files", str(item["set_id"])).json
    whole = [found["path"] for found in listed if "continues" not in found["flags"] and found["type"] != "dir"]
    assert len(whole) >= int(str(item["files"]))
    named = [path for path in whole if "\\x" not in path]  # the form for people does not select a name that is no UTF-8
    home.run("restore", str(item["set_id"]), *named, "--to", target)
    restored = describe(below(target, tree))
    original = describe(tree)
    assert restored
    for path, value in restored.items():
        if value[0] & 0o170000 != 0o040000:
            assert value[0] == original[path][0]
            assert value[3] == original[path][3]


def test_an_acknowledged_commit_point_is_taken_in(home: Home, tmp_path: Path) -> None:
    """A commit point that reached the medium and not the catalog is there after the next backup, without a rebuild."""
    tree = make_tree(tmp_path / "source", large=4 << 20)
    assert killed(home, tree, "written", 2)
    [item] = home.run("sets").json
    home.run("backup", tree, "--name", "t")
    [again, _] = home.run("sets").json
    assert again["set_id"] == item["set_id"]
    assert home.run("set", "show", again["set_id"]).json["commit_points"] == 2
    assert again["state"] == "incomplete"
