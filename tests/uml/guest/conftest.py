"""On a real Linux kernel: a virtual library, served to it by `capstan library serve --tcmu`, and its devices."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from capstan.scsi.linux_sg import LinuxSgTransport
from capstan.tape.changer import DriveAddress, SlotAddress
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive

CAPACITY = 64 << 20


def run(*arguments: str | Path, code: int | None = 0, only_output: bool = False, **options: object) -> str:
    """A program's output and errors; it must end with `code` if one is given."""
    ended = subprocess.run(
        [str(item) for item in arguments],
        capture_output=True,
        text=True,
        timeout=600,
        **options,  # type: ignore[call-overload]
    )
    assert code is None or ended.returncode == code, f"{arguments}: {ended.returncode}\n{ended.stdout}{ended.stderr}"
    return str(ended.stdout if only_output else ended.stdout + ended.stderr)


def command(home: Path, *arguments: str | Path) -> list[str | Path]:
    """The command line of a command on a home."""
    return [sys.executable, "-m", "capstan.cli.main", "--home", home, *arguments]


@dataclass
class Served:
    """A library that the kernel has. `drives` and `tapes` are of the same order."""

    process: subprocess.Popen[str]
    home: Path
    changer: str
    drives: list[str]  # /dev/sg…
    tapes: list[str]  # /dev/nst…

    def robot(self) -> ScsiMediaChanger:
        return ScsiMediaChanger(LinuxSgTransport(self.changer))

    def image(self, barcode: str) -> Path:
        return self.home / "libraries/lib/cartridges" / f"{barcode}.tap"

    def again(self, *options: str) -> None:
        """Serve it once more, after `stop`."""
        new = serve(self.home, *options)
        self.process, self.changer, self.drives, self.tapes = new.process, new.changer, new.drives, new.tapes

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(60)


def serve(home: Path, *options: str) -> Served:
    """Start to serve, and find the devices."""
    process = subprocess.Popen(
        [sys.executable, "-m", "capstan.cli.main", "--home", str(home), "library", "serve", "lib", "--tcmu", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "is served" in process.stdout.readline()
    listed = run("lsscsi", "-g")
    [changer] = re.findall(r"mediumx.* (/dev/sg\d+)", listed)
    found = re.findall(r"tape .* (/dev/st\d+) +(/dev/sg\d+)", listed)
    return Served(process, home, changer, [sg for _, sg in found], [st.replace("/st", "/nst") for st, _ in found])


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("virtual")
    options = ("--capacity", str(CAPACITY), "--drives", "2", "--cartridges", "6", "--slots", "8", "--ports", "1")
    run(*command(home, "library", "create", "lib", "--virtual", *options))
    return home


@pytest.fixture(scope="session")
def library(home: Path) -> Iterator[Served]:
    served = serve(home)
    yield served
    if served.process.poll() is None:
        served.stop()
    assert "CAPSTAN" not in run("lsscsi", "-g")
    assert os.listdir("/sys/kernel/config/target/core") == ["alua"]


@pytest.fixture
def tidy(library: Served) -> Iterator[Served]:
    """All cartridges are in their slots before and after."""
    yield library
    changer = library.robot()
    for index, element in enumerate(changer.inventory().drives):
        if element.full:
            drive = ScsiTapeDrive(LinuxSgTransport(library.drives[index]))
            drive.unload()
            drive.close()
            source = element.source or SlotAddress(1001)
            changer.move(DriveAddress(element.place.element), source)
    changer.close()
