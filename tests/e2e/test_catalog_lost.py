"""The tape is the truth: what the catalog forgets, the cartridges bring back; an old catalog does no harm."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from harness import SMALL, Home, below, describe, make_tree

pytestmark = pytest.mark.slow

RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"  # of the age specification's README


def forget(home: Home) -> None:
    """Delete the database and the indexes."""
    for path in home.path.glob("catalog.db*"):
        path.unlink()
    shutil.rmtree(home.path / "indexes")


def files_of(home: Home, set_id: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = home.run("set", "files", set_id).json
    return found


def test_rebuild_brings_everything_back(home: Home, tree: Path, tmp_path: Path) -> None:
    """Sets, their files, commit points and cartridges are the same as before, a spanning set among them."""
    home.configure(**SMALL)
    home.library("8MiB")
    big = make_tree(tmp_path / "big", large=12 << 20, seed=3)
    sets = [home.run("backup", source, "--name", name).json["set_id"] for source, name in ((tree, "a"), (big, "b"))]
    before = [{k: v for k, v in item.items() if k != "job_id"} for item in home.run("sets").json]
    files = [files_of(home, set_id) for set_id in sets]
    forget(home)
    assert home.run("sets").json == []
    home.run("rebuild", "--library", "lib")
    after = [{k: v for k, v in item.items() if k != "job_id"} for item in home.run("sets").json]
    assert after == before
    assert [files_of(home, set_id) for set_id in sets] == files
    home.run("restore", "latest:b", "--to", tmp_path / "out")
    assert describe(below(tmp_path / "out", big)) == describe(big)
    third = home.run("backup", tree, "--name", "a").json
    assert third["set_id"] not in sets


def test_a_lost_database_never_leads_to_overwriting(home: Home, tree: Path, tmp_path: Path) -> None:
    """Without the catalog nothing is taken for scratch: a backup stops and says rebuild."""
    home.library()
    home.run("backup", tree, "--name", "t")
    forget(home)
    before = home.cartridge("CAP001L9").read_bytes()
    answer = home.run("backup", tree, "--name", "t", code=5)
    assert "rebuild" in answer.json["error"]["hint"]
    assert home.cartridge("CAP001L9").read_bytes() == before


def test_an_older_home_refuses_to_append_until_rebuilt(home: Home, tree: Path, tmp_path: Path) -> None:
    """A home restored from an older copy writes nothing over what it does not know, whichever way it is older."""
    home.library(cartridges=2)
    home.run("backup", tree, "--name", "t")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in home.path.glob("catalog.db*"):
        shutil.copy(path, copy)
    shutil.copytree(home.path / "indexes", copy / "indexes")
    newest = home.run("backup", tree, "--name", "t").json["set_id"]
    forget(home)
    for path in copy.glob("catalog.db*"):
        shutil.copy(path, home.path)
    shutil.copytree(copy / "indexes", home.path / "indexes")
    before = home.cartridge("CAP001L9").read_bytes()
    answer = home.run("backup", tree, "--name", "t", code=5)
    assert answer.json["error"]["code"] == "tape-ahead-of-catalog"
    assert home.cartridge("CAP001L9").read_bytes() == before
    home.run("rebuild", "--library", "lib")
    assert newest in [item["set_id"] for item in home.run("sets").json]
    home.run("backup", tree, "--name", "t")


def test_missing_cartridges_make_a_set_partial(home: Home, tmp_path: Path) -> None:
    """Sets of which a cartridge was erased are partial, it is named, and what remains restores."""
    home.configure(**SMALL)
    home.library("8MiB")
    tree = make_tree(tmp_path / "source", large=12 << 20)
    result = home.run("backup", tree, "--name", "t").json
    home.run("tape", "erase", result["cartridges"][1], "--yes")
    for _ in range(2):
        [found] = home.run("sets").json
        assert (found["state"], found["missing"]) == ("partial", [result["cartridges"][1]])
        answer = home.run("restore", result["set_id"], "--to", tmp_path / "out", code=6)
        assert answer.json["error"]["code"] == "set-partial"
        assert result["cartridges"][1] in answer.json["error"]["message"]
        restored = describe(below(tmp_path / "out", tree))
        original = describe(tree)
        assert restored.keys() & {b"zero", b"text.txt"} or len(restored) > 5
        assert all(original[path] == value for path, value in restored.items() if value[0] & 0o170000 == 0o100000)
        shutil.rmtree(tmp_path / "out")
        forget(home)
        home.run("rebuild", "--library", "lib")


def test_pools_demand_again_what_their_labels_say(home: Home, tree: Path) -> None:
    """Copy pool, verification and recipients come back with the cartridges; a copy pool that nothing is known of does
    not, and is named; a pool that is there keeps what it was told since."""
    home.library(cartridges=3)
    home.run("pool", "create", "vault", "--verify-writes")
    home.run("pool", "create", "main", "--copy-pool", "vault", "--recipient", RECIPIENT, "--verify-writes")
    home.run("pool", "create", "lone", "--copy-pool", "vault")
    for barcode, pool in (("CAP001L9", "main"), ("CAP002L9", "vault")):
        home.run("tape", "label", barcode, "--pool", pool)
    before = {name: demands(home, name) for name in ("main", "vault")}
    forget(home)
    answer = home.run("rebuild", "--library", "lib")
    told = [event["detail"] for event in answer.events if event.get("code") == "pool-made-again"]
    assert {name: demands(home, name) for name in ("main", "vault")} == before
    assert len(told) == 2 and "CAP001L9" in told[0] and "not known" not in told[0]
    home.run("pool", "change", "main", "--no-recipients")
    home.run("rebuild", "--library", "lib")
    assert demands(home, "main")["recipients"] == []

    home.run("tape", "erase", "CAP002L9", "--yes")
    forget(home)
    answer = home.run("rebuild", "--library", "lib")
    [told] = [event["detail"] for event in answer.events if event.get("code") == "pool-made-again"]
    assert "copy pool vault is not known here" in told
    assert demands(home, "main") == {**before["main"], "copy_pool": ""}


def demands(home: Home, name: str) -> dict[str, object]:
    """What a pool is told to do."""
    found = home.run("pool", "show", name).json
    return {key: found[key] for key in ("recipients", "drive_key", "require_escrow", "copy_pool", "verify_writes")}
