"""A restore that was killed or failed goes on where it ended: nothing twice, nothing missing, nothing else touched."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from harness import SMALL, Home, below, describe, lying_disk, make_tree

from capstan.bootstrap import open_home
from capstan.core.job import Event, JobKind
from capstan.errors import JobCancelled
from capstan.recovery.select import RestoreRequest

pytestmark = pytest.mark.slow

KILLER = Path(__file__).parent / "restore_killer.py"
ENTRIES = 66  # about how many of the tree below are no directories


@pytest.fixture
def world(tmp_path: Path) -> tuple[Home, Path]:
    """A home with a full set of a tree and an incremental one on it."""
    home = Home(tmp_path / "home")
    home.configure(**SMALL)
    home.library()
    tree = make_tree(tmp_path / "source", large=2 << 20)
    (tree / "sub" / "deep").mkdir(parents=True)
    for number in range(4):
        os.link(tree / "deep" / "file 0000.dat", tree / "sub" / "deep" / f"link {number}")
    home.run("backup", tree, "--name", "t", "--codec", "none")
    (tree / "text.txt").write_text("another text")
    (tree / "zero").unlink()
    home.run("backup", tree, "--name", "t", "--type", "incremental", "--codec", "none")
    return home, tree


def killed(home: Home, to: Path, number: int, *, policy: str = "skip") -> str:
    """Run a restore that dies; its job."""
    command = [sys.executable, str(KILLER), str(home.path), "latest:t", str(to), policy, str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    job = home.run("jobs").json[0]
    assert (job["kind"], job["state"]) == ("restore", "interrupted")
    assert "job resume" in job["hint"]
    return str(job["job_id"])


@pytest.mark.parametrize("number", [1, 2, 20, 45, 60, ENTRIES])
def test_killed_and_resumed(world: tuple[Home, Path], tmp_path: Path, number: int) -> None:
    """All of the tree is there, with the times of directories; what was there is not read again; nothing is left."""
    home, tree = world
    whole = home.run("restore", "latest:t", "--to", tmp_path / "whole").json
    job = killed(home, tmp_path / "out", number)
    (below(tmp_path / "out", tree) / ".capstan-1-1.part").write_text("left by a write that was cut off")
    result = home.run("job", "resume", job).json
    assert describe(below(tmp_path / "out", tree)) == describe(tree)
    assert not list((tmp_path / "out").rglob("*.part"))
    assert result["restored_before"] >= number
    assert result["verified_files"] < whole["verified_files"] or number < 3
    assert result["bytes_read_from_tape"] <= whole["bytes_read_from_tape"]
    assert not list((home.path / "jobs").glob("*.directories"))
    assert home.run("job", "resume", job, code=2).json["error"]["code"] == "refused"


def test_little_is_read_for_the_rest(world: tuple[Home, Path], tmp_path: Path) -> None:
    """When only the end is missing, only the end is read."""
    home, tree = world
    whole = home.run("restore", "latest:t", "--to", tmp_path / "whole").json
    result = home.run("job", "resume", killed(home, tmp_path / "out", ENTRIES - 2)).json
    assert result["bytes_read_from_tape"] < whole["bytes_read_from_tape"] / 4
    assert describe(below(tmp_path / "out", tree)) == describe(tree)


@pytest.mark.parametrize("policy", ["skip", "overwrite", "keep-newer", "rename"])
def test_what_was_there_before(world: tuple[Home, Path], tmp_path: Path, policy: str) -> None:
    """The policy holds for what somebody had there before the restore, and for nothing that the restore has made."""
    home, tree = world
    target = below(tmp_path / "out", tree)
    (target / "deep" / "er").mkdir(parents=True)
    (target / "text.txt").write_text("mine")
    (target / "large.bin").write_text("mine too")
    for name in ("text.txt", "large.bin"):
        os.utime(target / name, ns=(0, 2 * 10**18))
    os.utime(target / "deep" / "er", ns=(0, 10**18))
    home.run("job", "resume", killed(home, tmp_path / "out", 30, policy=policy))
    found, wanted = describe(target), describe(tree)
    mine = {b"text.txt": b"mine", b"large.bin": b"mine too"}
    for name, value in wanted.items():
        if value[0] & 0o170000 == 0o040000:
            continue
        if name in mine and policy == "rename":
            assert (found[name][-1], found[name + b".restored-1"][-1]) == (mine[name], value[-1])
        elif name in mine and policy != "overwrite":
            assert found[name][-1] == mine[name]
        elif name != b"text hard.txt":  # a further name of what was kept
            assert found[name] == value
    assert len(found) == len(wanted) + (2 if policy == "rename" else 0)


def test_after_a_restart_of_the_machine_files_are_written_again(world: tuple[Home, Path], tmp_path: Path) -> None:
    """What was not synced may be torn under its whole name: size and time prove nothing then."""
    home, tree = world
    job = killed(home, tmp_path / "out", 40)
    torn = below(tmp_path / "out", tree) / "deep" / "file 0003.dat"
    status = torn.stat()
    torn.write_bytes(bytes(status.st_size))
    os.utime(torn, ns=(0, status.st_mtime_ns))
    with sqlite3.connect(home.path / "catalog.db") as database:
        [(text,)] = database.execute("SELECT parameters FROM jobs WHERE id = ?", [job]).fetchall()
        parameters = json.dumps({**json.loads(text), "boot": "another run of the machine"})
        database.execute("UPDATE jobs SET parameters = ? WHERE id = ?", [parameters, job])
    home.run("job", "resume", job)
    assert describe(below(tmp_path / "out", tree)) == describe(tree)


def test_a_file_that_failed_before_still_counts(world: tuple[Home, Path], tmp_path: Path) -> None:
    """A resumed restore never reports success for what is not there."""
    home, tree = world
    job = killed(home, tmp_path / "out", 50)
    lost = below(tmp_path / "out", tree) / "deep" / "er" / "file 0001.dat"
    lost.unlink()
    image = home.cartridge("CAP001L9")
    content = bytearray(image.read_bytes())
    at = content.rfind((tree / "deep" / "er" / "file 0001.dat").read_bytes()[:64])
    assert at > 0
    content[at] ^= 0xFF
    image.write_bytes(content)
    answer = home.run("job", "resume", job, code=6).json
    assert [Path(problem["path"]).name for problem in answer["problems"]] == ["file 0001.dat"]


def test_cancelled_and_resumed(world: tuple[Home, Path], tmp_path: Path) -> None:
    """A restore that somebody has stopped goes on like one that died."""
    home, tree = world

    async def body() -> str:
        def hear(event: Event) -> None:
            if event.data.get("phase") == "write":
                capstan.jobs.cancel_all()

        request = RestoreRequest(reference="latest:t", to=tmp_path / "out")
        async with open_home(home.path, listener=hear) as capstan:
            with pytest.raises(JobCancelled) as stopped:
                await capstan.jobs.run(
                    JobKind.RESTORE, lambda job: capstan.restore.run(request, job), parameters=request.as_parameters()
                )
        return str(stopped.value.parameters["job"])

    job = asyncio.run(body())
    home.run("job", "resume", job)
    assert describe(below(tmp_path / "out", tree)) == describe(tree)


def test_what_was_missing_comes_later(world: tuple[Home, Path], tmp_path: Path) -> None:
    """A restore that ended with errors is resumed when they are mended: directories keep the times they were given,
    although files come into them late."""
    home, tree = world
    image = home.cartridge("CAP001L9")
    content = image.read_bytes()
    at = content.rfind((tree / "deep" / "er" / "file 0001.dat").read_bytes()[:64])
    image.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
    home.run("restore", "latest:t", "--to", tmp_path / "out", code=6)
    assert describe(below(tmp_path / "out", tree)) != describe(tree)
    job = home.run("jobs").json[0]
    assert (job["state"], "job resume" in job["hint"]) == ("failed", True)
    image.write_bytes(content)
    result = home.run("job", "resume", job["job_id"]).json
    assert (result["errors"], result["problems"]) == (0, [])
    assert describe(below(tmp_path / "out", tree)) == describe(tree)
    assert not list((home.path / "jobs").glob("*.directories"))


def test_what_somebody_had_there_outlives_a_link_to_it(world: tuple[Home, Path], tmp_path: Path) -> None:
    """A kept file that got a further name is still not the restore's when that goes on."""
    home, tree = world
    kept = below(tmp_path / "out", tree) / "text hard.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    job = killed(home, tmp_path / "out", ENTRIES - 2)
    assert kept.stat().st_nlink == 2
    home.run("job", "resume", job)
    assert kept.read_text() == "mine"


@pytest.mark.requires("root", "loop", "mkfs.ext4")
@pytest.mark.parametrize("place", ["the target", "a directory below"])
def test_what_did_not_reach_the_disk_is_an_error(tmp_path: Path, place: str) -> None:
    """The disk takes every write and loses some behind it: the restore fails, keeps what it knows of its directories,
    and what goes on with it writes all of it again."""
    home = Home(tmp_path / "home")
    home.configure(**SMALL)
    home.library()
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "large").write_bytes(os.urandom(6 << 20))
    home.run("backup", source, "--name", "t", "--codec", "none")
    out = tmp_path / "out"
    failing = out if place == "the target" else below(out, source) / "deep"
    with lying_disk(failing, tmp_path / "backing"):
        error = home.run("restore", "latest:t", "--to", out, "--on-conflict", "overwrite", code=1).json["error"]
        assert (error["code"], "did not reach the disk" in error["message"]) == ("target", True)
    job = home.run("jobs").json[0]
    assert (job["state"], "job resume" in job["hint"]) == ("failed", True)
    assert list(home.path.glob("jobs/*.directories"))
    answer = home.run("job", "resume", job["job_id"])
    assert (answer.json["verified_files"], answer.json["restored_before"]) == (1, 0)
    assert describe(below(out, source)) == describe(source)
    assert not list(home.path.glob("jobs/*.directories"))
