"""Drives are cleaned when they ask for it, and only then; what they have counted is kept with each load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_mounts import SPEC, Reporter, row, with_library

from capstan.bootstrap import Capstan
from capstan.core.health import DriveState
from capstan.core.media import CartridgeState
from capstan.errors import CleaningFailed, NoCleaningCartridge, NoDriveAvailable
from capstan.media.cleaning import MOST_USES
from capstan.media.manager import Purpose
from capstan.scsi.virtual.library import LibrarySpec
from capstan.tape.alerts import ALERTS, alert_of

ASKING = replace(SPEC, drives=1, cleaning_cartridges=1, clean_every=3)
CLEANER = "CLN001L9"


class Listener(Reporter):
    """Keeps warnings and what else is told."""

    def __init__(self) -> None:
        super().__init__("job")
        self.warnings: list[str] = []
        self.told: list[str] = []

    async def tell(self, kind: str, **data: Any) -> None:
        self.told.append(kind)

    async def warning(self, code: str, *, path: bytes | None = None, detail: str = "") -> None:
        self.warnings.append(f"{code}: {detail}")


async def use(capstan: Capstan, *, times: int = 1) -> Listener:
    """Mount the next cartridge of the pool, and write something."""
    listener = Listener()
    for _ in range(times):
        async with capstan.manager.mount("lib", purpose=Purpose.WRITE, context=listener, pool="default") as mounted:
            await mounted.lane.run(lambda drive: drive.write_block(memoryview(bytes(70_000))))
            await mounted.lane.run(lambda drive: drive.write_filemarks())
            await mounted.lane.run(lambda drive: drive.rewind())
    return listener


def library(**changes: Any) -> LibrarySpec:
    return replace(ASKING, **changes)


def test_a_drive_is_cleaned_when_it_asks(tmp_path: Path) -> None:
    async def body(capstan: Capstan) -> None:
        assert "drive.cleaned" not in (await use(capstan, times=2)).told
        asking = await use(capstan)
        assert asking.told.count("drive.cleaned") == 1 and asking.warnings == []
        cleaner = await row(capstan, CLEANER)
        assert (cleaner.loads, cleaner.state) == (1, CartridgeState.CLEANING) and cleaner.place.startswith("slot:")
        async with capstan.catalog.snapshot() as catalog:
            [drive] = await catalog.health.list_drives()
        assert drive.cleaned_at is not None and not drive.wants_cleaning
        assert "drive.cleaned" not in (await use(capstan, times=2)).told

    with_library(tmp_path, body, library())


def test_what_a_load_has_counted(tmp_path: Path) -> None:
    async def body(capstan: Capstan) -> None:
        await use(capstan)
        async with capstan.catalog.snapshot() as catalog:
            [load] = await catalog.health.list_loads()
        assert load.unloaded_at is not None and load.unloaded_at >= load.loaded_at
        assert 70_000 < load.counters["written_bytes"] < 200_000 and load.counters["read_bytes"] > 0
        assert load.counters["write_uncorrected"] == load.counters["wants_cleaning"] == 0
        assert load.counters["volume_loads"] == (await row(capstan, load.barcode)).loads == 1
        assert load.alerts == [] and not load.failed

    with_library(tmp_path, body, library())


def test_nothing_to_clean_with(tmp_path: Path) -> None:
    """The job goes on, and says so; an operator's own wish is an error."""

    async def body(capstan: Capstan) -> None:
        told = await use(capstan, times=3)
        [warning] = told.warnings
        assert warning.startswith("drive-not-cleaned") and "no cleaning cartridge" in warning
        async with capstan.catalog.snapshot() as catalog:
            [drive] = await catalog.health.list_drives()
        assert drive.wants_cleaning
        with pytest.raises(NoCleaningCartridge):
            await capstan.manager.clean_drive("lib", drive.serial, Listener())
        await use(capstan)

    with_library(tmp_path, body, library(cleaning_cartridges=0))


def test_a_cleaning_cartridge_wears_out(tmp_path: Path) -> None:
    """By our own count, and by the drive's word."""

    async def body(capstan: Capstan) -> None:
        await use(capstan)
        async with capstan.catalog.transaction() as catalog:
            [drive] = await catalog.health.list_drives()
            await catalog.media.save(replace(await catalog.media.get(CLEANER), loads=MOST_USES - 1))
        listener = Listener()
        assert (await capstan.manager.clean_drive("lib", drive.serial, listener))["uses_left"] == 0
        assert (await row(capstan, CLEANER)).state is CartridgeState.RETIRED
        with pytest.raises(NoCleaningCartridge):
            await capstan.manager.clean_drive("lib", drive.serial, listener)

        async with capstan.catalog.transaction() as catalog:
            worn = replace(await catalog.media.get(CLEANER), loads=0, state=CartridgeState.CLEANING)
            await catalog.media.save(worn)
        sidecar = tmp_path / "home/libraries/lib/cartridges" / f"{CLEANER}.json"
        sidecar.write_text(sidecar.read_text().replace('"cleanings": 49', '"cleanings": 0'))
        with pytest.raises(CleaningFailed, match="worn out"):
            await capstan.manager.clean_drive("lib", drive.serial, listener)
        worn = await row(capstan, CLEANER)
        assert worn.state is CartridgeState.RETIRED and worn.place.startswith("slot:")

    with_library(tmp_path, body, library(clean_every=0))


def test_one_cleaning_cartridge_wears_out_at_a_time(tmp_path: Path) -> None:
    """The one that was used before is used again, whatever its barcode."""

    async def body(capstan: Capstan) -> None:
        await capstan.operations.inventory("lib")
        for first, second, used in (("CLN002L9", CLEANER, 1), (CLEANER, "CLN002L9", 20)):
            async with capstan.catalog.transaction() as catalog:
                await catalog.media.save(replace(await catalog.media.get(first), loads=used))
            assert "drive.cleaned" in (await use(capstan, times=3)).told
            assert (await row(capstan, first)).loads == used + 1
            assert (await row(capstan, second)).loads in (0, 2)

    with_library(tmp_path, body, library(cleaning_cartridges=2))


def test_a_drained_drive_is_left_alone(tmp_path: Path) -> None:
    """What runs in it goes on; nothing else begins, until it is enabled."""

    async def body(capstan: Capstan) -> None:
        await capstan.operations.inventory("lib")
        async with capstan.catalog.snapshot() as catalog:
            [drive] = await catalog.health.list_drives()
        health, listener = capstan.manager.health, Listener()
        async with capstan.manager.mount("lib", purpose=Purpose.WRITE, context=listener, pool="default") as mounted:
            await health.set_drive(drive.serial, DriveState.DRAINED, "its door squeaks")
            await mounted.lane.run(lambda used: used.write_block(memoryview(bytes(1000))))
        with pytest.raises(NoDriveAvailable) as raised:
            await use(capstan)
        assert "its door squeaks" in raised.value.hint_text
        await health.set_drive(drive.serial, DriveState.ENABLED, "")
        await use(capstan)

    with_library(tmp_path, body, library(clean_every=0))


def test_every_flag_has_a_meaning() -> None:
    """Of the 64 that there are; those that we know say what to do."""
    assert all(alert_of(flag).flag == flag for flag in range(1, 65))
    assert len(ALERTS) == 51 and all(alert.name and alert.remedy for alert in ALERTS.values())
