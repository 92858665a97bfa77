"""A backup that ended early goes on behind its last commit point: kill -9, cancel, failure, as often as it takes."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import SMALL, Home, below, describe, make_tree

from capstan.backup.request import BackupRequest
from capstan.bootstrap import open_home
from capstan.core.job import Event, JobKind
from capstan.errors import CapstanError, JobCancelled
from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan

pytestmark = pytest.mark.slow

KILLER = Path(__file__).parent / "killer.py"
FINAL = 5  # the number of the last commit point of the tree below on these cartridges
MOMENTS = [
    *((moment, number) for moment in ("written", "entered") for number in range(1, FINAL + 1)),
    ("labelled", 1),
    *(("event", number) for number in (1, 2, 3, 5, 9)),
]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Cartridges of 6 MiB, and a commit point for each MiB."""
    home = Home(tmp_path / "home")
    home.configure(**SMALL, commit_bytes=1 << 20, codec="none")
    home.library("6MiB")
    return home


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Hard links from one end of the scan to the other, and a file that several commit points lie in."""
    tree = make_tree(tmp_path / "source", files=80, large=4 << 20)
    (tree / "aaa").write_bytes(random.Random(3).randbytes(5000))
    os.link(tree / "aaa", tree / "deep/er/zzz")
    os.link(tree / "aaa", tree / "nnn")
    return tree


def killed(home: Home, tree: Path, moment: str, number: int, job: str = "") -> str:
    """Run a backup, or resume one, that dies; returns its job."""
    done = subprocess.run(
        [sys.executable, str(KILLER), str(home.path), str(tree), "t", moment, str(number), *filter(None, [job])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:] or "it ended before the moment came"
    found = home.run("jobs").json[0]
    assert found["state"] == "interrupted"
    assert found["job_id"] in found["hint"]
    return str(found["job_id"])


def cancelled(
    home: Home, tree: Path, times: int, at: str = "job.committed", name: str = "t", more: tuple[Path, ...] = ()
) -> str:
    """Run a backup that is cancelled at the `times`-th commit point, or event `at`; returns its job."""

    async def body() -> str:
        seen = 0

        def hear(event: Event) -> None:
            nonlocal seen
            seen += event.data.get("phase", event.kind) == at
            if seen == times:
                capstan.jobs.cancel_all()

        async with open_home(home.path, listener=hear) as capstan:
            request = BackupRequest(
                (os.fsencode(tree), *map(os.fsencode, more)), name, "lib", parameters=capstan.parameters()
            )
            with pytest.raises(JobCancelled) as stopped:
                await capstan.jobs.run(
                    JobKind.BACKUP,
                    lambda job: capstan.backup.run(request, job),
                    name=name,
                    library="lib",
                    parameters=request.as_parameters(),
                )
            job = str(stopped.value.parameters["job"])
            assert f"capstan job resume {job}" in stopped.value.hint_text
            return job

    return asyncio.run(body())


def the_set(home: Home) -> dict[str, Any]:
    """The one set of the series."""
    [found] = [item for item in home.run("sets").json if item["name"] == "t"]
    return dict(found)


def on_tape(home: Home) -> int:
    """Bytes in all images of cartridges."""
    return sum(path.stat().st_size for path in home.path.glob("libraries/lib/cartridges/*.tap"))


def is_whole(home: Home, set_id: str, tree: Path, tmp_path: Path) -> None:
    """The set restores as the tree is, verifies, and does both again when the catalog was lost."""
    assert the_set(home)["state"] == "complete"
    original = describe(tree)
    for target in ("out", "rebuilt"):
        home.run("restore", set_id, "--to", tmp_path / target)
        assert describe(below(tmp_path / target, tree)) == original
        home.run("verify", set_id)
        if target == "out":
            lose_the_catalog(home)
            home.run("rebuild", "--library", "lib")


def lose_the_catalog(home: Home) -> None:
    for path in home.path.glob("catalog.db*"):
        path.unlink()
    shutil.rmtree(home.path / "indexes")


@pytest.mark.parametrize(("moment", "number"), MOMENTS)
def test_killed_and_resumed(home: Home, tree: Path, tmp_path: Path, moment: str, number: int) -> None:
    """Whenever the kill came: the job goes on as the same job to one whole set, and writes no more than what was not
    committed, plus one segment."""
    home.run("backup", tree / "deep", "--name", "before")
    job = killed(home, tree, moment, number)
    begun = [item for item in home.run("sets").json if item["name"] == "t"]
    committed, tape = sum(item["stored_bytes"] for item in begun), on_tape(home)
    result = home.run("job", "resume", job).json
    assert [result["set_id"]] == [item["set_id"] for item in begun] or not begun
    assert result["state"] == "complete"
    assert on_tape(home) - tape <= result["stored_bytes"] - committed + SMALL["segment_bytes"]
    found = home.run("job", "show", job).json
    assert (found["state"], found["error"], found["hint"]) == ("done", {}, "")
    assert [event["kind"] for event in found["events"]].count("job.started") <= 1
    assert not any(place["full"] for place in home.run("library", "inventory", "lib").json if "drive" in place["place"])
    is_whole(home, result["set_id"], tree, tmp_path)


def test_killed_again_and_again(home: Home, tree: Path, tmp_path: Path) -> None:
    """A job can be resumed any number of times, each time from where it has come to by then."""
    job, reached = killed(home, tree, "entered", 1), 0
    for moment in ("written", "entered", "entered", "event"):
        assert killed(home, tree, moment, 6 if moment == "event" else 1, job) == job
        now = the_set(home)["stored_bytes"]
        assert now > reached or moment in ("written", "event")
        reached = now
    result = home.run("job", "resume", job[:4]).json
    assert len([item for item in home.run("sets").json if item["name"] == "t"]) == 1
    is_whole(home, result["set_id"], tree, tmp_path)


def test_a_commit_point_that_the_catalog_was_not_told_of_counts(home: Home, tree: Path) -> None:
    """It is taken in before anything is written, and what lies before it is not written again."""
    job, tape = killed(home, tree, "written", 3), on_tape(home)
    known = the_set(home)["stored_bytes"]
    answer = home.run("job", "resume", job)
    told = [event for event in answer.events if event["event"] == "job.committed" or event.get("phase") == "write"]
    assert [event.get("sequence") for event in told[:2]] == [3, None]
    assert on_tape(home) - tape < answer.json["stored_bytes"] - known - SMALL["segment_bytes"] // 2


def test_killed_when_all_was_written(home: Home, tree: Path) -> None:
    """A set that is whole in the catalog is only said to be: no cartridge is loaded."""
    job = killed(home, tree, "entered", FINAL)
    answer = home.run("job", "resume", job)
    assert answer.json["state"] == "complete"
    assert [event["whole"] for event in answer.events if event["event"] == "backup.resumed"] == [True]
    assert not [event for event in answer.events if event["event"] == "cartridge.loaded"]


def test_cancelled_on_a_fresh_cartridge(home: Home, tree: Path, tmp_path: Path) -> None:
    """Before anything was written to it: no commit point says that the set is empty now, or that no file is open."""
    job = cancelled(home, tree, 2, at="write")
    before = the_set(home)
    assert (before["files"] > 0, before["bytes"] > 0) == (True, True)
    assert len(before["cartridges"]) == 1
    is_whole(home, home.run("job", "resume", job).json["set_id"], tree, tmp_path)


def test_a_resume_that_never_gets_to_write(home: Home, tree: Path, tmp_path: Path) -> None:
    """No cartridge can be loaded: what the set has committed stays known, and the job goes on another time."""
    job = cancelled(home, tree, 2)
    before = the_set(home)

    async def body() -> None:
        stuck = FaultPlan((Fault(FaultKind.STUCK_ROBOT, unit="changer", opcodes=frozenset({0xA5}), permanent=True),))
        async with open_home(home.path, faults=stuck) as capstan:
            async with capstan.catalog.snapshot() as catalog:
                request = BackupRequest.from_parameters((await catalog.jobs.get(job)).parameters)
            with pytest.raises(CapstanError):
                await capstan.jobs.resume(job, lambda running: capstan.backup.resume(request, running))
        assert stuck.triggered

    asyncio.run(body())
    assert the_set(home) == before
    result = home.run("job", "resume", job).json
    assert result["set_id"] == before["set_id"]
    is_whole(home, result["set_id"], tree, tmp_path)


@pytest.mark.parametrize("commits", [1, 3])
def test_cancelled_and_resumed(home: Home, tree: Path, tmp_path: Path, commits: int) -> None:
    """A cancel right behind a commit point writes no other, keeps what the set has, and the job goes on from there."""
    job = cancelled(home, tree, commits)
    before = the_set(home)
    assert (before["state"], before["bytes"] > 0) == ("incomplete", True)
    assert home.run("set", "show", before["set_id"]).json["commit_points"] == commits
    result = home.run("job", "resume", job).json
    assert (result["set_id"], result["files"]) == (before["set_id"], 90)
    is_whole(home, result["set_id"], tree, tmp_path)


def test_the_open_file_has_changed(home: Home, tree: Path, tmp_path: Path) -> None:
    """Its rest is zeros, a warning says so, and it is stored again: what is restored is the file as it is now."""
    job = cancelled(home, tree, 2)
    assert "continues" in str(home.run("set", "files", the_set(home)["set_id"]).json)
    (tree / "large.bin").write_bytes(random.Random(9).randbytes(3_000_000))
    answer = home.run("job", "resume", job)
    assert [event["code"] for event in answer.events if event["event"] == "job.warning"] == ["changed"]
    is_whole(home, answer.json["set_id"], tree, tmp_path)


def test_a_first_name_is_another_file_now(home: Home, tree: Path, tmp_path: Path) -> None:
    """The names that are left are not linked to what was stored under it: they get their own content."""
    job = cancelled(home, tree, 1)
    original = describe(tree)
    (tree / "aaa").unlink()
    (tree / "aaa").write_text("somebody else's")
    result = home.run("job", "resume", job).json
    home.run("restore", result["set_id"], "--to", tmp_path / "out")
    restored = describe(below(tmp_path / "out", tree))
    assert (below(tmp_path / "out", tree) / "nnn").read_bytes() == (tree / "nnn").read_bytes()
    assert restored[b"aaa"] == original[b"aaa"]
    assert restored[b"deep/er/zzz"][-1].endswith(b" = nnn")


@pytest.mark.requires("root", "mount")
@pytest.mark.parametrize("point", ["", "a mount"])
def test_the_source_is_not_mounted_any_more(home: Home, tmp_path: Path, point: str) -> None:
    """A set is never called whole with what is missing: the job says what to mount, and goes on when it is there."""
    tree = tmp_path / "source"
    mounted = tree / point
    mounted.mkdir(parents=True)
    (tmp_path / "disk").mkdir()
    subprocess.run(["mount", "--bind", str(tmp_path / "disk"), str(mounted)], check=True)
    try:
        make_tree(tree, files=20, large=4 << 20)
        (mounted / "last").write_text("not stored yet")
        job = cancelled(home, tree, 1)
        keeps = tmp_path / "elsewhere"
        keeps.mkdir()
        subprocess.run(["mount", "--move", str(mounted), str(keeps)], check=True)
        (mounted / "under it").touch()
        answer = home.run("job", "resume", job, code=1)
        assert "the file system that was there" in answer.err and "mount it" in answer.err
        assert the_set(home)["state"] == "incomplete"
        subprocess.run(["mount", "--move", str(keeps), str(mounted)], check=True)
        is_whole(home, home.run("job", "resume", job).json["set_id"], tree, tmp_path)
    finally:
        for path in (mounted, tmp_path / "elsewhere"):
            subprocess.run(["umount", str(path)], check=False, capture_output=True)


@pytest.mark.requires("root", "mount")
def test_a_file_system_that_comes_and_goes(home: Home, tmp_path: Path) -> None:
    """One in memory, or of a container, in a source: that it is gone is told, and no reason to stop."""
    tree, point = tmp_path / "source", tmp_path / "source/a mount"
    point.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(point)], check=True)
    try:
        make_tree(tree, files=20, large=4 << 20)
        (point / "last").touch()
        job = cancelled(home, tree, 1)
    finally:
        subprocess.run(["umount", str(point)], check=True)
    answer = home.run("job", "resume", job)
    assert answer.json["warning_codes"] == {"unmounted": 1}
    assert the_set(home)["state"] == "complete"
    home.run("restore", answer.json["set_id"], "--to", tmp_path / "out")
    assert describe(below(tmp_path / "out", tree)).keys() == describe(tree).keys()


def test_a_set_that_ends_behind_a_newer_one(home: Home, tree: Path, tmp_path: Path) -> None:
    """It is whole, and said not to be the latest."""
    job = cancelled(home, tree, 1)
    newer = home.run("backup", tree / "deep", "--name", "t").json["set_id"]
    answer = home.run("job", "resume", job)
    assert list(answer.json["warning_codes"]) == ["not-latest"]
    assert home.run("set", "show", "latest:t").json["set_id"] == newer


def test_several_sources(home: Home, tree: Path, tmp_path: Path) -> None:
    """A source that stands beside the committed content of another one is not left out."""
    (tmp_path / "zz").write_text("the last one")
    job = cancelled(home, tree, 2, more=(tmp_path / "zz",))
    result = home.run("job", "resume", job).json
    home.run("restore", result["set_id"], "--to", tmp_path / "out")
    assert below(tmp_path / "out", tmp_path / "zz").read_text() == "the last one"
    assert describe(below(tmp_path / "out", tree)) == describe(tree)


def test_after_a_rebuild(home: Home, tree: Path, tmp_path: Path) -> None:
    """Where the jobs are still known, a set that was found on tape again goes on. With them lost, the job is not there:
    what was committed restores, and a new backup begins anew."""
    job = cancelled(home, tree, 2)
    home.run("rebuild", "--library", "lib")
    result = home.run("job", "resume", job).json
    is_whole(home, result["set_id"], tree, tmp_path)
    assert home.run("job", "resume", job, code=3).json["error"]["code"] == "not-found"
    assert the_set(home)["state"] == "complete"


def test_two_at_once(home: Home, tree: Path, tmp_path: Path) -> None:
    """One of two that resume the same job at the same moment does it; the other changes nothing and says why."""
    job = cancelled(home, tree, 1)
    both = [
        subprocess.Popen(home.command("job", "resume", job), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes[0] == 0, said
    assert codes[1] in (2, 4), said  # refused: it is done by now; in use or changed: it was not yet
    assert home.run("job", "show", job).json["state"] == "done"
    is_whole(home, the_set(home)["set_id"], tree, tmp_path)


def test_what_cannot_be_resumed(home: Home, tree: Path, tmp_path: Path) -> None:
    """Each says why and what to do, and leaves the job as resumable as it was."""
    assert home.run("job", "resume", "0000", code=3).json["error"]["code"] == "not-found"
    home.run("backup", tree / "deep", "--name", "before")
    [done] = [item["job_id"] for item in home.run("jobs").json if item["state"] == "done" and item["kind"] == "backup"]
    assert "is done" in home.run("job", "resume", done, code=2).json["error"]["message"]
    home.run("verify", "NOTHING", code=3)
    [verify] = [item["job_id"] for item in home.run("jobs").json if item["kind"] == "verify"]
    assert "neither a backup nor" in home.run("job", "resume", verify, code=2).json["error"]["message"]

    job = cancelled(home, tree, 1)
    tree.rename(tmp_path / "away")
    assert home.run("job", "resume", job, code=1).json["error"]["code"] == "source"
    assert the_set(home)["state"] == "incomplete"
    (tmp_path / "away").rename(tree)
    settings = (home.path / "capstan.toml").read_text()
    (home.path / "capstan.toml").write_text(settings.replace("libraries.lib]", "libraries.other]"))
    assert home.run("job", "resume", job, code=3).json["error"]["parameters"]["name"] == "lib"
    (home.path / "capstan.toml").write_text(settings)
    assert home.run("job", "resume", job).json["state"] == "complete"

    job = cancelled(home, tree, 1, name="u")
    [found] = [item for item in home.run("sets").json if item["name"] == "u"]
    for barcode in found["cartridges"]:
        home.run("tape", "erase", barcode, "--yes")
    assert "no longer in the catalog" in home.run("job", "resume", job, code=2).json["error"]["message"]
