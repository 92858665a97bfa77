"""A bad drive costs no good cartridge, and a bad cartridge no good drive."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from harness import SMALL, Home, below, describe, make_tree

from capstan.backup.request import BackupRequest
from capstan.bootstrap import open_home
from capstan.core.health import Drive, DriveState, Load
from capstan.core.job import JobKind
from capstan.errors import HardwareError, NoDriveAvailable
from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan

pytestmark = pytest.mark.slow

WRITE = frozenset({0x0A})


def bad_drive(kind: FaultKind, unit: str = "drive0") -> FaultPlan:
    """Every WRITE there fails, but those of labels."""
    return FaultPlan((Fault(kind, nth=40, unit=unit, opcodes=WRITE, permanent=True),))


def back_up(home: Home, tree: Path, faults: FaultPlan) -> dict[str, Any]:
    async def body() -> dict[str, Any]:
        async with open_home(home.path, faults=faults) as capstan:
            request = BackupRequest(
                sources=(os.fsencode(tree),), name="t", library="lib", parameters=capstan.parameters("none", None)
            )
            _, result = await capstan.jobs.run(
                JobKind.BACKUP,
                lambda job: capstan.back_up(request, job),
                name="t",
                library="lib",
                parameters=request.as_parameters(),
            )
            return result

    return asyncio.run(body())


def health(home: Home) -> tuple[dict[int, Drive], list[Load]]:
    """Drives by element, and all loads."""

    async def body() -> tuple[dict[int, Drive], list[Load]]:
        async with open_home(home.path) as capstan, capstan.catalog.snapshot() as catalog:
            drives = {drive.element: drive for drive in await catalog.health.list_drives()}
            return drives, list(await catalog.health.list_loads())

    return asyncio.run(body())


def states(home: Home) -> dict[str, str]:
    return {item["barcode"]: item["state"] for item in home.run("tape", "list").json if item["uuid"]}


@pytest.fixture
def source(home: Home, tmp_path: Path) -> Path:
    home.configure(**SMALL, commit_bytes=2 << 20)
    return make_tree(tmp_path / "source", files=20, large=6 << 20)


def restores(home: Home, set_id: str, source: Path, out: Path) -> None:
    home.run("restore", set_id, "--to", out)
    assert describe(below(out, source)) == describe(source)


def test_a_drive_that_cannot_write(home: Home, source: Path, tmp_path: Path) -> None:
    """It takes one cartridge with it at first, and the job goes on in another drive. With the second one that fails in
    it the drive is to blame: the first is as good as before, and no job gets that drive again until it is enabled."""
    home.library(drives=2, cartridges=4)
    result = back_up(home, source, bad_drive(FaultKind.MEDIUM_ERROR))
    assert result["state"] == "complete" and result["warning_codes"] == {"cartridge-failed": 1}
    assert states(home) == {"CAP001L9": "suspect", "CAP002L9": "available"}
    restores(home, result["set_id"], source, tmp_path / "one")

    result = back_up(home, source, bad_drive(FaultKind.MEDIUM_ERROR))
    assert result["state"] == "complete"
    assert result["warning_codes"] == {"cartridge-failed": 1, "drive-quarantined": 1}
    assert states(home) == {"CAP001L9": "available", "CAP002L9": "available"}
    restores(home, result["set_id"], source, tmp_path / "two")
    drives, loads = health(home)
    assert (drives[101].state, drives[102].state) == (DriveState.QUARANTINED, DriveState.ENABLED)
    assert "CAP001L9, CAP002L9" in drives[101].reason
    assert [load.drive for load in loads if load.code] == [drives[101].serial] * 2
    assert {drive.serial: drive.loads for drive in drives.values()} == {
        serial: sum(load.drive == serial for load in loads) for serial in {load.drive for load in loads}
    }

    restores(home, back_up(home, source, FaultPlan())["set_id"], source, tmp_path / "three")
    _, after = health(home)
    assert {load.drive for load in after[len(loads) :]} == {drives[102].serial}


def test_the_only_drive_cannot_write(home: Home, source: Path, tmp_path: Path) -> None:
    """Two cartridges in a row fail: it is the drive. Both are as good as before, and the error says what to do."""
    home.library(drives=1, cartridges=4)
    with pytest.raises(NoDriveAvailable) as raised:
        back_up(home, source, bad_drive(FaultKind.MEDIUM_ERROR))
    drives, _ = health(home)
    assert drives[101].serial in raised.value.hint_text and "capstan drive enable" in raised.value.hint_text
    assert "suspect" not in states(home).values()
    assert home.run("backup", source, "--name", "t", code=5).json["error"]["code"] == "no-drive-available"


@pytest.mark.parametrize("drives", [1, 2])
def test_a_drive_breaks(home: Home, source: Path, tmp_path: Path, drives: int) -> None:
    """The job goes on in another one, or says what was wrong with the only one; its cartridge is as good as before."""
    home.library(drives=drives, cartridges=4)
    if drives == 1:
        with pytest.raises(HardwareError):
            back_up(home, source, bad_drive(FaultKind.HARDWARE_ERROR))
        result = home.run("job", "resume", home.run("jobs").json[0]["job_id"]).json
    else:
        result = back_up(home, source, bad_drive(FaultKind.HARDWARE_ERROR))
    assert result["state"] == "complete"
    assert set(states(home).values()) == {"available"}
    restores(home, result["set_id"], source, tmp_path / "out")
    home.run("verify", *sorted(states(home))[:1])
