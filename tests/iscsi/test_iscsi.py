"""iSCSI, with a target that nobody here wrote as the judge: tgt, with a changer and two drives."""

from __future__ import annotations

import json
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Home, below, describe
from tgt import CARTRIDGES, FIRST_DRIVE, FIRST_SLOT, IQN, Tgt, started

from capstan.errors import Delivery, InvalidValue, TransportError
from capstan.scsi import cdb
from capstan.scsi.iscsi import IscsiTransport, parse_address, read_chap
from capstan.scsi.transport import Command, Direction, ScsiTransport, Status
from capstan.tape.changer import DriveAddress, MediaChanger, SlotAddress
from capstan.tape.drive import TapeDrive
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.testing.changer_contract import ChangerContract
from capstan.testing.drive_contract import DriveContract
from capstan.testing.transport_contract import TransportContract

pytestmark = [pytest.mark.slow, pytest.mark.requires("tgtd", "libiscsi")]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path."""
    with tempfile.TemporaryDirectory(prefix="tgt") as path:
        yield Path(path)


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Tgt]:
    with started(folder / "a") as tgt:
        yield tgt


def connect(address: str) -> IscsiTransport:
    return IscsiTransport(address.removeprefix("iscsi:"))


@pytest.fixture
def tidy(served: Tgt) -> Iterator[Tgt]:
    """Everything is in its slot afterwards."""
    yield served
    changer = ScsiMediaChanger(connect(served.changer))
    found = changer.inventory()
    for element in found.drives:
        if element.full:
            drive = ScsiTapeDrive(connect(served.drives[element.place.element - FIRST_DRIVE]))
            drive.unload()
            drive.close()
            home = SlotAddress(FIRST_SLOT + CARTRIDGES.index(element.barcode))
            changer.move(element.place, home)
    changer.close()


class TestIscsiTransport(TransportContract):
    @pytest.fixture
    def transport(self, served: Tgt) -> Iterator[ScsiTransport]:
        transport = connect(served.drives[1])
        yield transport
        transport.close()


# Clauses that are None are those that tgt 1.0.85 does not keep, or does otherwise than SSC-5 and SMC-3 say.
class TestIscsiChanger(ChangerContract):
    test_an_exchange = None  # type: ignore[assignment]  # it says that it can (mode page 1Fh), and has no EXCHANGE MEDIUM
    test_the_door = None  # type: ignore[assignment]  # it has no PREVENT ALLOW MEDIUM REMOVAL

    @pytest.fixture
    def changer(self, tidy: Tgt) -> Iterator[MediaChanger]:
        changer = ScsiMediaChanger(connect(tidy.changer))
        yield changer
        changer.close()


class TestIscsiDrive(DriveContract):
    test_erasing_ends_the_data_there = None  # type: ignore[assignment]  # it has no ERASE
    test_unload_and_load = None  # type: ignore[assignment]  # its UNLOAD leaves the cartridge ready

    @pytest.fixture
    def drive(self, tidy: Tgt) -> Iterator[TapeDrive]:
        tidy.blank(CARTRIDGES[0])  # it does not erase
        changer = ScsiMediaChanger(connect(tidy.changer))
        changer.move(SlotAddress(FIRST_SLOT), DriveAddress(FIRST_DRIVE))
        changer.close()
        drive = ScsiTapeDrive(connect(tidy.drives[0]))
        drive.load()
        yield drive
        drive.close()


def add(home: Home, tgt: Tgt) -> None:
    """A home with the library, and two of its cartridges in the pool."""
    drives = [part for drive in tgt.drives for part in ("--drive", drive)]
    assert home.run("library", "add", "lib", "--changer", tgt.changer, *drives).json["cartridges"] == CARTRIDGES
    home.run("pool", "create", "default")
    for barcode in CARTRIDGES[:2]:
        home.run("tape", "label", barcode, "--pool", "default", "--overwrite")


def same(tree: Path, out: Path) -> None:
    assert describe(below(out, tree)) == describe(tree)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    for number in range(30):
        (path / f"file {number}").write_bytes(random.Random(number).randbytes(number * 4000))
    (path / "large").write_bytes(random.Random(99).randbytes(5 << 20))
    return path


def test_backup_and_restore(folder: Path, tree: Path, tmp_path: Path) -> None:
    """As an operator does it: add, label, back up, add to it, verify, restore, rebuild."""
    home = Home(tmp_path / "home")
    with started(folder / "b") as tgt:
        add(home, tgt)
        first = home.run("backup", tree, "--name", "t").json
        (tree / "new").write_bytes(b"new")
        second = home.run("backup", tree, "--name", "t", "--type", "incremental").json
        assert first["cartridges"] == second["cartridges"]
        assert first["state"] == second["state"] == "complete" and second["type"] == "incremental"
        home.run("verify", first["cartridges"][0])
        home.run("restore", second["set_id"], "--to", tmp_path / "out")
        same(tree, tmp_path / "out")
        (home.path / "catalog.db").unlink()
        assert home.run("rebuild", "--library", "lib").json["sets"] == 2
        home.run("restore", "latest:t", "--to", tmp_path / "again")
        same(tree, tmp_path / "again")


def attended(home: Home, tgt: Tgt, *arguments: str | Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What a command says, and what it has wanted meanwhile: a person brings it each time."""
    wanted = []
    running = subprocess.Popen(
        home.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert running.stderr is not None and running.stdout is not None
    for line in running.stderr:
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("event") == "cartridge.wanted":
            wanted.append((event["barcode"], event["found"]))
            hand = ScsiMediaChanger(connect(tgt.changer))
            inventory = hand.inventory()
            drive = inventory.at(DriveAddress(FIRST_DRIVE))
            assert drive is not None
            if drive.full:
                hand.move(drive.place, next(slot.place for slot in inventory.slots if not slot.full))
            there = hand.inventory().find(event["barcode"])
            assert there is not None
            hand.move(there.place, drive.place)
            hand.close()
    output = running.stdout.read()
    assert running.wait() == 0, output
    return json.loads(output), wanted


def test_a_single_drive_and_a_person(folder: Path, tree: Path, tmp_path: Path) -> None:
    """Without the robot: it says which cartridge it wants, waits, looks at its label, and goes on by itself."""
    home, (first, second) = Home(tmp_path / "home"), CARTRIDGES[:2]
    with started(folder / "e") as tgt:
        home.run("library", "add", "desk", "--drive", tgt.drives[0])
        home.run("library", "import", "desk", "--cartridge", first, "--cartridge", second)
        assert attended(home, tgt, "tape", "label", first, "--pool", "default")[1] == [(first, "nothing")]
        home.run("library", "export", "desk", second)
        home.run("library", "import", "desk", "--cartridge", second)
        attended(home, tgt, "tape", "erase", second, "--yes")
        made, wanted = attended(home, tgt, "backup", tree, "--name", "t")
        assert made["state"] == "complete" and made["cartridges"] == [first]
        assert wanted == [(first, f"cartridge {second}")]
        attended(home, tgt, "restore", made["set_id"], "--to", tmp_path / "out")
        same(tree, tmp_path / "out")


def test_the_target_is_killed_in_the_middle_of_a_write(folder: Path, tree: Path, tmp_path: Path) -> None:
    """A clear error; nothing that was acknowledged is lost; when the target is back, the job goes on."""
    home = Home(tmp_path / "home")
    (tree / "larger").write_bytes(random.Random(5).randbytes(40 << 20))
    with started(folder / "c") as tgt:
        add(home, tgt)
        before = home.run("backup", tree / "large", "--name", "before").json
        image = tgt.folder / "media" / before["cartridges"][0]
        command = home.command("backup", tree, "--name", "t")
        size = image.stat().st_blocks
        running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while image.stat().st_blocks < size + (8 << 20) // 512 and running.poll() is None:
            os.sched_yield()
        tgt.kill()
        output, _ = running.communicate(timeout=120)
        error = json.loads(output)["error"]
        assert running.returncode in (5, 7) and error["hint"], output
        tgt.start()
        resumed = home.run("job", "resume", home.run("jobs").json[0]["job_id"]).json
        home.run("verify", before["set_id"])
        home.run("restore", before["set_id"], "--to", tmp_path / "before")
        home.run("restore", resumed["set_id"], "--to", tmp_path / "out")
        same(tree, tmp_path / "out")


def test_who_may_log_in(folder: Path, tmp_path: Path) -> None:
    """CHAP from a file, which nobody else may read; the secret is in no error."""
    chap = tmp_path / "chap"
    chap.write_text("operator\na secret of tapes\n")
    chap.chmod(0o600)
    with started(folder / "d", chap=("operator", "a secret of tapes")) as tgt:
        connect(tgt.address(1, f"?chap={chap}")).close()
        chap.write_text("operator\na wrong secret..\n")
        for options in ("", f"?chap={chap}"):
            with pytest.raises(TransportError) as raised:
                connect(tgt.address(1, options))
            assert raised.value.delivery is Delivery.NOT_DELIVERED and "secret" not in str(raised.value)


def test_what_is_not_there(served: Tgt, tmp_path: Path) -> None:
    """Another target, another port, another unit: an error each, which says where."""
    wrong = (
        served.address(1).replace(IQN, "iqn.2024-01.test:other"),
        served.address(1).replace(str(served.port), "1"),
    )
    for address in wrong:
        with pytest.raises(TransportError) as raised:
            connect(address)
        assert raised.value.delivery is Delivery.NOT_DELIVERED and address in str(raised.value)
    nobody = connect(served.address(77))
    told = memoryview(bytearray(36))
    answer = nobody.execute(Command(cdb.inquiry(36), Direction.IN, told, 10))
    nobody.close()
    # SPC-4 6.4.1: peripheral qualifier 011b, device type 1Fh says "no unit at this number".
    assert answer.status is Status.CHECK_CONDITION or told[0] == 0x7F
    error = (
        Home(tmp_path / "home")
        .run("library", "add", "x", "--changer", wrong[0], "--drive", wrong[0], code=7)
        .json["error"]
    )
    assert error["code"] == "transport" and error["hint"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host/iqn.a:b/3", ("host:3260", "iqn.a:b", 3, "")),
        ("host:99/iqn.a:b/0", ("host:99", "iqn.a:b", 0, "")),
        ("[::1]:99/iqn.a:b/1", ("[::1]:99", "iqn.a:b", 1, "")),
        ("[::1]/eui.02004567A425678D/1?chap=/x", ("[::1]:3260", "eui.02004567A425678D", 1, "/x")),
    ],
)
def test_addresses(text: str, expected: tuple[Any, ...]) -> None:
    found = parse_address(text)
    assert (found.portal, found.target, found.lun, found.chap) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host/iqn.a",
        "host/a/1",
        "host/iqn.a/x",
        "host:x/iqn.a/1",
        "/iqn.a/1",
        "host/iqn.a/1?user=x",
        "host/iqn.a/1?chap=",
        "host:0/iqn.a/1",
        "h/iqn.a/300",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_address(text)


def test_chap_files(tmp_path: Path) -> None:
    path = tmp_path / "chap"
    with pytest.raises(InvalidValue, match="No such file"):
        read_chap(str(path))
    path.write_text("name\nsecret")
    path.chmod(0o644)
    with pytest.raises(InvalidValue, match="chmod 600"):
        read_chap(str(path))
    path.chmod(0o600)
    assert read_chap(str(path)) == (b"name", b"secret")
    path.write_text("name\n")
    with pytest.raises(InvalidValue, match="below"):
        read_chap(str(path))
