"""Mounts that run at the same time: no two of them ever get one cartridge, or one drive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from capstan.bootstrap import Capstan, open_home
from capstan.core.health import Blame, Load
from capstan.core.media import Cartridge
from capstan.errors import CapstanError, CartridgeMissing, MediumError, NoDriveAvailable, StorageFailed
from capstan.format.label import Label, LabelWritten, write_label
from capstan.media import cartridges
from capstan.media.library import OpenLibrary
from capstan.media.manager import MountedCartridge, Purpose
from capstan.scsi.virtual.library import LibrarySpec
from capstan.tape.changer import Inventory
from capstan.tape.drive import TapeDrive

SPEC = LibrarySpec("lib", drives=2, slots=6, cartridges=4, capacity_bytes=8 << 20, cleaning_cartridges=0)


class Reporter:
    """What a mount needs of a job."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id

    async def phase(self, phase: str, **data: Any) -> None: ...

    async def tell(self, kind: str, **data: Any) -> None: ...

    async def warning(self, code: str, *, path: bytes | None = None, detail: str = "") -> None:
        raise AssertionError(f"{code}: {detail}")


def with_library(folder: Path, body: Callable[[Capstan], Awaitable[None]], spec: LibrarySpec = SPEC) -> None:
    """`body` in a home with a library: of two drives and four scratch cartridges, if not said otherwise."""

    async def run() -> None:
        async with open_home(folder / "home", sleep=lambda seconds: None) as capstan:
            await capstan.create_virtual_library(spec)
            await body(capstan)

    asyncio.run(run())


async def mount(capstan: Capstan, stack: AsyncExitStack, job: str = "job") -> MountedCartridge:
    """The next cartridge of pool `default`, until `stack` is closed."""
    manager = capstan.manager
    return await stack.enter_async_context(
        manager.mount("lib", purpose=Purpose.WRITE, context=Reporter(job), pool="default")
    )


async def row(capstan: Capstan, barcode: str) -> Cartridge:
    async with capstan.catalog.snapshot() as catalog:
        return await catalog.media.get(barcode)


def test_the_catalog_knows_the_drive_that_it_is_in(tmp_path: Path) -> None:
    """A cartridge that is labelled when it is mounted has its new label and its new place."""

    async def body(capstan: Capstan) -> None:
        async with AsyncExitStack() as stack:
            mounted = await mount(capstan, stack)
            there = await row(capstan, mounted.cartridge.barcode)
            assert (there.place, there.pool) == ("drive:101", "default")
        assert (await row(capstan, mounted.cartridge.barcode)).place == "slot:1001"

    with_library(tmp_path, body)


def test_mounts_at_the_same_time(tmp_path: Path) -> None:
    """As many cartridges as drives, each in one of its own; the next one is told that all are in use."""

    async def body(capstan: Capstan) -> None:
        async with AsyncExitStack() as stack:
            first, second = await asyncio.gather(*(mount(capstan, stack, job) for job in ("one", "two")))
            assert first.cartridge.barcode != second.cartridge.barcode and first.lane is not second.lane
            with pytest.raises(NoDriveAvailable):
                await mount(capstan, stack, "three")
            with pytest.raises(NoDriveAvailable) as raised:
                async with capstan.manager.mount(
                    "lib", purpose=Purpose.READ, context=Reporter("four"), barcode=first.cartridge.barcode
                ):
                    pass
            assert "in use by another job" in raised.value.hint_text
            with pytest.raises(CartridgeMissing):
                async with capstan.manager.mount(
                    "lib", purpose=Purpose.READ, context=Reporter("five"), barcode="CAP999L9"
                ):
                    pass
        async with AsyncExitStack() as stack:
            assert (await mount(capstan, stack)).cartridge.barcode == first.cartridge.barcode

    with_library(tmp_path, body)


def test_the_one_that_is_being_labelled_is_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes one of the pool's, with room, between another mount's look at the library and its choice."""
    labelling, go_on = Event(), Event()

    def held(drive: TapeDrive, label: Label) -> LabelWritten:
        labelling.set()
        go_on.wait()
        return write_label(drive, label)

    inventory = OpenLibrary.inventory

    async def body(capstan: Capstan) -> None:
        async with AsyncExitStack() as stack:
            first = asyncio.create_task(mount(capstan, stack))

            async def looked(library: OpenLibrary, *, rescan: bool = False) -> Inventory:
                found = await inventory(library, rescan=rescan)
                go_on.set()
                await first
                return found

            await asyncio.to_thread(labelling.wait)
            monkeypatch.setattr(OpenLibrary, "inventory", looked)
            second = await mount(capstan, stack)
            assert (await first).cartridge.barcode != second.cartridge.barcode
            assert (await first).lane is not second.lane
            monkeypatch.setattr(OpenLibrary, "inventory", inventory)

    monkeypatch.setattr(cartridges, "write_label", held)
    with_library(tmp_path, body)


def test_a_failure_that_cannot_be_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk under the catalog fails while a failure of the drive is noted: the cartridge goes home, and the drive is
    free, all the same."""

    async def body(capstan: Capstan) -> None:
        async def full(load: Load, error: CapstanError) -> Blame:
            raise StorageFailed(path="catalog.db", reason="no space left")

        monkeypatch.setattr(capstan.manager.health, "failed", full)
        with pytest.raises(StorageFailed):
            async with AsyncExitStack() as stack:
                mounted = await mount(capstan, stack)
                raise MediumError(device="virtual:lib/0", command="WRITE", block=1, sense="3/0C/00")
        monkeypatch.undo()
        assert (await row(capstan, mounted.cartridge.barcode)).place == "slot:1001"
        async with AsyncExitStack() as stack:
            again = await mount(capstan, stack, "another")
            assert again.load.drive == mounted.load.drive

    with_library(tmp_path, body)
