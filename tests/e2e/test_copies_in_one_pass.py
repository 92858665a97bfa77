"""Two copies from one pass over the source: a second drive writes what the first one writes."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyrage
import pytest
from harness import SMALL, Home, below, describe, make_tree
from test_catalog_lost import forget
from test_copies import barcodes, copies, segments_on

from capstan.backup.request import BackupRequest
from capstan.bootstrap import open_home
from capstan.core.job import Event, JobKind
from capstan.errors import CapstanError, JobCancelled
from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan

pytestmark = pytest.mark.slow

WRITE = frozenset({0x0A})


def two_drives(home: Home, capacity: str = "64MiB", *, pool: tuple[str, ...] = (), **options: str | int) -> None:
    """A library with two drives, and the default pool with a copy pool."""
    home.configure(**SMALL, commit_bytes=2 << 20)
    home.library(capacity, drives=2, **options)
    home.run("pool", "create", "vault", *pool)
    home.run("pool", "create", "default", "--copy-pool", "vault", *pool)


def restores_alone(home: Home, set_id: str, tree: Path, target: Path, *options: str | Path) -> None:
    """From the copy, when every cartridge of the original is lost; and after a rebuild from what is left."""
    for barcode in home.run("set", "show", set_id).json["cartridges"]:
        home.run("tape", "erase", barcode, "--yes")
    for _ in range(2):
        home.run("restore", set_id, "--to", target, *options)
        assert describe(below(target, tree)) == describe(tree)
        shutil.rmtree(target)
        forget(home)
        home.run("rebuild", "--library", "lib", *options)


@pytest.mark.parametrize("packing", [("--codec", "zstd"), ("--codec", "none"), ("--container", "7z"), ("sealed",)])
def test_one_pass_writes_both(home: Home, tmp_path: Path, packing: tuple[str, ...]) -> None:
    """Each cartridge is mounted once, to be written; segments are the same; the copy alone restores."""
    options: tuple[str | Path, ...] = ()
    pool: tuple[str, ...] = ()
    if packing == ("sealed",):
        identity = pyrage.x25519.Identity.generate()
        (tmp_path / "identity").write_text(str(identity))
        pool, packing, options = ("--recipient", str(identity.to_public())), (), ("--identity", tmp_path / "identity")
    two_drives(home, cartridges=2, pool=pool)
    tree = make_tree(tmp_path / "source", files=80, large=6 << 20)
    answer = home.run("backup", tree, "--name", "t", *packing)
    [copied] = answer.json["copies"]
    assert (copied["whole"], copied["segments_copied"]) == (True, 0) and copied["segments_in_same_pass"] > 0
    loaded = [event["cartridge"] for event in answer.events if event["event"] == "cartridge.loaded"]
    assert sorted(loaded) == ["CAP001L9", "CAP002L9"]
    set_id, [original], [other] = answer.json["set_id"], answer.json["cartridges"], barcodes(copied)
    assert len(segments_on(home, original)) == len(segments_on(home, other)) == copied["segments_in_same_pass"]
    for barcode in (original, other):
        home.run("verify", barcode)
    restores_alone(home, set_id, tree, tmp_path / "out", *options)


def test_cartridges_that_end_at_different_places(home: Home, tmp_path: Path) -> None:
    """Both span, the copy ending earlier on the first cartridge, which has something else already: its end asks the
    backup for a commit point, so that nothing is torn and nothing is left to catch up."""
    two_drives(home, "8MiB", cartridges=9)
    tree = make_tree(tmp_path / "source", files=80, large=15 << 20)
    small = make_tree(tmp_path / "small", files=10, large=1 << 20)
    home.run("backup", small, "--name", "s", "--pool", "vault", "--codec", "none")
    answer = home.run("backup", tree, "--name", "t", "--codec", "none").json
    [copied] = answer["copies"]
    assert (copied["whole"], copied["segments_copied"]) == (True, 0)
    assert len(answer["cartridges"]) > 1 and len(copied["cartridges"]) > 1
    assert "CAP001L9" in barcodes(copied)
    assert answer["warnings"] == 0
    restores_alone(home, answer["set_id"], tree, tmp_path / "out")


def test_without_a_second_drive_it_is_made_afterwards(home: Home, tmp_path: Path) -> None:
    """As ever, and without a warning."""
    home.configure(**SMALL)
    home.library(drives=1, cartridges=2)
    home.run("pool", "create", "vault")
    home.run("pool", "create", "default", "--copy-pool", "vault")
    tree = make_tree(tmp_path / "source", files=20)
    answer = home.run("backup", tree, "--name", "t")
    [copied] = answer.json["copies"]
    assert copied["whole"] and copied["segments_in_same_pass"] == 0 and copied["segments_copied"]
    assert answer.json["warnings"] == 0
    assert [event["pool"] for event in answer.events if event["event"] == "copy.later"] == ["vault"]


def run_with(home: Home, tree: Path, faults: FaultPlan, *, cancel_at: int = 0) -> dict[str, Any]:
    """A backup over failing devices, with what is caught up after it; the error if it ends with one."""

    async def body() -> dict[str, Any]:
        running: list[Any] = []

        def hear(event: Event) -> None:
            if event.kind == "job.committed" and event.data["sequence"] == cancel_at:
                running[0].cancel()

        async with open_home(home.path, faults=faults, listener=hear) as capstan:
            request = BackupRequest(
                sources=(os.fsencode(tree),), name="t", library="lib", parameters=capstan.parameters("none", None)
            )

            async def work(job: Any) -> dict[str, Any]:
                running.append(job)
                return await capstan.back_up(request, job, [])

            _, result = await capstan.jobs.run(
                JobKind.BACKUP, work, name="t", library="lib", parameters=request.as_parameters()
            )
            return result

    return asyncio.run(body())


@pytest.mark.parametrize("kind", [FaultKind.MEDIUM_ERROR, FaultKind.HARDWARE_ERROR, FaultKind.ANSWER_LOST])
@pytest.mark.parametrize("unit", ["drive0", "drive1"])
def test_a_drive_fails(home: Home, tmp_path: Path, kind: FaultKind, unit: str) -> None:
    """Whichever drive it is, in the middle of a segment: the backup is whole, and in the end so is its copy."""
    two_drives(home, cartridges=6)
    tree = make_tree(tmp_path / "source", files=60, large=8 << 20)
    faults = FaultPlan((Fault(kind, nth=40, unit=unit, opcodes=WRITE),))
    try:
        result = run_with(home, tree, faults)
    except CapstanError:  # the backup's own drive is broken
        assert (unit, kind) == ("drive0", FaultKind.HARDWARE_ERROR)
        result = home.run("job", "resume", home.run("jobs").json[0]["job_id"]).json
    else:
        assert {"drive0": "cartridge-failed", "drive1": "copy-behind"}[unit] in result["warning_codes"]
    assert faults.triggered and result["state"] == "complete"
    [copied] = copies(home, result["set_id"])
    assert copied["whole"]
    restores_alone(home, result["set_id"], tree, tmp_path / "out")


def test_a_cancelled_backup_goes_on_in_both(home: Home, tmp_path: Path) -> None:
    """Both have a commit point at the end of what was written, and both go on behind it."""
    two_drives(home, cartridges=4)
    tree = make_tree(tmp_path / "source", files=60, large=9 << 20)
    with pytest.raises(JobCancelled):
        run_with(home, tree, FaultPlan(), cancel_at=2)
    job = home.run("jobs").json[0]["job_id"]
    [found] = home.run("sets").json
    assert found["state"] == "incomplete"
    original, copy = home.run("set", "show", found["set_id"]).json["copies"]
    [one], [other] = barcodes(original), barcodes(copy)
    assert len(segments_on(home, one)) == len(segments_on(home, other)) > 1
    answer = home.run("job", "resume", job)
    [copied] = answer.json["copies"]
    assert copied["whole"] and len(copied["cartridges"]) == 1 and copied["segments_copied"] == 0
    restores_alone(home, found["set_id"], tree, tmp_path / "out")


def test_what_is_left_is_only_a_copy(home: Home, tmp_path: Path) -> None:
    """A backup whose original is lost before it was finished does not go on: what its copy has restores."""
    two_drives(home, cartridges=4)
    tree = make_tree(tmp_path / "source", files=60, large=9 << 20)
    (tree / "first").write_bytes(b"stored before the large one")
    with pytest.raises(JobCancelled):
        run_with(home, tree, FaultPlan(), cancel_at=2)
    job = home.run("jobs").json[0]["job_id"]
    [found] = home.run("sets").json
    home.run("tape", "erase", found["cartridges"][0], "--yes")
    answer = home.run("job", "resume", job, code=2)
    assert "only there as a copy" in answer.json["error"]["message"]
    told = home.run("restore", found["set_id"], "--to", tmp_path / "out").json
    assert told["warning_codes"]["unfinished"] == 1, "each commit point within a file has a row of it"
    assert describe(below(tmp_path / "out", tree))[b"first"] == describe(tree)[b"first"]


@pytest.mark.parametrize("moment", ["written", "entered", "copy-written", "copy-entered"])
@pytest.mark.parametrize("number", [1, 2, 4])
def test_killed(home: Home, tmp_path: Path, moment: str, number: int) -> None:
    """By SIGKILL around a commit point of either: the backup goes on, its copy with it, and each is whole alone."""
    two_drives(home, cartridges=4)
    tree = make_tree(tmp_path / "source", files=60, large=9 << 20)
    killer = Path(__file__).parent / "killer.py"
    done = subprocess.run(
        [sys.executable, str(killer), str(home.path), str(tree), "t", moment, str(number)], check=False
    )
    assert done.returncode == -9
    job = home.run("jobs").json[0]["job_id"]
    home.run("job", "resume", job)
    [found] = home.run("sets").json
    assert found["state"] == "complete"
    [copied] = copies(home, found["set_id"])
    assert copied["whole"]
    home.run("restore", found["set_id"], "--to", tmp_path / "first")
    assert describe(below(tmp_path / "first", tree)) == describe(tree)
    restores_alone(home, found["set_id"], tree, tmp_path / "out")


def test_a_pool_that_demands_more_by_now(home: Home, tmp_path: Path) -> None:
    """What a pool was told between a cancelled backup and its resuming holds: nothing in clear is added to a pool for
    what is encrypted, nor anything without a proven escrow; told otherwise again, the backup goes on."""
    two_drives(home, cartridges=4)
    tree = make_tree(tmp_path / "source", files=60, large=9 << 20)
    with pytest.raises(JobCancelled):
        run_with(home, tree, FaultPlan(), cancel_at=2)
    job = home.run("jobs").json[0]["job_id"]
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    images = {path: path.read_bytes() for path in home.cartridge("CAP001L9").parent.glob("*.tap")}
    home.run("pool", "change", "default", "--copy-pool", "")
    for change, undo, code in (
        (("--recipient", recipient), ("--no-recipients",), "refused"),
        (("--require-escrow",), ("--no-require-escrow",), "escrow-unproven"),
    ):
        home.run("pool", "change", "default", *change)
        answer = home.run_any("job", "resume", job)
        assert answer.code and answer.json["error"]["code"] == code
        home.run("pool", "change", "default", *undo)
    assert {path: path.read_bytes() for path in images} == images
    home.run("job", "resume", job)
    assert home.run("sets").json[0]["state"] == "complete"
