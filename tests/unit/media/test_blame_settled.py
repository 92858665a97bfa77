"""What becomes of cartridges and loads when a drive is to blame."""

from __future__ import annotations

from pathlib import Path

from test_mounts import row, with_library

from capstan.bootstrap import Capstan
from capstan.core.health import Blame, Load
from capstan.core.media import CartridgeState
from capstan.errors import MediumError
from capstan.media.health import DriveFacts


async def fail(capstan: Capstan, drive: str, barcode: str) -> tuple[Blame, Load]:
    """A cartridge cannot be written in a drive."""
    facts = DriveFacts(drive, "lib", 101, "a drive")
    load = await capstan.manager.health.loaded(facts, await row(capstan, barcode), "job")
    error = MediumError(device=drive, command="WRITE", block=7, sense=f"3/0C/00 of {barcode}")
    return await capstan.manager.health.failed(load, error), load


def test_what_a_bad_drive_did_counts_against_no_cartridge(tmp_path: Path) -> None:
    """One that failed there, and fails in another drive later, has failed once."""

    async def body(capstan: Capstan) -> None:
        assert (await fail(capstan, "A", "CAP001L9"))[0] is Blame.UNKNOWN
        assert (await row(capstan, "CAP001L9")).state is CartridgeState.SUSPECT
        assert (await fail(capstan, "A", "CAP002L9"))[0] is Blame.DRIVE
        for barcode in ("CAP001L9", "CAP002L9"):
            assert (await row(capstan, barcode)).state is CartridgeState.SCRATCH
        assert (await fail(capstan, "B", "CAP001L9"))[0] is Blame.UNKNOWN
        assert (await fail(capstan, "C", "CAP001L9"))[0] is Blame.CARTRIDGE

    with_library(tmp_path, body)


def test_what_still_runs_in_a_drive_that_is_quarantined(tmp_path: Path) -> None:
    """It is the drive that fails, whatever else is known; what the load keeps is not undone when it ends."""

    async def body(capstan: Capstan) -> None:
        await fail(capstan, "A", "CAP001L9")
        await fail(capstan, "A", "CAP002L9")
        verdict, load = await fail(capstan, "A", "CAP003L9")
        assert verdict is Blame.DRIVE and (await row(capstan, "CAP003L9")).state is CartridgeState.SCRATCH
        assert load.settled and not load.state_before
        async with capstan.catalog.snapshot() as catalog:
            assert await catalog.health.list_loads(failed=True) == []

    with_library(tmp_path, body)
