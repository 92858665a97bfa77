"""A tape library of another maker: `tgtd`, on a free loopback port, with its state in one folder."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

IQN = "iqn.2024-01.test.capstan:lib"
DRIVES, SLOTS, PORTS = 2, 6, 1
CARTRIDGES = [f"TGT{number:03d}L8" for number in range(1, 5)]
CHANGER = DRIVES + 1  # LUN; 0 is tgtd's own
FIRST_DRIVE, ROBOT, FIRST_PORT, FIRST_SLOT = 1, 10, 20, 1000


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@dataclass
class Tgt:
    """One `tgtd`. `address(LUN)` is what Capstan calls its units."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    chap: tuple[str, str] | None = None

    def address(self, lun: int, options: str = "") -> str:
        return f"iscsi:127.0.0.1:{self.port}/{IQN}/{lun}{options}"

    @property
    def changer(self) -> str:
        return self.address(CHANGER)

    @property
    def drives(self) -> list[str]:
        return [self.address(number + 1) for number in range(DRIVES)]

    def start(self, *, size_mb: int = 64) -> None:
        """Start it, with what is in the folder, or new cartridges."""
        self._make_media(size_mb)
        self._control = self.port % 30_000 + 1
        log = (self.folder / "log").open("ab")
        portal = f"portal=127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            ["tgtd", "-f", "-C", str(self._control), "-t", "2", "--iscsi", portal],
            stdout=log,
            stderr=log,
            env=self._environment,
        )
        log.close()
        while self._admin("--mode", "sys", "--op", "show", check=False):
            assert self.process.poll() is None, (self.folder / "log").read_text()
        self._define()

    def kill(self) -> None:
        """SIGKILL, and gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        for path in self.folder.glob("ipc*"):
            path.unlink(missing_ok=True)

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "TGT_IPC_SOCKET": str(self.folder / "ipc")}

    def _admin(self, *arguments: str, check: bool = True) -> int:
        command = ["tgtadm", "-C", str(self._control), "--lld", "iscsi", *arguments]
        ended = subprocess.run(command, env=self._environment, capture_output=True, text=True)
        assert not check or ended.returncode == 0, f"{command}: {ended.stderr}"
        return ended.returncode

    def _make_media(self, size_mb: int) -> None:
        media = self.folder / "media"
        media.mkdir(parents=True, exist_ok=True)
        smc = self.folder / "smc"
        if smc.exists():
            return
        smc.write_bytes(bytes(1024))
        for number in range(DRIVES):
            _make(self.folder / f"empty{number + 1}", "", 1, "clean")
        for barcode in CARTRIDGES:
            _make(media / barcode, barcode, size_mb, "data")

    def blank(self, barcode: str, size_mb: int = 64) -> None:
        """Make a cartridge anew, while it is in a slot."""
        path = self.folder / "media" / barcode
        path.unlink()
        _make(path, barcode, size_mb, "data")

    def _define(self) -> None:
        unit = ("--mode", "logicalunit", "--tid", "1")

        def update(lun: int, parameters: str) -> None:
            self._admin(*unit, "--op", "update", "--lun", str(lun), "--params", parameters)

        self._admin("--mode", "target", "--op", "new", "--tid", "1", "-T", IQN)
        for name, value in (
            ("MaxRecvDataSegmentLength", 262144),
            ("FirstBurstLength", 262144),
            ("MaxBurstLength", 1 << 20),
        ):
            self._admin("--mode", "target", "--op", "update", "--tid", "1", "--name", name, "--value", str(value))
        for number in range(1, DRIVES + 1):
            empty = str(self.folder / f"empty{number}")
            self._admin(*unit, "--op", "new", "--lun", str(number), "-b", empty, "--device-type=tape")
            update(number, f"vendor_id=IBM,product_id=ULT3580-TD8,product_rev=0001,scsi_sn=DRV0000{number},removable=1")
            update(number, "online=0")
        smc = str(self.folder / "smc")
        self._admin(*unit, "--op", "new", "--lun", str(CHANGER), "-b", smc, "--device-type=changer")
        update(CHANGER, "vendor_id=STK,product_id=L700,product_rev=0001,scsi_sn=LIB00001")
        update(CHANGER, f"media_home={self.folder}/media")
        for kind, first, count in (
            (4, FIRST_DRIVE, DRIVES),
            (1, ROBOT, 1),
            (3, FIRST_PORT, PORTS),
            (2, FIRST_SLOT, SLOTS),
        ):
            update(CHANGER, f"element_type={kind},start_address={first},quantity={count}")
            if kind == 4:
                for number in range(DRIVES):
                    update(CHANGER, f"element_type=4,address={first + number},tid=1,lun={number + 1}")
        for number, barcode in enumerate(CARTRIDGES):
            update(CHANGER, f"element_type=2,address={FIRST_SLOT + number},barcode={barcode},sides=1")
        if self.chap:
            name, secret = self.chap
            account = ("--mode", "account")
            self._admin(*account, "--op", "new", "--user", name, "--password", secret)
            self._admin(*account, "--op", "bind", "--tid", "1", "--user", name)
        self._admin("--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL")


def _make(path: Path, barcode: str, size_mb: int, kind: str) -> None:
    options = ["--barcode", barcode, "--size", str(size_mb), "--type", kind, "--file", str(path)]
    make = ["tgtimg", "--op", "new", "--device-type", "tape", *options, "--thin-provisioning"]
    subprocess.run(make, check=True, capture_output=True)


@contextmanager
def started(folder: Path, *, chap: tuple[str, str] | None = None) -> Iterator[Tgt]:
    """A `tgtd` that is gone behind the block. The folder's path must be short: a socket lies there."""
    tgt = Tgt(folder, chap=chap)
    try:
        tgt.start()
        yield tgt
    finally:
        tgt.kill()
