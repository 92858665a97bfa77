"""Incremental and differential sets through the command line: what they build on, what they need, what they say."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import SMALL, Answer, Home, below, describe, make_tree

from capstan.backup.request import BackupRequest
from capstan.bootstrap import open_home
from capstan.core.backup import SetType
from capstan.core.job import Event, JobKind
from capstan.errors import JobCancelled

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """With a library."""
    home = Home(tmp_path / "home")
    home.configure(**SMALL)
    home.library()
    return home


def codes(answer: Answer) -> list[str]:
    """The codes of a job's warnings."""
    return [event["code"] for event in answer.events if event["event"] == "job.warning"]


def test_the_first_is_a_full_one_and_says_so(home: Home, tree: Path) -> None:
    """Without a parent there is nothing to be incremental to."""
    answer = home.run("backup", tree, "--name", "t", "--type", "incremental")
    assert (answer.json["type"], answer.json["parent_id"]) == ("full", "")
    assert codes(answer) == ["no-parent"]


def test_what_each_builds_on(home: Home, tree: Path) -> None:
    """An incremental set on the newest, a differential one on the newest full, by their numbers."""
    first = home.run("backup", tree, "--name", "t").json["set_id"]
    second = home.run("backup", tree, "--name", "t", "--type", "incremental").json
    third = home.run("backup", tree, "--name", "t", "--type", "incremental").json
    fourth = home.run("backup", tree, "--name", "t", "--type", "differential").json
    fifth = home.run("backup", tree, "--name", "t", "--type", "incremental").json
    assert [item["parent_id"] for item in (second, third, fourth, fifth)] == [
        first,
        second["set_id"],
        first,
        fourth["set_id"],
    ]
    assert [item["type"] for item in (second, fourth)] == ["incremental", "differential"]


def test_other_sources_are_another_tree(home: Home, tree: Path) -> None:
    """A set of other sources is no parent: what is not among them now would be called deleted."""
    home.run("backup", tree, "--name", "t")
    answer = home.run("backup", tree / "deep", "--name", "t", "--type", "incremental")
    assert answer.json["type"] == "full"
    [warning] = [event for event in answer.events if event["event"] == "job.warning"]
    assert "sources were others" in warning["detail"]


def test_other_rules_are_another_tree(home: Home, tree: Path) -> None:
    """What is left out by new patterns is not deleted: a full set is made, and the next ones build on that. A rebuild
    finds the patterns on tape."""
    (tree / "a.tmp").touch()
    command = ("backup", tree, "--name", "t", "--type", "incremental")
    home.run(*command)
    rules = ("--exclude", "*.tmp", "--one-file-system")
    answer = home.run(*command, *rules)
    assert (codes(answer), answer.json["type"]) == (["no-parent"], "full")
    assert home.run(*command, *rules).json["parent_id"] == answer.json["set_id"]
    for path in home.path.glob("catalog.db*"):
        path.unlink()
    home.run("rebuild", "--library", "lib")
    assert home.run(*command, *rules).json["type"] == "incremental"
    assert "--one-file-system" in home.run(*command, "--exclude", "*.tmp").err


def test_a_parent_that_cannot_be_used(home: Home, tree: Path) -> None:
    """Its index is torn, or its cartridge erased: a full set is made, and the reason said. What builds on a set that
    is gone says so too, and gives what it has stored itself."""
    first = home.run("backup", tree, "--name", "t").json["set_id"]
    (tree / "new").write_text("new")
    second = home.run("backup", tree, "--name", "t", "--type", "incremental").json
    [index] = (home.path / "indexes" / first).glob("1-*.files.parquet")
    kept = index.read_bytes()
    index.write_bytes(kept[:-10])
    answer = home.run("backup", tree, "--name", "t", "--type", "incremental")
    assert answer.json["type"] == "full"
    assert codes(answer) == ["no-parent"]
    index.write_bytes(kept)
    home.run("set", "files", second["set_id"])


def test_a_chain_whose_full_set_is_erased(home: Home, tree: Path, tmp_path: Path) -> None:
    """The erase names the sets that build on what it loses; they say what is missing and restore their own files."""
    home.run("pool", "create", "one")
    first = home.run("backup", tree, "--name", "t", "--pool", "one").json
    (tree / "new").write_text("new")
    second = home.run("backup", tree, "--name", "t", "--type", "incremental").json
    assert first["cartridges"] != second["cartridges"]
    erased = home.run("tape", "erase", *first["cartridges"], "--yes").json
    assert (erased["forgotten_sets"], erased["broken_sets"]) == ([first["set_id"]], [second["set_id"]])
    error = home.run("restore", second["set_id"], "--to", tmp_path / "out", code=5).json["error"]
    assert (error["code"], "--only-this-set" in error["hint"]) == ("parent-missing", True)
    assert not (tmp_path / "out").exists()
    home.run("restore", second["set_id"], "--only-this-set", "--to", tmp_path / "own")
    assert (below(tmp_path / "own", tree) / "new").read_text() == "new"
    answer = home.run("backup", tree, "--name", "t", "--type", "incremental")
    assert answer.json["type"] == "full"


def test_a_long_chain_asks_for_a_full_set(home: Home, tree: Path) -> None:
    """From the limit on each further set says it; it is made all the same."""
    (home.path / "capstan.toml").open("a").write("\n[engine]\nchain_limit = 2\n")
    home.run("backup", tree, "--name", "t")
    assert codes(home.run("backup", tree, "--name", "t", "--type", "incremental")) == []
    answer = home.run("backup", tree, "--name", "t", "--type", "incremental")
    assert (answer.json["type"], codes(answer)) == ("incremental", ["long-chain"])


def test_a_set_that_ended_early_says_where_the_parent_begins(tmp_path: Path) -> None:
    """An incremental backup is cancelled in the middle: a restore of its set gives what it has committed, and behind
    that what the parent holds, and says up to which path; so do a plan, the list and the comparison."""
    home = Home(tmp_path / "home")
    home.configure(**SMALL, commit_bytes=1 << 20, codec="none")
    home.library()
    source = tmp_path / "source"
    source.mkdir()
    names = [f"file {number}" for number in range(8)]
    for name in names:
        (source / name).write_bytes(b"old" * 200_000)
    first = home.run("backup", source, "--name", "t").json["set_id"]
    for name in names:
        (source / name).write_bytes(b"new" * 200_000)
    cancel_at_a_commit_point(home, source)
    [found] = [item for item in home.run("sets").json if item["state"] == "incomplete"]
    assert found["parent_id"] == first
    answer = home.run("restore", found["set_id"], "--to", tmp_path / "out")
    assert answer.json["warning_codes"] == {"incomplete-set": 1}
    [warning] = [event for event in answer.events if event["event"] == "job.warning"]
    assert (found["set_id"] in warning["detail"], first in warning["detail"]) == (True, True)
    last = names.index(Path(warning["path"]).name)
    assert 0 <= last < len(names) - 1
    content = [(below(tmp_path / "out", source) / name).read_bytes()[:3] for name in names]
    assert content == [b"new"] * (last + 1) + [b"old"] * (len(names) - last - 1)
    assert warning["path"] in home.run("restore", found["set_id"], "--to", tmp_path, "--plan").json["shortfall"]
    for command in (("set", "files", found["set_id"]), ("set", "diff", first, found["set_id"])):
        [note] = [event for event in home.run(*command).events if event["event"] == "note"]
        assert ("incomplete-set" in note["text"], warning["path"] in note["text"]) == (True, True)
    assert home.run("set", "files", first).events == []


def cancel_at_a_commit_point(home: Home, source: Path) -> None:
    """Run an incremental backup that is cancelled behind its first commit point."""

    async def body() -> None:
        def hear(event: Event) -> None:
            if event.kind == "job.committed":
                capstan.jobs.cancel_all()

        async with open_home(home.path, listener=hear) as capstan:
            request = BackupRequest(
                (os.fsencode(source),), "t", "lib", type=SetType.INCREMENTAL, parameters=capstan.parameters()
            )
            with pytest.raises(JobCancelled):
                await capstan.jobs.run(JobKind.BACKUP, lambda job: capstan.backup.run(request, job), name="t")

    asyncio.run(body())


def test_a_move_is_shown_and_stored_again(home: Home, tree: Path, tmp_path: Path) -> None:
    """`set diff` between any two sets, whatever they build on."""
    first = home.run("backup", tree, "--name", "t").json["set_id"]
    (tree / "large.bin").rename(tree / "deep" / "moved.bin")
    (tree / "zero").unlink()
    second = home.run("backup", tree, "--name", "t", "--type", "incremental").json["set_id"]
    changes = {item["path"]: item for item in home.run("set", "diff", first, second).json}
    moved = changes[str(tree / "deep" / "moved.bin")]
    assert (moved["change"], moved["moved_from"]) == ("moved", str(tree / "large.bin"))
    assert changes[str(tree / "zero")]["change"] == "removed"
    back = {item["path"]: item["change"] for item in home.run("set", "diff", second, first).json}
    assert back[str(tree / "zero")] == "added"
    stored = {item["path"] for item in home.run("set", "files", second, "--stored").json}
    assert str(tree / "deep" / "moved.bin") in stored
    one = home.run("restore", second, tree / "deep" / "moved.bin", "--to", tmp_path / "one").json
    assert one["files"] == 1


def test_one_file_of_a_chain_costs_one_locate(home: Home, tree: Path, tmp_path: Path) -> None:
    """Wherever in the chain it lies; and a whole restore mounts a cartridge once, not once for each set."""
    home.run("backup", tree, "--name", "t")
    for number in range(3):
        (tree / f"new{number}").write_text(f"{number}" * 1000)
        home.run("backup", tree, "--name", "t", "--type", "incremental")
    for name in ("new0", "new2", "deep/file 0000.dat"):
        one = home.run("restore", "latest:t", tree / name, "--to", tmp_path / "one").json
        assert one["locates"] == 1
        assert (below(tmp_path / "one", tree) / name).read_bytes() == (tree / name).read_bytes()
    whole = home.run("restore", "latest:t", "--to", tmp_path / "all")
    assert sum(event["event"] == "cartridge.loaded" for event in whole.events) == 1
    assert describe(below(tmp_path / "all", tree)) == describe(tree)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, mounted in the tree."""
    point = tmp_path / "source" / "mnt"
    point.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(point)], check=True)
    yield point
    subprocess.run(["umount", str(point)], check=False, capture_output=True)


@pytest.mark.requires("root")
def test_what_is_not_mounted_is_not_deleted(home: Home, mounted: Path, tmp_path: Path) -> None:
    """The set made without it, and the one after that, still give what was there; mounted again it is compared."""
    source = mounted.parent
    for number in range(5):
        (mounted / f"f{number}").write_text(f"{number}")
    (source / "beside").write_text("b")
    home.run("backup", source, "--name", "t")
    before = describe(source)
    subprocess.run(["umount", str(mounted)], check=True)
    for number in range(2):
        answer = home.run("backup", source, "--name", "t", "--type", "incremental")
        assert codes(answer) == ["unmounted"]
        home.run("restore", "latest:t", "--to", tmp_path / f"out{number}")
        assert describe(below(tmp_path / f"out{number}", source)) == before


@pytest.mark.requires("root")
def test_a_further_name_that_was_not_looked_at_keeps_its_file(home: Home, mounted: Path, tmp_path: Path) -> None:
    """Its first name is replaced, renamed over or removed while something is mounted over its directory: all of it, or
    that name alone, gets what was there."""
    source = mounted.parent
    subprocess.run(["umount", str(mounted)], check=True)
    for number in range(3):
        (source / f"first {number}").write_text(f"old {number}")
        (mounted / f"further {number}").hardlink_to(source / f"first {number}")
    home.run("backup", source, "--name", "t")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(mounted)], check=True)
    (source / "first 0").unlink()
    (source / "first 0").write_text("another file")
    (source / "other").write_text("a third file")
    (source / "other").rename(source / "first 1")
    (source / "first 2").unlink()
    home.run("backup", source, "--name", "t", "--type", "incremental")
    for number in range(3):
        name = f"further {number}"
        home.run("restore", "latest:t", mounted / name, "--to", tmp_path / name)
        assert (below(tmp_path / name, mounted) / name).read_text() == f"old {number}"
    home.run("restore", "latest:t", "--to", tmp_path / "out")
    assert [path.read_text() for path in sorted(below(tmp_path / "out", mounted).iterdir())] == [
        "old 0",
        "old 1",
        "old 2",
    ]
    assert (below(tmp_path / "out", source) / "first 0").read_text() == "another file"
    assert (below(tmp_path / "out", source) / "first 1").read_text() == "a third file"


@pytest.mark.requires("root")
@pytest.mark.parametrize("kind", ["bind", "another"])
def test_what_is_mounted_is_known_by_itself(home: Home, tmp_path: Path, kind: str) -> None:
    """A directory of the same file system that was mounted here and is not, and another file system of the same type,
    neither of which a device or an inode tells; however many sets are made meanwhile, and through a rebuild."""
    source, point, kept = tmp_path / "source", tmp_path / "source/mnt", tmp_path / "kept"
    point.mkdir(parents=True)
    (kept / "d").mkdir(parents=True)
    new = ["mount", "-t", "tmpfs", "tmpfs", str(point)]
    mount = ["mount", "--bind", str(kept), str(point)] if kind == "bind" else new
    subprocess.run(mount, check=True)
    try:
        (point / "d").mkdir(exist_ok=True)
        (point / "d/file").write_text("kept")
        (source / "beside").write_text("b")
        home.run("backup", source, "--name", "t")
        before = describe(source)
        subprocess.run(["umount", str(point)] if kind == "bind" else new, check=True)
        (point / "what is here now").touch()
        for number in range(3):
            assert codes(home.run("backup", source, "--name", "t", "--type", "incremental")) == ["unmounted"]
            answer = home.run("restore", "latest:t", "--to", tmp_path / f"out{number}")
            found = describe(below(tmp_path / f"out{number}", source))
            assert found.pop(b"mnt/what is here now")
            assert {path for path in found if found[path] != before[path]} <= {b"mnt"}
            assert found.keys() == before.keys()
            assert "kept" in codes(answer)
            for path in home.path.glob("catalog.db*"):
                path.unlink()
            home.run("rebuild", "--library", "lib")
        if kind == "bind":
            (point / "what is here now").unlink()
            subprocess.run(mount, check=True)
            shutil.rmtree(point / "d")
            assert codes(home.run("backup", source, "--name", "t", "--type", "incremental")) == []
            home.run("restore", "latest:t", "--to", tmp_path / "again")
            assert describe(below(tmp_path / "again", source)).keys() == {b"mnt", b"beside"}
    finally:
        for _ in range(3):
            subprocess.run(["umount", str(point)], check=False, capture_output=True)


@pytest.mark.requires("root")
def test_what_another_file_system_lies_over_is_not_deleted(home: Home, mounted: Path, tmp_path: Path) -> None:
    """It was mounted onto a directory that held something; in the next sets too."""
    subprocess.run(["umount", str(mounted)], check=True)
    source = mounted.parent
    (mounted / "under").write_text("hidden")
    home.run("backup", source, "--name", "t")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(mounted)], check=True)
    (mounted / "over").touch()
    for number in range(2):
        assert codes(home.run("backup", source, "--name", "t", "--type", "incremental")) == ["unmounted"]
        home.run("restore", "latest:t", "--to", tmp_path / f"out{number}")
        assert describe(below(tmp_path / f"out{number}", source)).keys() == {b"mnt", b"mnt/under", b"mnt/over"}


def test_a_link_above_a_source_leads_elsewhere(home: Home, tmp_path: Path) -> None:
    """Then it is another tree, and a full set is made of it."""
    for name in ("one", "two"):
        (tmp_path / name / "app").mkdir(parents=True)
        (tmp_path / name / "app/file").write_text(name)
    link = tmp_path / "current"
    link.symlink_to("one")
    command = ("backup", link / "app", "--name", "t", "--type", "incremental")
    home.run(*command)
    link.unlink()
    link.symlink_to("two")
    answer = home.run(*command)
    assert (codes(answer), answer.json["type"]) == (["no-parent"], "full")
    assert home.run(*command).json["type"] == "incremental"


def test_an_empty_source_is_not_deleted(home: Home, tree: Path, tmp_path: Path) -> None:
    """Somebody emptied it, or something that should be there is not: all of it stays until a full set is made."""
    home.run("backup", tree, "--name", "t")
    before = describe(tree)
    for path in tree.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    answer = home.run("backup", tree, "--name", "t", "--type", "incremental")
    assert codes(answer) == ["empty"]
    home.run("restore", "latest:t", "--to", tmp_path / "out")
    assert describe(below(tmp_path / "out", tree)) == before


def test_two_sources_in_one_tree(home: Home, tmp_path: Path) -> None:
    """Deletions in either, and a source that is one file."""
    first, second = make_tree(tmp_path / "a", seed=3), make_tree(tmp_path / "b", seed=4)
    single = tmp_path / "b.txt"
    single.write_text("one")
    sources = [first, second, single]
    home.run("backup", *sources, "--name", "t")
    (first / "zero").unlink()
    (second / "zero").unlink()
    single.write_text("two!")
    home.run("backup", *sources, "--name", "t", "--type", "incremental")
    home.run("restore", "latest:t", "--to", tmp_path / "out")
    for source in (first, second):
        assert describe(below(tmp_path / "out", source)) == describe(source)
    assert below(tmp_path / "out", single).read_text() == "two!"
