"""A single drive without a robot: people put in the cartridge that a job wants."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from test_mounts import Reporter, row

from capstan import library_devices
from capstan.bootstrap import Capstan, open_home
from capstan.core.media import CartridgeState
from capstan.errors import ChangerError, HomeDamaged, InvalidValue, NoDriveAvailable, Refused
from capstan.media.manager import MountedCartridge, Purpose
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.tape.changer import DriveAddress, SlotAddress
from capstan.tape.scsi_changer import ScsiMediaChanger

FIRST, SECOND = "CAP001L9", "CAP002L9"


class Person:
    """Stands at the drive, and knows where each cartridge lies. `brings`: what comes at each look, None for nothing."""

    def __init__(self, library: VirtualLibrary) -> None:
        self._robot = ScsiMediaChanger(library.changer_transport())
        self.brings: list[str | None] = []
        self.looks = 0

    def put_in(self, barcode: str) -> None:
        """What is in the drive goes back first."""
        drive = DriveAddress(101)
        inventory = self._robot.inventory()
        if inventory.drives[0].full:
            free = next(slot.place for slot in inventory.slots if not slot.full)
            self._robot.move(drive, free)
        there = self._robot.inventory().find(barcode)
        assert there is not None
        self._robot.move(there.place, drive)

    async def look(self, seconds: float) -> None:
        self.looks += 1
        barcode = self.brings.pop(0)
        if barcode is not None:
            await asyncio.to_thread(self.put_in, barcode)


class Listener(Reporter):
    """Keeps what a person is told."""

    def __init__(self, job: str = "job") -> None:
        super().__init__(job)
        self.wanted: list[tuple[str, str]] = []

    async def tell(self, kind: str, **data: Any) -> None:
        if kind == "cartridge.wanted":
            self.wanted.append((data["barcode"], data["found"]))


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    """At a drive that is all that Capstan sees of a library."""
    spec = LibrarySpec("lib", drives=1, slots=4, cartridges=3, capacity_bytes=8 << 20, cleaning_cartridges=0)
    VirtualLibrary.create(tmp_path / "lib", spec)
    with ExitStack() as stack:
        library = VirtualLibrary.open(tmp_path / "lib")
        stack.callback(library.close)
        monkeypatch.setattr(library_devices, "open_transport", lambda address: library.drive_transport(0))
        yield Person(library)


def at_the_desk(folder: Path, person: Person, body: Callable[[Capstan], Awaitable[None]]) -> None:
    """`body` in a home with that drive, in library `desk`."""

    async def run() -> None:
        async with open_home(folder / "home", sleep=lambda seconds: None) as capstan:
            capstan.manager._wait = person.look
            if "desk" not in capstan.settings.libraries:
                await capstan.add_library("desk", "", ["sg:/dev/sg1"])
            await body(capstan)

    asyncio.run(run())


def mount(capstan: Capstan, context: Reporter, barcode: str | None = None) -> Any:
    return capstan.manager.mount("desk", purpose=Purpose.WRITE, context=context, barcode=barcode, pool="default")


async def label(capstan: Capstan, person: Person, *barcodes: str) -> None:
    await capstan.operations.shelve("desk", barcodes, Listener())
    for barcode in barcodes:
        person.brings = [barcode]
        await capstan.operations.label(barcode, "default", Listener("label"), overwrite=False)


def test_asked_waited_checked(tmp_path: Path, person: Person) -> None:
    """The job says which cartridge it wants, once; one that is another's is given back, and told; the right one goes
    on, however long it takes."""

    async def body(capstan: Capstan) -> None:
        await label(capstan, person, FIRST, SECOND)
        person.brings = [None, None, SECOND, None, FIRST]
        listener = Listener()
        async with mount(capstan, listener, FIRST) as mounted:
            assert isinstance(mounted, MountedCartridge) and mounted.label is not None
            assert mounted.label.barcode == FIRST and person.brings == []
            assert (await row(capstan, FIRST)).place == "drive:1"
        assert listener.wanted == [(FIRST, "nothing"), (FIRST, f"cartridge {SECOND}"), (FIRST, "nothing")]
        assert (await row(capstan, FIRST)).place == "slot:1001"

    at_the_desk(tmp_path, person, body)


def test_a_cartridge_is_there_already(tmp_path: Path, person: Person) -> None:
    """Nobody is asked for it; also when it was put in before the program ran, and nobody had said that there is one."""

    async def first(capstan: Capstan) -> None:
        await label(capstan, person, FIRST)
        person.put_in(FIRST)
        listener = Listener()
        async with mount(capstan, listener, FIRST):
            pass
        assert listener.wanted == []
        person.put_in(FIRST)

    async def second(capstan: Capstan) -> None:
        await capstan.operations.inventory("desk")
        assert (await row(capstan, FIRST)).place == "drive:1"
        listener = Listener()
        async with mount(capstan, listener, FIRST):
            pass
        assert listener.wanted == [] and (await row(capstan, FIRST)).place == "slot:1001"

    at_the_desk(tmp_path, person, first)
    at_the_desk(tmp_path, person, second)
    (tmp_path / "home" / "libraries" / "desk.json").unlink()
    person.put_in(FIRST)
    at_the_desk(tmp_path, person, second)
    assert FIRST in (tmp_path / "home" / "libraries" / "desk.json").read_text()


def test_a_job_that_is_given_up_while_it_waits(tmp_path: Path, person: Person) -> None:
    """The drive is free again; meanwhile nobody else gets the cartridge or the drive."""

    async def body(capstan: Capstan) -> None:
        await label(capstan, person, FIRST)
        waiting, go = asyncio.Event(), asyncio.Event()

        async def wait(seconds: float) -> None:
            waiting.set()
            await go.wait()

        capstan.manager._wait = wait

        async def use() -> None:
            async with mount(capstan, Listener("one"), FIRST):
                raise AssertionError

        task = asyncio.create_task(use())
        await waiting.wait()
        with pytest.raises(NoDriveAvailable):
            async with mount(capstan, Listener("two"), FIRST):
                pass
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        capstan.manager._wait = person.look
        person.brings = [FIRST]
        async with mount(capstan, Listener("three"), FIRST):
            pass

    at_the_desk(tmp_path, person, body)


def test_the_next_cartridge_of_the_pool(tmp_path: Path, person: Person) -> None:
    """Scratch cartridges are asked for by name, and labelled."""

    async def body(capstan: Capstan) -> None:
        await capstan.operations.shelve("desk", [SECOND, FIRST, SECOND], Listener())
        async with capstan.catalog.transaction() as catalog:
            for barcode in (FIRST, SECOND):
                cartridge = await catalog.media.get(barcode)
                cartridge.state = CartridgeState.SCRATCH
                await catalog.media.save(cartridge)
        person.brings = [FIRST]
        async with mount(capstan, Listener()) as mounted:
            assert mounted.cartridge.barcode == mounted.label.barcode == FIRST

    at_the_desk(tmp_path, person, body)


def test_the_shelf(tmp_path: Path, person: Person) -> None:
    """What is said to be there, is there, until it is taken away; not while it is in the drive."""

    async def body(capstan: Capstan) -> None:
        await label(capstan, person, FIRST, SECOND)
        assert await capstan.operations.shelve("desk", [FIRST], Listener()) == []
        await capstan.operations.export("desk", FIRST, Listener())
        assert (await row(capstan, FIRST)).place == "" and (await row(capstan, SECOND)).place == "slot:1002"
        await capstan.operations.shelve("desk", [FIRST], Listener())
        person.brings = [FIRST]
        async with mount(capstan, Listener(), FIRST):
            with pytest.raises(ChangerError, match="in the drive"):
                await capstan.operations.export("desk", FIRST, Listener())
        opened = await capstan.manager.open("desk")
        for source, destination in ((SlotAddress(1001), SlotAddress(1003)), (SlotAddress(1003), DriveAddress(1))):
            with pytest.raises(ChangerError):
                opened.devices.changer.move(source, destination)
        with pytest.raises(InvalidValue):
            await capstan.operations.shelve("desk", ["lower case"], Listener())

    at_the_desk(tmp_path, person, body)


@pytest.mark.parametrize("content", ["[]", "{", '{"x": "CAP001L9"}', '{"1001": "not one"}', '{"1001": 5}'])
def test_a_damaged_shelf(tmp_path: Path, person: Person, content: str) -> None:
    async def nothing(capstan: Capstan) -> None: ...

    async def body(capstan: Capstan) -> None:
        with pytest.raises(HomeDamaged):
            await capstan.operations.inventory("desk")

    at_the_desk(tmp_path, person, nothing)
    (tmp_path / "home" / "libraries" / "desk.json").write_text(content)
    at_the_desk(tmp_path, person, body)


def test_a_robot_needs_no_shelf(tmp_path: Path) -> None:
    async def run() -> None:
        async with open_home(tmp_path / "home", sleep=lambda seconds: None) as capstan:
            await capstan.create_virtual_library(LibrarySpec("lib", cartridges=1))
            with pytest.raises(Refused, match="robot"):
                await capstan.operations.shelve("lib", [FIRST], Listener())
            with pytest.raises(InvalidValue, match="single drive"):
                await capstan.add_library("desk", "", ["sg:/dev/sg1", "sg:/dev/sg2"])

    asyncio.run(run())
