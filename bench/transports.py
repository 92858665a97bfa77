"""How much of what a path carries Capstan uses: the drive's port, and a backup, against a plain loop of WRITE(6) on the
same path, in turn.

`make bench ONLY=iscsi` on tgt, over loopback; `make bench ONLY=sg` on a Linux kernel in User Mode Linux, with the
virtual library behind it. Both are as fast as their targets are on this machine: only the ratio says something of
Capstan.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from results import keep_section, machine

from capstan.cli.main import main as capstan
from capstan.scsi import cdb
from capstan.scsi.address import open_transport
from capstan.scsi.transport import Command, Direction, Status
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive

TESTS = Path(__file__).parents[1] / "tests"
RECORD = 512 << 10
ROUNDS = 5


def told(home: Path, *arguments: str | Path) -> dict[str, object]:
    """The result of a command."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        code = capstan(["--json", "--home", str(home), *map(str, arguments)])
    if code:
        raise SystemExit(out.getvalue())
    return dict(json.loads(out.getvalue()))


def loops(changer: str, drive: str, barcode: str, size: int) -> tuple[float, float]:
    """Bytes per second of WRITE(6), one after the other, and a filemark at the end; the same by the drive's port."""
    robot = ScsiMediaChanger(open_transport(changer))
    inventory = robot.inventory()
    element = inventory.find(barcode)
    assert element is not None
    robot.move(element.place, inventory.drives[0].place)
    data = memoryview(bytearray(random.Random(1).randbytes(RECORD)))
    tape = ScsiTapeDrive(open_transport(drive))
    tape.load()
    began = time.perf_counter()
    for _ in range(size // RECORD):
        tape.write_block(data)
    tape.write_filemarks()
    by_port = time.perf_counter() - began
    tape.close()
    transport = open_transport(drive)
    transport.execute(Command(cdb.test_unit_ready(), Direction.NONE, None, 60))
    transport.execute(Command(cdb.rewind(), Direction.NONE, None, 60))
    began = time.perf_counter()
    for _ in range(size // RECORD):
        answer = transport.execute(Command(cdb.write(RECORD), Direction.OUT, data, 60))
        if answer.status is not Status.GOOD:
            raise SystemExit(f"WRITE ended with {answer}")
    transport.execute(Command(cdb.write_filemarks(1, immediate=False), Direction.NONE, None, 600))
    seconds = time.perf_counter() - began
    transport.close()
    tape = ScsiTapeDrive(open_transport(drive))
    tape.unload()
    tape.close()
    robot.move(inventory.drives[0].place, element.place)
    robot.close()
    return size / seconds, size / by_port


def backup(home: Path, source: Path, events: Path) -> float:
    """Bytes per second of a backup, from its first record to its commit point: what the drive's commands say."""
    told(home, "backup", source, "--name", "t", "--codec", "none", "--trace", events)
    traced = [json.loads(line) for line in events.read_text().splitlines()]
    writes = [item for item in traced if item["cdb"].startswith("0a")]
    marks = [item for item in traced if item["cdb"].startswith("10")]
    return sum(item["length"] for item in writes) / (marks[-1]["at"] + marks[-1]["seconds"] - writes[0]["at"])


def compare(changer: str, drives: list[str], barcodes: list[str], folder: Path, size: int) -> list[list[float]]:
    """Bytes per second of both loops and of a backup, for each round. The first cartridge is the loops'."""
    source, home = folder / "source", folder / "home"
    source.mkdir()
    block = random.Random(2).randbytes(8 << 20)
    (source / "data").write_bytes(block * (size // len(block)))
    home.mkdir()
    (home / "capstan.toml").write_text(f'[archive]\nrecord_bytes = {RECORD}\nsegment_bytes = "1GiB"\n')
    options = [part for drive in drives for part in ("--drive", drive)]
    told(home, "library", "add", "lib", "--changer", changer, *options)
    told(home, "pool", "create", "default")
    found = []
    for number in range(ROUNDS):
        told(home, "tape", "label", barcodes[1], "--pool", "default", "--overwrite")
        plain, by_port = loops(changer, drives[0], barcodes[0], size)
        found.append([plain, by_port, backup(home, source, folder / f"trace-{number}")])
        told(home, "tape", "erase", barcodes[1], "--yes")
    return found


def on_tgt() -> list[list[float]]:
    """Over iSCSI, to tgt."""
    sys.path.insert(0, str(TESTS / "iscsi"))
    from tgt import CARTRIDGES, Tgt

    with tempfile.TemporaryDirectory(prefix="tgt", dir="/dev/shm") as folder:
        target = Tgt(Path(folder) / "t")
        try:
            target.start(size_mb=700)
            with tempfile.TemporaryDirectory(dir="/dev/shm") as mine:
                return compare(target.changer, target.drives, CARTRIDGES, Path(mine), 256 << 20)
        finally:
            target.kill()


def on_kernel() -> list[list[float]]:
    """Through `sg`, in a guest that runs `guest` here."""
    sys.path.insert(0, str(TESTS / "uml"))
    from kernel import run_on_kernel

    with tempfile.TemporaryDirectory(prefix="uml") as folder:
        path = f"{TESTS.parent / 'src'}:{TESTS / 'uml/guest'}:{Path(__file__).parent}"
        command = f"PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={path} {sys.executable} {__file__} guest"
        ended = run_on_kernel(command, Path(folder), seconds=900)
        if ended.status:
            raise SystemExit(ended.output + ended.errors)
        return list(json.loads(ended.output.splitlines()[-1]))


def in_guest() -> None:
    """Serve a virtual library to this kernel, and compare on it."""
    from conftest import command, run, serve

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        home = Path(folder) / "virtual"
        options = ("--capacity", "400MiB", "--drives", "1", "--cartridges", "2", "--slots", "2")
        run(*command(home, "library", "create", "lib", "--virtual", *options))
        served = serve(home)
        addresses = [f"sg:{drive}" for drive in served.drives]
        found = compare(f"sg:{served.changer}", addresses, ["CAP001L9", "CAP002L9"], Path(folder), 96 << 20)
        served.stop()
        print(json.dumps(found))


def main() -> None:
    """Measure one path, and keep it in RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", choices=("iscsi", "sg", "guest"))
    path = parser.parse_args().path
    if path == "guest":
        in_guest()
        return
    found = on_tgt() if path == "iscsi" else on_kernel()
    rates = [median(item[index] for item in found) / 1e6 for index in range(3)]

    def ratio(index: int) -> str:
        ratios = sorted(item[index] / item[0] for item in found)
        return f"**{median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})"

    where = (
        "tgt over iSCSI, on loopback" if path == "iscsi" else "the virtual library behind Linux' sg, in User Mode Linux"
    )
    lines = [
        f"## {path}: a backup against a plain loop of WRITE(6), {where}",
        "",
        "| | MB/s | ratio |",
        "|---|---|---|",
        f"| WRITE(6) of 512 KiB, one after the other, and a filemark | {rates[0]:.0f} | |",
        f"| the same by the drive's port (`TapeDrive.write_block`) | {rates[1]:.0f} | {ratio(1)} |",
        f"| `capstan backup --codec none`, from its first record to its commit point | {rates[2]:.0f} | {ratio(2)} |",
        "",
        f"`make bench ONLY={path}`, {len(found)} pairs, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine()}.",
    ]
    keep_section(path, "\n".join(lines))


if __name__ == "__main__":
    main()
