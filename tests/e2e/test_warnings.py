"""Warnings by the million: on the disk, not in memory, and found again."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from harness import SMALL, Home, full_disk

MEBIBYTE = 1 << 20
SPARE = 16 * MEBIBYTE  # of peak memory: too little for 60,000 Python objects with a path each


def make_sockets(root: Path, count: int) -> Path:
    """`count` files that cannot be stored, 2000 to a directory; each is one warning."""
    for number in range(count):
        folder = root / f"{number // 2000:04}"
        if number % 2000 == 0:
            folder.mkdir(parents=True)
        os.mknod(folder / f"socket-{number:07}", stat.S_IFSOCK | 0o600)
    return root


def text_run(home: Home, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A command as a person runs it: without --json, in a process of its own."""
    command = [part for part in home.command(*arguments) if part != "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def peak_bytes(home: Home, *arguments: str | Path) -> int:
    """The largest resident size of one command in a process of its own, which must end well."""
    process = subprocess.Popen(home.command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said[-2000:]
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.slow
def test_the_first_hundred_are_told_and_all_are_kept(home: Home, tmp_path: Path) -> None:
    """A person reads a hundred and where the rest is; a program gets exact counts and every single warning."""
    home.library(cartridges=1)
    tree = make_sockets(tmp_path / "source", 250)
    done = text_run(home, "backup", tree, "--name", "t")
    lines = done.stderr.splitlines()
    assert sum(line.startswith("warning: ") for line in lines) == 100
    [job] = home.run("jobs").json
    assert f"150 more warnings: `capstan job warnings {job['job_id']}`" in lines
    assert job["warning_count"] == 250
    assert job["result"]["warning_codes"] == {"socket": 250}
    shown = home.run("job", "show", job["job_id"]).json
    assert sum(event["kind"] == "job.warning" for event in shown["events"]) == 100
    found = home.run("job", "warnings", job["job_id"][:4]).json
    assert [item["path"] for item in found] == [f"{tree}/0000/socket-{number:07}" for number in range(250)]
    assert {item["code"] for item in found} == {"socket"}
    assert home.run("job", "warnings", job["job_id"], "--limit", "3").json == found[:3]
    assert home.run("job", "warnings", job["job_id"], "--code", "vanished").json == []
    listed = text_run(home, "job", "warnings", job["job_id"], "--code", "socket").stdout.splitlines()
    assert len(listed) == 250
    assert f"{tree}/0000/socket-0000249" in listed[-1]
    assert "socket" in text_run(home, "job", "warnings", job["job_id"], "--code", "other").stdout


def test_a_failed_job_keeps_its_warnings(home: Home, tmp_path: Path) -> None:
    """Counts and file are there however the job ended."""
    home.library("4MiB", cartridges=1)
    tree = make_sockets(tmp_path / "source", 5)
    (tree / "large").write_bytes(os.urandom(8 * MEBIBYTE))
    home.run("backup", tree, code=5)
    [job] = home.run("jobs").json
    assert job["state"] == "failed"
    assert job["result"]["warning_codes"]["socket"] == 5
    codes = [item["code"] for item in home.run("job", "warnings", job["job_id"]).json]
    assert sorted(codes) == sorted(code for code, count in job["result"]["warning_codes"].items() for _ in range(count))


@pytest.mark.requires("root", "mount")
def test_a_full_disk_under_the_warnings_fails_no_job(home: Home, tmp_path: Path) -> None:
    """The backup is whole; how many warnings were not written down, and why, is in its result and said."""
    home.library(cartridges=1)
    tree = make_sockets(tmp_path / "source", 200)
    with full_disk(home.path / "jobs", "8k"):  # room for the lock, and for a page of warnings
        answer = home.run("backup", tree, "--name", "t")
        [job] = home.run("jobs").json
    lost = answer.json["warnings_not_kept"]
    assert lost == {"count": 200, "reason": "No space left on device"}
    assert answer.events[-1]["warnings_not_kept"] == lost
    assert home.run("sets").json[0]["state"] == "complete"
    assert job["result"]["warning_codes"] == {"socket": 200}


@pytest.mark.slow
def test_warnings_cost_no_memory(home: Home, tmp_path: Path) -> None:
    """60,000 warnings raise the peak memory of a backup, and of the command that lists them, by no more than 16 MiB
    above that of 2,000, and every one is kept."""
    home.library(cartridges=1)
    few, many = make_sockets(tmp_path / "few", 2_000), make_sockets(tmp_path / "many", 60_000)
    base = peak_bytes(home, "backup", few, "--name", "few")
    assert peak_bytes(home, "backup", many, "--name", "many") < base + SPARE
    newest, oldest = home.run("jobs").json
    assert newest["result"]["warning_codes"] == {"socket": 60_000}
    base = peak_bytes(home, "job", "warnings", oldest["job_id"])
    assert peak_bytes(home, "job", "warnings", newest["job_id"]) < base + SPARE
    with (home.path / "jobs" / f"{newest['job_id']}.warnings.jsonl").open("rb") as file:
        assert sum(1 for _ in file) == 60_000


@pytest.mark.slow
def test_killed_warnings_are_there_up_to_the_last_commit_point(home: Home, tmp_path: Path) -> None:
    """After kill -9 behind the second commit point every warning before the first one is read."""
    home.configure(**SMALL, commit_bytes=MEBIBYTE)
    home.library(cartridges=1)
    tree = make_sockets(tmp_path / "source", 20)
    (tree / "zz").mkdir()
    (tree / "zz" / "large").write_bytes(os.urandom(4 * MEBIBYTE))
    killer = [sys.executable, str(Path(__file__).parent / "killer.py")]
    done = subprocess.run([*killer, str(home.path), str(tree), "t", "entered", "2"], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    [job] = home.run("jobs").json
    assert job["state"] == "interrupted"
    assert len(home.run("job", "warnings", job["job_id"]).json) == 20
