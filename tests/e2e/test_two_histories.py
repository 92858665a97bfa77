"""A set that was written twice from some commit point on: nothing acknowledged is written over, nothing is mixed."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from harness import SMALL, Home, below, describe, make_tree
from test_catalog_lost import forget
from test_resume import killed

pytestmark = pytest.mark.slow


def remember(home: Home, folder: Path) -> None:
    """Copy what a home knows."""
    folder.mkdir()
    for path in home.path.glob("catalog.db*"):
        shutil.copy(path, folder)
    shutil.copytree(home.path / "indexes", folder / "indexes")


def put_back(home: Home, folder: Path) -> None:
    """A home from its copy; the tapes have gone on."""
    forget(home)
    for path in folder.glob("catalog.db*"):
        shutil.copy(path, home.path)
    shutil.copytree(folder / "indexes", home.path / "indexes")


def set_state(home: Home, barcode: str, state: str) -> None:
    """As if an operator had put a cartridge aside, or back."""
    with closing(sqlite3.connect(home.path / "catalog.db")) as database:
        database.execute("UPDATE cartridges SET state = ? WHERE barcode = ?", (state, barcode))
        database.commit()


def test_a_home_put_back_goes_on_with_another_cartridge(home: Home, tmp_path: Path) -> None:
    """A set is finished; the home is put back to when it was half written, and finishes it again on another cartridge
    with what the source is by then. What was acknowledged is not written over, and a rebuild mixes nothing."""
    home.configure(**SMALL, commit_bytes=1 << 20, codec="none")
    home.library("64MiB", cartridges=2)
    tree = make_tree(tmp_path / "source", files=40, large=6 << 20)
    job = killed(home, tree, "entered", 2)
    remember(home, tmp_path / "older")
    set_id = home.run("job", "resume", job).json["set_id"]
    [first] = home.run("set", "show", set_id).json["cartridges"]

    put_back(home, tmp_path / "older")
    (tree / "zero").write_text("not any more")
    set_state(home, first, "full")
    home.run("job", "resume", job)
    [_, second] = home.run("set", "show", set_id).json["cartridges"]
    set_state(home, first, "available")
    set_state(home, second, "full")
    before = home.cartridge(first).read_bytes()
    answer = home.run("backup", tree, "--name", "other", code=5)
    assert answer.json["error"]["code"] == "tape-ahead-of-catalog"
    assert home.cartridge(first).read_bytes() == before

    for _ in range(2):
        answer = home.run("rebuild", "--library", "lib")
        [warning] = [event for event in answer.events if event.get("code") == "another-history"]
        assert set_id in warning["detail"] and first in warning["detail"]
        home.run("restore", set_id, "--to", tmp_path / "out")
        assert describe(below(tmp_path / "out", tree)) == describe(tree)
        home.run("verify", set_id)
        shutil.rmtree(tmp_path / "out")
        forget(home)
    home.run("rebuild", "--library", "lib")
    set_state(home, second, "full")
    home.run("backup", tree, "--name", "other")  # behind all that is there
    assert home.cartridge(first).read_bytes()[: len(before) - 4] == before[:-4]  # but the end-of-medium mark
