"""Cartridges go only into drives that take their generation, and their memory says whose they are."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from test_mounts import SPEC, Reporter, mount, row, with_library

from capstan.bootstrap import Capstan
from capstan.core.media import CartridgeState
from capstan.errors import (
    HardwareError,
    IllegalRequest,
    NoCartridgeAvailable,
    NoDriveAvailable,
    NoDriveFits,
    PositionLost,
    ReservationConflict,
)
from capstan.library_devices import VirtualDevices
from capstan.media.manager import Purpose
from capstan.tape.cartridge_memory import memory_of
from capstan.tape.drive import TapeDrive
from capstan.tape.scsi_drive import ScsiTapeDrive

EMPTY = replace(SPEC, cartridges=0, slots=6, ports=3)


async def put_in(capstan: Capstan, *barcodes: str) -> None:
    """New scratch cartridges, in slots."""
    library = await capstan.manager.open("lib")
    assert isinstance(library.devices, VirtualDevices)
    for barcode in barcodes:
        library.devices._library.insert_into_port(barcode)
    await capstan.operations.import_all("lib", Reporter("import"))
    async with capstan.catalog.transaction() as catalog:
        for barcode in barcodes:
            await catalog.media.save(replace(await catalog.media.get(barcode), state=CartridgeState.SCRATCH))


def test_the_pool_has_cartridges_of_several_generations(tmp_path: Path) -> None:
    """Those that the drives only read, or do not take at all, are passed over for writing."""

    async def body(capstan: Capstan) -> None:
        await put_in(capstan, "AAA001L7", "BBB001L8", "CCC001L9")
        for expected in ("BBB001L8", "CCC001L9"):
            async with AsyncExitStack() as stack:
                assert (await mount(capstan, stack)).cartridge.barcode == expected
            async with capstan.catalog.transaction() as catalog:
                await catalog.media.save(replace(await catalog.media.get(expected), state=CartridgeState.FULL))
        with pytest.raises(NoCartridgeAvailable):
            async with AsyncExitStack() as stack:
                await mount(capstan, stack)
        old = await row(capstan, "AAA001L7")
        assert (old.state, old.loads, old.generation) == (CartridgeState.SCRATCH, 0, "LTO-7")

    with_library(tmp_path, body, EMPTY)


def test_a_cartridge_that_no_drive_reads(tmp_path: Path) -> None:
    """It is never put into a drive, and the error says which drive would take it."""

    async def body(capstan: Capstan) -> None:
        await put_in(capstan, "AAA001L7")
        with pytest.raises(NoDriveFits, match=r"the drive reads LTO-8 and LTO-9, and not LTO-7; .*LTO-7.* does"):
            async with capstan.manager.load_raw("lib", "AAA001L7", Reporter("job")):
                pass
        assert (await row(capstan, "AAA001L7")).loads == 0

    with_library(tmp_path, body, EMPTY)


def test_a_drive_that_writes_less_than_it_reads(tmp_path: Path) -> None:
    """An LTO-7 drive reads LTO-5, and does not write it."""

    async def body(capstan: Capstan) -> None:
        await put_in(capstan, "AAA001L5")
        async with capstan.manager.load_raw("lib", "AAA001L5", Reporter("job")):
            pass
        with pytest.raises(NoDriveFits, match="the drive writes LTO-6 and LTO-7, and not LTO-5"):
            async with capstan.manager.mount(
                "lib", purpose=Purpose.WRITE, context=Reporter("job"), barcode="AAA001L5", pool="default"
            ):
                pass

    with_library(tmp_path, body, replace(EMPTY, generation="LTO-7"))


def test_only_drives_that_are_ours_are_used(tmp_path: Path) -> None:
    """The robot may have drives of other hosts: no cartridge is put into one, also when ours is in use."""

    async def body(capstan: Capstan) -> None:
        library = await capstan.manager.open("lib")
        library.devices.has_drive = lambda element: element == 102  # type: ignore[method-assign]
        async with AsyncExitStack() as stack:
            mounted = await mount(capstan, stack, "one")
            assert (await row(capstan, mounted.cartridge.barcode)).place == "drive:102"
            with pytest.raises(NoDriveAvailable):
                await mount(capstan, stack, "two")

    with_library(tmp_path, body)


def test_a_drive_that_another_host_has(tmp_path: Path) -> None:
    """The other one is used; where there is none, the job hears why."""

    async def body(capstan: Capstan) -> None:
        library = await capstan.manager.open("lib")
        open_drive = library.devices.open_drive

        def opened(serial: str, element: int) -> TapeDrive:
            if element == 101:
                raise ReservationConflict(device="sg:/dev/sg1", command="PERSISTENT RESERVE OUT")
            return open_drive(serial, element)

        library.devices.open_drive = opened  # type: ignore[method-assign]
        async with AsyncExitStack() as stack:
            mounted = await mount(capstan, stack, "one")
            assert (await row(capstan, mounted.cartridge.barcode)).place == "drive:102"
            with pytest.raises(ReservationConflict, match="sg1"):
                await mount(capstan, stack, "two")

    with_library(tmp_path, body)


def test_a_drive_that_fails_at_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cartridge goes home, nothing is held against it, and the job's next attempt takes another drive."""
    load = ScsiTapeDrive.load

    def failing(drive: ScsiTapeDrive) -> None:
        if drive.identity.serial == "lib-D0":
            raise HardwareError(device=drive.address, command="LOAD", sense="internal target failure (4/44/00)")
        load(drive)

    monkeypatch.setattr(ScsiTapeDrive, "load", failing)

    async def body(capstan: Capstan) -> None:
        async with AsyncExitStack() as stack:
            with pytest.raises(HardwareError):
                await mount(capstan, stack, "one")
            assert (await row(capstan, "CAP001L9")).place == "slot:1001"
            mounted = await mount(capstan, stack, "one")
            assert (await row(capstan, mounted.cartridge.barcode)).place == "drive:102"
        assert (await row(capstan, "CAP001L9")).state is CartridgeState.SCRATCH
        async with capstan.catalog.snapshot() as catalog:
            loads = [load for load in await catalog.health.list_loads() if load.failed]
        assert [load.drive for load in loads] == ["lib-D0"]

    with_library(tmp_path, body)


def test_the_memory_of_a_labelled_cartridge(tmp_path: Path) -> None:
    async def body(capstan: Capstan) -> None:
        async with AsyncExitStack() as stack:
            mounted = await mount(capstan, stack)
            memory = memory_of(await mounted.lane.run(lambda drive: drive.attributes()))
        assert (memory.barcode, memory.pool, memory.application) == (mounted.cartridge.barcode, "default", "Capstan")

    with_library(tmp_path, body)


@pytest.mark.parametrize("error", [IllegalRequest, HardwareError, PositionLost])
def test_a_memory_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[HardwareError]
) -> None:
    """The label is what counts: it is there, and the cartridge is used."""

    def refuse(drive: ScsiTapeDrive, attributes: object) -> None:
        raise error(device=drive.address, command="WRITE ATTRIBUTE", sense="refused", reason="refused")

    monkeypatch.setattr(ScsiTapeDrive, "write_attributes", refuse)

    async def body(capstan: Capstan) -> None:
        async with AsyncExitStack() as stack:
            mounted = await mount(capstan, stack)
            assert mounted.label is not None
        assert (await row(capstan, mounted.cartridge.barcode)).state is CartridgeState.AVAILABLE

    with_library(tmp_path, body)
