"""Back up, lose, restore: through the command line, on a virtual library."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from harness import SMALL, Home, below, describe, make_tree

pytestmark = pytest.mark.slow

BACKUP_PHASES = [
    *("create", "accept", "scan", "group-and-compress", "get-cartridge", "load"),
    *("write", "record-set", "unload", "notify"),
]
RESTORE_PHASES = ["search", "select", "create", "load", "read", "decompress", "verify", "write", "notify"]


def test_everything_comes_back(home: Home, tree: Path, tmp_path: Path) -> None:
    """Content, modes, owners, nanosecond times, links, odd names; the JSON says what it must."""
    home.library()
    backup = home.run("backup", tree, "--name", "t")
    before = describe(tree)
    result = backup.json
    assert {"set_id", "name", "type", "files", "bytes", "stored_bytes", "cartridges", "warnings", "seconds"} <= set(
        result
    )
    assert (result["name"], result["type"], result["warnings"]) == ("t", "full", 0)
    assert result["cartridges"] == ["CAP001L9"]
    assert result["files"] == sum(1 for mode, *_ in before.values() if mode & 0o170000 != 0o040000)
    assert backup.phases() == BACKUP_PHASES
    [found] = home.run("sets").json
    assert (found["set_id"], found["state"], found["files"]) == (result["set_id"], "complete", result["files"])
    assert {"name", "type", "created_at", "bytes"} <= set(found)

    restore = home.run("restore", "latest:t", "--to", tmp_path / "out")
    assert describe(below(tmp_path / "out", tree)) == before
    value = restore.json
    wanted = {"set_id", "files", "bytes", "verified_files", "bytes_read_from_tape", "locates", "errors", "warnings"}
    assert wanted | {"seconds"} <= set(value)
    assert (value["errors"], value["warnings"], value["files"]) == (0, 0, result["files"])
    regular = sum(1 for mode, *_, content in before.values() if mode & 0o170000 == 0o100000 and b" = " not in content)
    assert value["verified_files"] == regular  # links have no digest
    assert restore.phases() == RESTORE_PHASES


def test_in_place_and_stripped(home: Home, tree: Path, tmp_path: Path) -> None:
    """`--to /` puts files where they were; `--strip` drops leading parts of the path."""
    home.library()
    set_id = home.run("backup", tree).json["set_id"]
    before = describe(tree)
    shutil.rmtree(tree)
    home.run("restore", set_id[:8], "--to", "/")
    assert describe(tree) == before
    depth = len(tree.parts) - 1
    home.run("restore", set_id, "--to", tmp_path / "flat", "--strip", str(depth))
    assert describe(tmp_path / "flat") == before


def test_conflicts(home: Home, tmp_path: Path) -> None:
    """What is there is kept, replaced, replaced when older, or left beside the restored one."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("from tape")
    os.utime(source / "a", ns=(0, 10**18))
    home.library()
    home.run("backup", source, "--name", "t")

    def restored(policy: str, mtime_ns: int) -> dict[str, str]:
        (source / "a").write_text("mine")
        os.utime(source / "a", ns=(0, mtime_ns))
        home.run("restore", "latest:t", "--to", "/", "--on-conflict", policy)
        found = {path.name: path.read_text() for path in source.iterdir()}
        for path in source.iterdir():
            path.unlink()
        return found

    assert restored("skip", 1) == {"a": "mine"}
    assert restored("overwrite", 2 * 10**18) == {"a": "from tape"}
    assert restored("keep-newer", 1) == {"a": "from tape"}
    assert restored("keep-newer", 2 * 10**18) == {"a": "mine"}
    assert restored("rename", 1) == {"a": "mine", "a.restored-1": "from tape"}


def test_a_set_spans_cartridges(home: Home, tmp_path: Path) -> None:
    """A set larger than a cartridge, with a file larger than one, comes back; any one small file by one LOCATE."""
    home.configure(**SMALL)
    home.library("8MiB")
    tree = make_tree(tmp_path / "source", large=12 << 20)
    result = home.run("backup", tree, "--name", "t").json
    assert len(result["cartridges"]) >= 3
    home.run("restore", "latest:t", "--to", tmp_path / "out")
    assert describe(below(tmp_path / "out", tree)) == describe(tree)
    for name in ("deep/file 0000.dat", "deep/er/file 0059.dat", "zero"):
        one = home.run("restore", "latest:t", tree / name, "--to", tmp_path / "one").json
        assert one["locates"] <= 1
        assert one["bytes_read_from_tape"] < 32 << 20
        assert (below(tmp_path / "one", tree) / name).read_bytes() == (tree / name).read_bytes()


def test_a_second_backup_is_appended(home: Home, tree: Path, tmp_path: Path) -> None:
    """Sets follow one another on a cartridge, each restores, and NAME@TIME finds the one of that time."""
    home.library()
    first = home.run("backup", tree, "--name", "t").json
    before = describe(tree)
    (tree / "text.txt").write_text("changed")
    second = home.run("backup", tree, "--name", "t").json
    assert first["cartridges"] == second["cartridges"] == ["CAP001L9"]
    home.run("restore", "latest:t", "--to", tmp_path / "new")
    assert describe(below(tmp_path / "new", tree)) == describe(tree)
    one, two = home.run("sets").json
    home.run("restore", f"t@{one['created_at']}", "--to", tmp_path / "old", code=3)  # it had not ended then
    home.run("restore", f"t@{two['created_at']}", "--to", tmp_path / "old")
    assert describe(below(tmp_path / "old", tree)) == before
    changes = [line for line in home.run("set", "diff", first["set_id"], second["set_id"]).out.splitlines() if line]
    assert any('"change": "changed"' in line and "text.txt" in line for line in changes)


def test_a_source_that_is_a_link(home: Home, tree: Path, tmp_path: Path) -> None:
    """With a slash behind it, it is what it leads to."""
    home.library()
    (tmp_path / "link").symlink_to(tree)
    assert home.run("backup", tmp_path / "link", "--name", "link").json["files"] == 1
    assert home.run("backup", f"{tmp_path}/link/", "--name", "tree").json["files"] > 60
    home.run("restore", "latest:tree", "--to", tmp_path / "out")
    assert describe(below(tmp_path / "out", tree)) == describe(tree)


def test_a_hard_link_without_its_partner_brings_the_data(home: Home, tree: Path, tmp_path: Path) -> None:
    """The chosen name gets the content, also when the name that holds it was not chosen."""
    home.library()
    home.run("backup", tree, "--name", "t")
    for name in ("text.txt", "text hard.txt"):
        target = tmp_path / name.replace(" ", "-")
        home.run("restore", "latest:t", tree / name, "--to", target)
        assert [path.name for path in below(target, tree).iterdir()] == [name]
        assert (below(target, tree) / name).read_bytes() == (tree / name).read_bytes()


def test_every_codec(home: Home, tree: Path, tmp_path: Path) -> None:
    """zstd, lz4, gzip and none all come back."""
    home.library()
    for codec in ("zstd:-3", "lz4", "gzip:1", "gzip:6", "none"):
        home.run("backup", tree, "--name", "t", "--codec", codec)
        target = tmp_path / codec.replace(":", "-")
        home.run("restore", "latest:t", "--to", target)
        assert describe(below(target, tree)) == describe(tree)


def test_excludes_and_the_home_itself(home: Home, tree: Path, tmp_path: Path) -> None:
    """gitignore patterns leave files out; a home inside the source is never backed up into itself."""
    home.library()
    result = home.run("backup", tmp_path, "--name", "t", "--exclude", "*.dat", "--exclude", "/source/empty/").json
    found = [item["path"] for item in home.run("set", "files", result["set_id"]).json]
    assert str(tree / "large.bin") in found
    assert not [path for path in found if path.endswith((".dat", "/empty")) or "/home/" in path]
